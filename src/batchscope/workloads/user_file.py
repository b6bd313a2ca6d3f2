"""A user's workload: ``path/to/file.py:function``, the one thing read from disk that is executed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from batchscope.errors import BatchscopeError, WorkloadError
from batchscope.spec.workload import Workload
from batchscope.workloads.source import version_of


def load_file(reference: str, data_dir: str | Path | None = None) -> Workload:
    """Import ``path/to/file.py`` and call its ``function``, with ``data_dir`` where it has such a parameter.

    The file can import what lies beside it, as a script can. A workload without a name is called
    ``file.py:function``; one without a version gets the hash of the file's code, so that trials of an
    edited file are never taken for trials of the old one; comments and docstrings are free.

    Raises:
        WorkloadError: If the file or the function is not there, fails, or gives no ``Workload``.
    """
    file, _, function = reference.rpartition(":")
    if not file or function.endswith(".py"):
        raise WorkloadError(f"name the function of the workload file too: {reference}:FUNCTION")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise WorkloadError(
            f"there is no workload file {path}: name one that is there, or write one with\n  batchscope init {file}"
        )
    with _folder_on_the_path(path.parent):
        build = _function(_import(path), function, path)
        with _named_failure(path, f"{function}() failed"):
            parameters = inspect.signature(build).parameters
            workload = build(**({"data_dir": data_dir} if "data_dir" in parameters else {}))
    if not isinstance(workload, Workload):
        raise WorkloadError(
            f"{reference}: {function}() must return a batchscope.Workload, got {type(workload).__name__}"
        )
    return replace(
        workload,
        name=workload.name or f"{path.name}:{function}",
        version=workload.version or version_of(path),
    )


def _import(path: Path) -> ModuleType:
    """The file as a module under a name of its own, so that no two files, or a file and a package, meet."""
    name = f"batchscope_workload_{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WorkloadError(f"a workload file must be a Python file that ends in .py, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle search for the classes of the file
    try:
        with _named_failure(path, "the workload file cannot be imported"):
            spec.loader.exec_module(module)
    except WorkloadError:
        del sys.modules[name]
        raise
    return module


def _function(module: ModuleType, name: str, path: Path) -> Callable[..., Any]:
    own = [
        other
        for other, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not other.startswith("_")
    ]
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    fault = f"has no function {name!r}" if found is None else f"has {name!r}, which is no function"
    has = ", ".join(f"{path.name}:{other}" for other in own) or "no function at all"
    raise WorkloadError(f"{path} {fault}; it has {has}")


@contextlib.contextmanager
def _folder_on_the_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextlib.contextmanager
def _named_failure(path: Path, what: str) -> Iterator[None]:
    """Turns what the user's code raises into an error that names their line; our own errors pass."""
    try:
        yield
    except BatchscopeError:
        raise
    except SyntaxError as error:
        raise WorkloadError(f"{what}: {error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
        where = f"{path}, line {line}" if line else str(path)
        raise WorkloadError(f"{what}: {where}: {type(error).__name__}: {error}") from error
