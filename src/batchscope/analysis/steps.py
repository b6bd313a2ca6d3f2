"""Steps to result: the fewest steps to a goal at every batch size, and how sure that is.

Legend: M batch sizes, D samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from batchscope.analysis import curve_notes
from batchscope.analysis.audit import Space
from batchscope.analysis.curve import FIRST_COLUMNS, LAST_COLUMNS, Curve, Kinds
from batchscope.analysis.curve_point import CurvePoint
from batchscope.analysis.held_out import on_test
from batchscope.analysis.outcomes import PREFIX, Array, Outcomes, Table, ended_early, hyperparameters, outcomes
from batchscope.analysis.reach import nearest
from batchscope.analysis.regimes import TOLERANCE, regimes
from batchscope.analysis.searched import dimensions, searched
from batchscope.analysis.tuned_optimum import Optimum, tuned_optimum
from batchscope.analysis.tuned_rows import tuned_rows
from batchscope.analysis.tuned_steps import TunedSteps, promised
from batchscope.spec.goal import Goal
from batchscope.spec.study import EDGE

_UNKNOWN = 2  # hyperparameters, of trials whose settings are not known
_OVERLOOKED = (
    "exact but for evaluations that ended early: one that was just beyond the goal is overlooked less than once in "
    "1,000 times, and the next one sees it"
)


def steps_to_result(
    trials: Table,
    measurements: Table,
    goal: Goal,
    *,
    trials_per_batch_size: int | None = None,
    equal_trials: bool = False,
    space: Space | Mapping[int, Space] | None = None,
    edge: float = EDGE,
    tolerance: float = TOLERANCE,
    level: float = 0.9,
    samples: int = 1000,
    tuned: bool = False,
    found: Outcomes | None = None,
) -> Curve:
    """The steps-to-result curve of a run (Sh19 section 4).

    Args:
        trials: The table of trials.
        measurements: The table of measurements; may be lazy.
        goal: What is to be reached.
        trials_per_batch_size: Use only the first so many feasible trials of each batch size.
        equal_trials: Use as many trials everywhere as the batch size with the fewest feasible ones has.
        space: The search space, for the boundary check: name -> (smallest, largest, scale), or such a space for
            every batch size where widening made them differ.
        edge: The share of a range, in its scale, that counts as too near to its side.
        tolerance: Of the regimes.
        level: Of the intervals.
        samples: D.
        tuned: Whether every trial trains what was tuned at its batch size before, and nothing was searched.
        found: What became of the trials, if it is known already.

    A run without trials, or without the metric of the goal, is an ``AnalysisError``.
    """
    found = found or outcomes(trials, measurements, goal)
    if equal_trials:
        fewest = max(1, found.fewest_feasible())
        trials_per_batch_size = min(fewest, trials_per_batch_size or fewest)
    names = hyperparameters(found.table.columns)
    groups = dict(found.search(trials_per_batch_size))
    if tuned:
        promises, optimum = tuned_rows(groups, level=level, samples=samples), None
    else:
        promises = promised(found.table, groups, names, level=level, samples=samples)
        optimum = _optimum(groups, promises, names, samples)
    points = [
        CurvePoint.of(found, group, names, _space_at(space, batch_size), edge, level, samples, promises.get(batch_size))
        for batch_size, group in groups.items()
    ]
    for point in points:
        if tuned:
            point.row.update(low=None, high=None, trained=None)  # the fewest of a search, of which there was none
        else:
            point.judge(optimum, level)
    kinds: Kinds = {name: found.table.schema[PREFIX + name] for name in names}
    table = pl.DataFrame([point.row for point in points], schema=FIRST_COLUMNS | kinds | LAST_COLUMNS)
    reached = [point for point in points if point.row["steps"] is not None]
    confirmed = all(point.promise is not None for point in reached) and table.get_column("tuned").count() > 0
    quantity = "tuned" if confirmed else "steps"
    medians, fresh = (
        _joint([point.drawn(what) if point.row[quantity] is not None else None for point in points], samples)
        for what in (("log_median", "log_fresh") if confirmed else ("search", "search"))
    )
    inside = table.get_column(quantity).is_not_null()
    shown = table.filter(inside)
    steps = shown.get_column(quantity).to_numpy() * 1.0
    sizes = shown.get_column("batch_size").to_numpy() * 1.0
    curves = medians[:, inside]
    if optimum and len(sizes):
        curves = np.column_stack([optimum.at(int(size)) for size in sizes])
        steps = np.exp(np.median(curves, axis=0))
    boundaries = regimes(sizes, steps, curves, tolerance=tolerance, level=level)
    approximate = curve_notes.approximate(found.table)
    notes = (
        *curve_notes.of_curve(found, table, confirmed, approximate),
        *curve_notes.of_optima(table, quantity, groups, names),
    )
    if ended_early(measurements, goal.metric):
        notes = (*notes, _OVERLOOKED)
    if tuned:
        notes = (*notes, "steps were tuned before they came here: how far they lie from their law is their error")
    if missed := table.filter(pl.col("steps").is_null()).get_column("batch_size").to_list():
        lost = found.table.filter(pl.col("batch_size").is_in(missed)).get_column("status") == "diverged"
        notes = (*notes, f"where the goal was not reached {nearest(measurements, goal, missed, diverged=lost.all())}")
    test = on_test(measurements, [group for point in reached for group in _chosen(found, point.row, names)])
    return Curve(goal, table, boundaries, level, confirmed, notes, medians, approximate, test, fresh)


def _optimum(
    groups: Mapping[int, pl.DataFrame], promises: Mapping[int, TunedSteps], names: list[str], samples: int
) -> Optimum | None:
    """The optimum of the space; None where no batch size tried two settings, for then nothing tells how far it is."""
    known, varied = searched(groups, promises), dimensions(groups, names)
    if varied == 0 or not any(len(one.log_steps) + len(one.watched) > 1 for one in known):
        return None
    return tuned_optimum(known, _UNKNOWN if varied is None else varied, samples=samples)


def _joint(columns: Sequence[Array | None], samples: int) -> Array:
    return np.column_stack([np.full(samples, np.nan) if column is None else column for column in columns])


def _space_at(space: Space | Mapping[int, Space] | None, batch_size: int) -> Space | None:
    if space is None:
        return None
    own: Space = {}
    for key, value in space.items():
        if isinstance(key, str) and isinstance(value, tuple):
            own = {**own, key: value}
        elif key == batch_size and isinstance(value, Mapping):
            return value
    return own


def _chosen(found: Outcomes, point: Mapping[str, object], names: list[str]) -> list[pl.DataFrame]:
    """The winner of a point, and the trainings of its setting with new seeds."""
    table = found.table.filter(pl.col("batch_size") == point["batch_size"])
    same = [pl.col(PREFIX + name).eq_missing(pl.lit(point[name])) for name in names]
    return [table.filter(pl.col("trial") == point["winner"]), table.filter(pl.col("replicate") > 0, *same)]
