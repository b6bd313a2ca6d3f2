"""Which trials of a folder its present study plans. A study that was changed leaves those of the one before behind.

Sampling is a function of study, batch size and revision, so a trial is planned if the study draws it anew: with the
same point, the same number and the same seed it has the same id. In a folder of one search every trial is planned, and
nothing need be drawn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

import batchscope
from batchscope.amounts import counted
from batchscope.plan.sampling import further_trials, trials
from batchscope.plan.widen import further_count
from batchscope.runs import notes
from batchscope.spec.space import Space
from batchscope.spec.study import Study
from batchscope.spec.trial import Trial


def planned(table: pl.DataFrame, study: Study, provenance: Mapping[str, Any], folder: Path) -> pl.DataFrame:
    """The rows of the table of trials that the study plans; all of them where the provenance has lost the context."""
    if table.is_empty() or not isinstance(provenance.get("context"), str):
        return table
    if provenance.get("searches") == [_search(study)]:
        return table.filter(pl.col("batch_size").is_in(study.batch_sizes))
    context = notes.context(provenance, folder)
    widened = spaces(study, provenance, folder)
    found: set[str] = set()
    for (batch_size,), rows in table.partition_by("batch_size", as_dict=True).items():
        if batch_size in study.batch_sizes:
            found |= _ids(rows, study, batch_size, widened.get(batch_size, [study.search.spaces]), context)
    return table if len(found) == len(table) else table.filter(pl.col("trial").is_in(list(found)))


def searches(study: Study, provenance: Mapping[str, Any] | None) -> list[str]:
    """What is noted before a study's first trial: all the searches that drew trials of its folder, this one the last.

    A folder that has no such note, because an older driver began it, counts as one of another search.
    """
    before = [] if provenance is None else provenance.get("searches", ["unknown"])
    return list(dict.fromkeys([*(before if isinstance(before, list) else ["unknown"]), _search(study)]))


def spaces(study: Study, provenance: Mapping[str, Any], folder: Path) -> dict[int, list[dict[str, Space]]]:
    """The study's spaces by optimizer and what widening made of them, by batch size, where they were widened."""
    found = notes.spaces(provenance, folder)
    return {
        size: revisions
        for size, revisions in found.items()
        if size in study.batch_sizes and revisions[0] == study.search.spaces
    }


def left_out(count: int) -> list[str]:
    """What is said of trials that are not planned: nothing where there are none."""
    return [f"{counted(count, 'trial')} of an earlier study, not counted"] if count else []


def _search(study: Study) -> str:
    """What decides which points a study draws at a batch size; the version, because it may draw others."""
    found = [study.search.model_dump(mode="json"), study.seed, batchscope.__version__]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def _ids(
    rows: pl.DataFrame, study: Study, batch_size: int, revisions: list[dict[str, Space]], context: str
) -> set[str]:
    """Those of ``rows`` that are drawn by the searches of one batch size, or confirm a point that is."""
    statuses = dict(rows.select("trial", "status").iter_rows())
    found: list[Trial] = []
    search = study.search
    for revision, after in enumerate(revisions):
        if revision == 0:
            source = trials(search, batch_size, study.seed)
            wanted = None if search.method == "grid" else search.count
        else:
            before, start = revisions[revision - 1], 1 + max((trial.index for trial in found), default=-1)
            wider = search.with_spaces(after)
            source = further_trials(wider, before, batch_size, study.seed, revision, start)
            wanted = further_count(before, after, search.count)
        found += _drawn(source, wanted, statuses, context)
    again = [replace(trial, replicate=seed) for trial in found for seed in range(1, search.confirm.seeds + 1)]
    return {name for trial in (*found, *again) if (name := trial.id(context)) in statuses}


def _drawn(source: Iterator[Trial], wanted: int | None, statuses: Mapping[str, str], context: str) -> list[Trial]:
    """The trials that a search draws: as many feasible ones as are wanted, and those that they replace."""
    drawn: list[Trial] = []
    feasible = 0
    while wanted is None or feasible < wanted:
        trial = next(source, None)
        if trial is None:
            break
        drawn.append(trial)
        feasible += statuses.get(trial.id(context)) != "diverged"
    return drawn
