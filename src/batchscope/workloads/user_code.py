"""Whose fault an exception is: that of the user's model, loss, metric or data, told with their line, or our own."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from batchscope.errors import BatchscopeError, WorkloadError

_OURS = str(Path(__file__).parents[1])
_LIBRARIES = tuple(sysconfig.get_paths()[kind] for kind in ("purelib", "platlib", "stdlib", "platstdlib"))
# Files of torch from which it runs a user's modules and functions: what fails below them fails for what they are given.
_CALLS_MODULES = ("torch/nn/", "torch/utils/data/")
_LONGEST = 300

_CALLED = "a model is called as model(inputs), a loss and a metric as f(outputs, targets)"
_DICT = (
    "inputs that are a dict are given by keyword where forward has parameters of their names, else as one dict: rename "
    "the keys or the parameters, or give a tensor"
)
_ADVICE = {
    "positional argument": _CALLED,
    "keyword-only": _CALLED,
    "must be Tensor, not dict": _DICT,
    "'dict' object has no attribute": _DICT,
    "shapes cannot be multiplied": "a layer's size is not that of its inputs",
    "expected target": "the loss and the targets of the data do not go together",
    "ambiguous": "is the loss a class? make an object of it, such as CrossEntropyLoss(reduction='none')",
}
# What Batchscope runs into when it works with what the user's functions gave.
_OF_THEIR_VALUES = {
    "does not require grad": "the loss must come from the model's outputs by operations that have a gradient",
    "could not infer output dtype": "the loss must give floating-point values",
    "allocate memory": "the model, or a batch in it, is larger than the memory: make layers or batch sizes smaller",
    "are free": "the model is larger than the memory: make its layers smaller",
    "Storage size": "the model is larger than any memory: make its layers smaller",
    "Overflow": "the model is larger than any memory: make its layers smaller",
}


@contextmanager
def explained(workload: str) -> Iterator[None]:
    """Exceptions of the user's code become errors that name their line; what is ours passes.

    Errors:
        WorkloadError: In place of an exception that the user's code, or torch running it, has raised.
    """
    try:
        yield
    except BatchscopeError:
        raise
    except Exception as error:
        found = in_words(error, workload)
        if found is None:
            raise
        raise found from error


def in_words(error: Exception, workload: str) -> WorkloadError | None:
    """An exception of the user's code as two lines: what went wrong, and where; None for one that is not theirs.

    It is theirs if a line of theirs is in its traceback, or if torch raised it while it ran a module, a loss or a data
    set: those are always the user's.

    Args:
        error: As it was caught.
        workload: The study's name for its workload.
    """
    frames, place = traceback.extract_tb(error.__traceback__), place_of(error)
    message = f"{workload} fails: {type(error).__name__}: {_short(str(error))}"
    valued = _advice(_OF_THEIR_VALUES, error)
    if advice := valued or _advice(_ADVICE, error):
        message += f"; {advice}"
    if place is not None:
        return WorkloadError(f"{message}\n  at {place}")
    where = f"see the model and the loss of {workload}"
    if any(part in Path(frame.filename).as_posix() for frame in frames for part in _CALLS_MODULES):
        return WorkloadError(f"{message}\n  in a module of torch: {where}")
    return WorkloadError(f"{message}\n  {where}") if valued else None


def place_of(error: Exception) -> str | None:
    """File, line number and line of the user's code that an exception comes from; None if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = next((frame for frame in reversed(frames) if not _is_library(frame.filename)), None)
    if theirs is None:
        return None
    line = linecache.getline(theirs.filename, theirs.lineno or 0).strip()
    return f"{theirs.filename}, line {theirs.lineno}: {line}"


def _advice(table: Mapping[str, str], error: Exception) -> str | None:
    return next((advice for words, advice in table.items() if words in str(error)), None)


def _is_library(file: str) -> bool:
    """Whether a file is Batchscope's, Python's, an installed package's, or none at all."""
    return file.startswith(("<", _OURS, *_LIBRARIES)) or "site-packages" in file


def _short(text: str) -> str:
    """The first line of a message, and no more of it than one reads."""
    first = next(iter(text.strip().splitlines()), "no message")
    return first if len(first) <= _LONGEST else f"{first[: _LONGEST - 3]}..."
