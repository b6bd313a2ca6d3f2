"""The choices that decide a run's last bits: recorded with it, repeated when it goes on, and taken over by others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from batchscope.engine.choice import PROGRAMS, ProgramChoice
from batchscope.errors import StoreError, StudyError
from batchscope.runs import notes
from batchscope.spec.study import Study
from batchscope.store.provenance import collect
from batchscope.store.store import Store

# Programs of earlier versions, which lost to others or were never measured.
RETIRED = ("channels_last", "captured")
_CHOICES = TypeAdapter(dict[int, ProgramChoice])
# Whatever of these differs may round differently.
_VERSIONS = ("batchscope", "torch", "numpy")


@dataclass(frozen=True)
class Recorded:
    """What a run has recorded.

    Attributes:
        folder: Of the run.
        choices: Program and pack size by batch size.
        threads: Of every worker; None if it was not recorded.
        remarks: Why it may not be repeated bit for bit here.
    """

    folder: Path
    choices: Mapping[int, ProgramChoice]
    threads: int | None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path, provenance: Mapping[str, Any]) -> Recorded:
        """Read the choices of a provenance.

        Raises:
            StoreError: If they are not such as this version writes.
        """
        found, threads = _noted(provenance, folder), provenance.get("threads")
        if not (threads is None or (isinstance(threads, int) and threads >= 1)):
            raise StoreError(
                f"{folder / 'provenance.json'}: threads must be a whole number above 0, got {threads!r:.80}: "
                "put the right file back"
            )
        return cls(folder, found, threads)


def replayed(folder: Path, study: Study, device: str) -> Recorded:
    """The choices of another run, for every batch size of the study.

    A folder without a run is a ``StoreError``.

    Raises:
        StudyError: If that run has none for some batch size.
    """
    provenance = Store.open(folder).provenance
    found = Recorded.of(folder, provenance)
    skipped = provenance.get("skipped")
    without = set(skipped) if isinstance(skipped, dict) else set()
    missing = [size for size in study.batch_sizes if size not in found.choices and str(size) not in without]
    if missing:
        known = ", ".join(map(str, sorted(found.choices))) or "none"
        raise StudyError(
            f"{folder} has no choices for batch size {', '.join(map(str, missing))} to replay, only for {known}; "
            "give a run of all batch sizes, or fewer batch_sizes"
        )
    here = collect()
    pairs = {"device": (provenance.get("device"), device)}
    for name in _VERSIONS:
        pairs[name] = provenance.get("versions", {}).get(name), here["versions"].get(name)
    pairs["processor"] = provenance.get("hardware", {}).get("cpu"), here["hardware"]["cpu"]
    remarks = tuple(
        f"the choices of {folder} were made with {name} {theirs}, this run has {ours}: the last bits may differ"
        for name, (theirs, ours) in pairs.items()
        if theirs != ours
    )
    taken = {size: found.choices[size] for size in study.batch_sizes if size in found.choices}
    return replace(found, choices=taken, remarks=remarks)


def check_pins(study: Study, recorded: Recorded) -> None:
    """Refuse what the study pins otherwise than it is recorded: a batch size is computed in one way from end to end.

    Raises:
        StudyError: With what to type.
    """
    engine = study.engine
    faults = []
    for size in study.batch_sizes:
        if size in recorded.choices:
            choice = recorded.choices[size]
            if engine.program not in ("auto", choice.program) and engine.program not in choice.reasons:  # has failed
                faults.append(f"batch size {size} has engine.program={choice.program}, not {engine.program}")
            if engine.pack_size not in ("auto", choice.pack_size):
                faults.append(f"batch size {size} has engine.pack_size={choice.pack_size}, not {engine.pack_size}")
    if recorded.threads is not None and engine.threads not in ("auto", recorded.threads):
        faults.append(f"it has engine.threads={recorded.threads}, not {engine.threads}")
    if faults:
        raise StudyError(
            f"{recorded.folder} was computed otherwise than the study pins: {'; '.join(faults)}. "
            "Write auto or what is recorded, or run the study in another folder, without --replay-choices"
        )


def pinned(study: Study, own: Recorded) -> Recorded:
    """The choices of a folder, with the program that the study pins now: it gives the same numbers, and goes on.

    A program that has failed in the folder is not taken up again.
    """
    pin, choices, remarks = study.engine.program, dict(own.choices), list(own.remarks)
    for size in study.batch_sizes:
        choice = choices.get(size)
        if pin != "auto" and choice and pin != choice.program and pin not in choice.reasons:
            choices[size] = replace(choice, program=pin)
            remarks.append(
                f"batch size {size} was begun with engine.program={choice.program} and goes on with {pin}, as the "
                "study says: the last bits may differ"
            )
    return replace(own, choices=choices, remarks=tuple(remarks))


def failed(choice: ProgramChoice, reason: str) -> ProgramChoice:
    """What a choice becomes when its program has failed: the loop, which takes any module, with the same packs."""
    return replace(choice, program="loop", reasons={**choice.reasons, choice.program: f"failed {reason}"})


def joined(own: Recorded, other: Recorded | None) -> Recorded:
    """What a folder has recorded, and for the rest what is replayed.

    Raises:
        StudyError: If they contradict each other.
    """
    if other is None:
        return own
    for size in sorted(own.choices.keys() & other.choices.keys()):
        ours, theirs = own.choices[size], other.choices[size]
        if _bare(ours) != _bare(theirs):
            raise StudyError(
                f"{own.folder} has begun batch size {size} with {ours.program} x {ours.pack_size}, and {other.folder} "
                f"has {theirs.program} x {theirs.pack_size}; give a new folder with -o"
            )
    if own.threads not in (None, other.threads) and own.choices:
        raise StudyError(
            f"{own.folder} has begun with {own.threads} threads a worker, and {other.folder} has {other.threads}; "
            "give a new folder with -o"
        )
    remarks = (*own.remarks, *other.remarks)
    return replace(own, choices={**other.choices, **own.choices}, threads=other.threads, remarks=remarks)


def written(choices: Mapping[int, ProgramChoice]) -> dict[str, Any]:
    """The choices as plain values for JSON."""
    return {str(size): asdict(choice) for size, choice in sorted(choices.items())}


def _bare(choice: ProgramChoice) -> ProgramChoice:
    """Without what was measured on the way."""
    return replace(choice, timings={}, reasons={}, remark="")


def _noted(provenance: Mapping[str, Any], folder: Path) -> dict[int, ProgramChoice]:
    """Batch size to the program that was chosen for it.

    Raises:
        StoreError: If what stands there is no such choice.
    """
    found = notes.read(_CHOICES, provenance.get("choices", {}), "choices", folder)
    for size, choice in found.items():
        if choice.program in RETIRED:
            found[size] = failed(choice, "here: this version has no such program")
        elif choice.program not in PROGRAMS or choice.pack_size < 1:
            raise StoreError(
                f"{folder / 'provenance.json'}: choices.{size} names the program {choice.program!r} and packs of "
                f"{choice.pack_size}; there are {', '.join(PROGRAMS)} and packs of 1 and more: put the right file back"
            )
    return found
