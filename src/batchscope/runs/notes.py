"""What a driver notes in the provenance of a run and later needs again, checked when it is read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from batchscope.errors import StoreError
from batchscope.spec.space import Space

T = TypeVar("T")
# One space, or one for each of the optimizers that are searched.
_Revision = Annotated[
    dict[str, Space],
    BeforeValidator(lambda raw: raw["optimizers"] if isinstance(raw, dict) and "optimizers" in raw else {"": raw}),
]
_SPACES = TypeAdapter(dict[int, list[_Revision]])


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


def joined_remarks(provenance: Mapping[str, Any], remarks: Sequence[str]) -> list[str]:
    """The remarks of a run, and further ones, each once."""
    before = provenance.get("remarks", [])
    return list(dict.fromkeys([*(before if isinstance(before, list) else []), *remarks]))


def written_spaces(revisions: Sequence[Mapping[str, Space]]) -> list[dict[str, Any]]:
    """The spaces of a batch size and what widening made of them, as ``spaces`` reads them."""
    found = [
        {key: {name: d.model_dump(exclude_none=True) for name, d in space.items()} for key, space in spaces.items()}
        for spaces in revisions
    ]
    return [spaces[""] if "" in spaces else {"optimizers": spaces} for spaces in found]


def spaces(provenance: Mapping[str, Any], folder: Path) -> dict[int, list[dict[str, Space]]]:
    """Batch size to its spaces by optimizer and what widening made of them, where they were widened.

    What stands there and is no such thing is a ``StoreError``.
    """
    found = read(_SPACES, provenance.get("spaces", {}), "spaces", folder)
    return {size: revisions for size, revisions in found.items() if revisions}


def read(adapter: TypeAdapter[T], value: object, name: str, folder: Path) -> T:
    """The value of ``name`` in the provenance of ``folder``.

    Raises:
        StoreError: If it is not of the adapter's type.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in (name, *fault["loc"]) if part != "")  # the one optimizer has no name
        what = f"{place}: {fault['msg']}, got {fault['input']!r:.80}"
        raise StoreError(f"{folder / 'provenance.json'}: {what}: put the right file back") from None
