"""What a driver notes in the provenance of a run and later needs again, checked when it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from batchscope.engine.choice import PROGRAMS, Choice
from batchscope.errors import StoreError
from batchscope.spec.space import Space

T = TypeVar("T")
_CHOICES = TypeAdapter(dict[int, Choice])
_SPACES = TypeAdapter(dict[int, list[Space]])


def context(provenance: Mapping[str, Any], folder: Path) -> str:
    """What the trial ids of a run share.

    Raises:
        StoreError: If it is lost: then nobody knows whether a study goes on with this run or begins another.
    """
    found = provenance.get("context")
    if not isinstance(found, str):
        raise StoreError(
            f"{folder / 'provenance.json'} does not say of which workload and algorithm this run is: put the right "
            "file back, or choose another folder with -o"
        )
    return found


def choices(provenance: Mapping[str, Any], folder: Path) -> dict[int, Choice]:
    """Batch size to the program that was chosen for it.

    Raises:
        StoreError: If what stands there is no such choice.
    """
    found = _read(_CHOICES, provenance.get("choices", {}), "choices", folder)
    for size, choice in found.items():
        if choice.program not in PROGRAMS or choice.pack_size < 1:
            raise StoreError(
                f"{folder / 'provenance.json'}: choices.{size} names the program {choice.program!r} and packs of "
                f"{choice.pack_size}; there are {', '.join(PROGRAMS)} and packs of 1 and more: put the right file back"
            )
    return found


def spaces(provenance: Mapping[str, Any], folder: Path) -> dict[int, list[Space]]:
    """Batch size to its space and what widening made of it, where it was widened; errors are those of ``choices``."""
    found = _read(_SPACES, provenance.get("spaces", {}), "spaces", folder)
    return {size: revisions for size, revisions in found.items() if revisions}


def _read(adapter: TypeAdapter[T], value: object, name: str, folder: Path) -> T:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, (name, *fault["loc"])))
        what = f"{place}: {fault['msg']}, got {fault['input']!r:.80}"
        raise StoreError(f"{folder / 'provenance.json'}: {what}: put the right file back") from None
