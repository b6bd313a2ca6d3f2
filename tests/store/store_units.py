"""A small deterministic study to commit, unit by unit; run as a script, the driver that tests kill."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from batchscope.store import Store

BATCH_SIZES, PACKS, TRIALS, RUNGS, EVALUATIONS = (8, 16), 2, 3, (10, 20, 40), 5
Unit = tuple[pl.DataFrame, pl.DataFrame]


def trial_id(batch_size: int, index: int) -> str:
    return hashlib.sha256(f"{batch_size} {index}".encode()).hexdigest()[:16]


def unit(batch_size: int, pack: int, rung: int, *, rungs: tuple[int, ...] = RUNGS, trials: int = TRIALS) -> Unit:
    """A pack of trials advanced to a rung, every value a function of its identity."""
    start, end = (rungs[rung - 1] if rung else 0), rungs[rung]
    names = {index: trial_id(batch_size, index) for index in range(pack * trials, (pack + 1) * trials)}
    steps = sorted({start + (end - start) * (evaluation + 1) // EVALUATIONS for evaluation in range(EVALUATIONS)})
    rows = pl.DataFrame(
        {
            "trial": list(names.values()),
            "batch_size": batch_size,
            "index": list(names),
            "replicate": 0,
            "revision": 0,
            "status": "running" if rung + 1 < len(rungs) else "complete",
            "steps": end,
            "examples": end * batch_size,
            "hyperparameter/learning_rate": [0.1 * (1 + index) for index in names],
            "train_seconds": 0.5,
            "evaluation_seconds": 0.25,
        }
    )
    evaluations = pl.DataFrame(
        {
            "trial": [name for name in names.values() for _ in steps],
            "batch_size": batch_size,
            "step": steps * len(names),
            "examples": [step * batch_size for step in steps] * len(names),
            "epoch": [step * batch_size / 1000 for step in steps] * len(names),
            "validation/error": [(index + 1) / (step + 1) for index in names for step in steps],
            "seconds": 0.5,
        }
    )
    integers = pl.selectors.integer().cast(pl.Int64)
    return rows.with_columns(integers), evaluations.with_columns(integers)


def units() -> Iterator[tuple[int, int, int]]:
    for batch_size in BATCH_SIZES:
        for rung in range(len(RUNGS)):
            for pack in range(PACKS):
                yield batch_size, pack, rung


def drive(store: Store, done: list[tuple[int, int, int]] | None = None) -> None:
    """Commit whatever is missing, merging each batch size when it is done."""
    steps = dict(store.trials().select("trial", "steps").iter_rows())
    for batch_size, pack, rung in units():
        if steps.get(trial_id(batch_size, pack * TRIALS), 0) < RUNGS[rung]:
            store.commit(*unit(batch_size, pack, rung))
        if done is not None:
            done.append((batch_size, pack, rung))
        if (pack, rung) == (PACKS - 1, len(RUNGS) - 1):
            store.compact(batch_size)


def content(store: Store) -> Unit:
    """What a reader sees, in one order."""
    trials, evaluations = store.tables()
    return trials.sort("trial"), evaluations.sort("trial", "step").collect()


def whole(count: int) -> Unit:
    """What a reader must see after the first ``count`` units."""
    rows, evaluations = zip(*(unit(*key) for key in list(units())[:count]), strict=True) if count else ((), ())
    empty_rows, empty_evaluations = (frame.clear() for frame in unit(8, 0, 0))
    trials = pl.concat([empty_rows, *rows]).sort("trial", "steps").group_by("trial", maintain_order=True).last()
    return trials.select(empty_rows.columns), pl.concat([empty_evaluations, *evaluations]).sort("trial", "step")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with Store.open(folder, write=True) as driven:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        time.sleep(float(sys.argv[2]))
        drive(driven)
