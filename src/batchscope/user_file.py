"""A Python file of the user's, named in a study as ``path/to/file.py:name``: the one thing read that is executed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
import tokenize
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from batchscope.errors import BatchscopeError, WorkloadError

_SAID = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
_LAYOUT = {tokenize.INDENT: ">", tokenize.DEDENT: "<", tokenize.NEWLINE: "\n"}


def is_reference(text: str) -> bool:
    """Whether a name in a study is that of something in a file."""
    return ".py:" in text


def parted(reference: str) -> tuple[Path, str]:
    """File and name of ``path/to/file.py:name``."""
    file, _, name = reference.rpartition(":")
    return Path(file).expanduser().resolve(), name


def content(path: Path) -> str:
    """16 hexadecimal digits that change with the code of a file, not with its comments, docstrings and layout."""
    with path.open("rb") as file:
        words: list[str] = []
        line: list[tokenize.TokenInfo] = []
        for token in tokenize.tokenize(file.readline):
            if token.type in _SAID:
                continue
            line.append(token)
            if token.type == tokenize.NEWLINE:
                words += _code(line)
                line = []
    return hashlib.sha256(" ".join([*words, *_code(line)]).encode(errors="surrogatepass")).hexdigest()[:16]


def _code(line: list[tokenize.TokenInfo]) -> list[str]:
    """The words of a logical line; of one that is nothing but text, such as a docstring, its indentation only."""
    told = [token for token in line if token.type not in _LAYOUT]
    if all(token.type == tokenize.STRING for token in told):
        return [_LAYOUT[token.type] for token in line if token.type in (tokenize.INDENT, tokenize.DEDENT)]
    return [_LAYOUT.get(token.type, token.string) for token in line]


def digest(reference: str) -> str:
    """The name and content of what a reference names; the folder that the file is in does not count.

    Raises:
        WorkloadError: If the file cannot be read.
    """
    path, name = parted(reference)
    try:
        return f"{path.name}:{name}:{content(path)}"
    except (OSError, SyntaxError, tokenize.TokenError) as error:
        raise WorkloadError(f"{reference}: the file cannot be read: {error}") from None


def member(reference: str, kind: str) -> Any:
    """What ``path/to/file.py:name`` names.

    Args:
        reference: As in the study.
        kind: What it should be, in a word.

    Raises:
        WorkloadError: If the file or the name is not there, or the file fails.
    """
    path, name = parted(reference)
    if not path.is_file():
        raise WorkloadError(f"there is no file {path}, which {kind}: {reference} names")
    with on_the_path(path.parent):
        module = imported(path, kind)
    if not hasattr(module, name):
        own = [other for other, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise WorkloadError(f"{path} has no {name!r}; it has {', '.join(own) or 'nothing of its own'}")
    return getattr(module, name)


def imported(path: Path, kind: str) -> ModuleType:
    """The file as a module under a name of its own, so that no two files, or a file and a package, meet.

    Raises:
        WorkloadError: If it is no Python file, or fails.
    """
    name = f"batchscope_{kind}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WorkloadError(f"the {kind} file must be a Python file that ends in .py, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle search for the classes of the file
    try:
        with named_failure(path, f"the {kind} file cannot be imported"):
            spec.loader.exec_module(module)
    except WorkloadError:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def on_the_path(folder: Path) -> Iterator[None]:
    """Inside, a file can import what lies beside it, as a script can."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextlib.contextmanager
def named_failure(path: Path, what: str) -> Iterator[None]:
    """Turns what the user's code raises into an error that names their line; our own errors pass."""
    try:
        yield
    except BatchscopeError:
        raise
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}" if error.filename else str(path)
        raise WorkloadError(f"{what}: {where}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # the second from a script, which ends its process when it is imported
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
        where = f"{path}, line {line}" if line else str(path)
        told = f"{what}: {where}: {type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            told += '; a script does its work under  if __name__ == "__main__":'
        raise WorkloadError(told) from error
