"""A folder of runs, such as an import of several workloads makes: all are asked the same, and brought to one scale."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from batchscope.analysis import Curve, Refused, compare, plain_rows
from batchscope.errors import AnalysisError, BatchscopeError
from batchscope.runs.run_folder import Run
from batchscope.store.store import find_runs

MOST_AT_ONCE = 4  # each may hold half a gigabyte of measurements
T = TypeVar("T")


def holds_several(folder: str | Path) -> bool:
    """Whether ``folder`` is no run itself and holds at least one."""
    folder = Path(folder)
    return not (folder / "study.yaml").exists() and bool(find_runs(folder))


def ask_each(folder: str | Path, question: Callable[[Run], T]) -> Iterator[tuple[str, T | BatchscopeError]]:
    """The answer of every run at or below ``folder``, by its path there, in the order of the paths.

    Several are asked at once, in threads. A run that refuses to answer gives its refusal, and the others go on.
    """
    folder = Path(folder)

    def ask(run: Path) -> T | BatchscopeError:
        try:
            return question(Run(run))
        except BatchscopeError as refusal:
            return refusal
        except Exception as error:
            return AnalysisError(Refused(error).reason)

    runs = find_runs(folder)
    pool = ThreadPoolExecutor(max(1, min(_cores(), MOST_AT_ONCE)), "batchscope-run")
    try:
        for run, answer in zip(runs, pool.map(ask, runs), strict=True):
            yield run.relative_to(folder).as_posix(), answer
    finally:
        pool.shutdown(cancel_futures=True)


def comparison(curves: Mapping[str, Sequence[Curve]]) -> dict[str, Any]:
    """The runs' first curves, divided by their steps at the smallest batch size that all of them reached.

    The document is ``{"reference": BATCH_SIZE, "curves": ROWS}``, or ``{"refused": REASON}``.
    """
    try:
        found = compare({run: some[0] for run, some in curves.items()})
    except AnalysisError as refusal:
        return {"refused": str(refusal)}
    return {"reference": found.reference, "curves": plain_rows(found.table)}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
