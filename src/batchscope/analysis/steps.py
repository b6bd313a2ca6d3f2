"""Steps to result: the fewest steps to a goal at every batch size, and how sure that is.

Legend: M batch sizes, D samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from batchscope.analysis import tail
from batchscope.analysis.audit import WIDE, Space, boundary, central, trials_needed
from batchscope.analysis.held_out import on_test
from batchscope.analysis.outcomes import PREFIX, Array, Outcomes, Table, crossings, hyperparameters, outcomes
from batchscope.analysis.reach import nearest
from batchscope.analysis.regimes import TOLERANCE, Regimes, regimes
from batchscope.interval import Interval
from batchscope.seeds import numpy_generator
from batchscope.spec.goal import Goal
from batchscope.spec.study import EDGE

Kinds = dict[str, pl.DataType | type[pl.DataType]]
_FIRST_COLUMNS: Kinds = {
    "batch_size": pl.Int64,
    "steps": pl.Int64,
    "low": pl.Float64,
    "high": pl.Float64,
    "reached": pl.Int64,
    "feasible": pl.Int64,
    "trials": pl.Int64,
    "trial": pl.String,
}
_LAST_COLUMNS: Kinds = {
    "revisions": pl.Int64,
    "validated": pl.Boolean,
    "reason": pl.String,
    "verdict": pl.String,
    "trials_needed": pl.Int64,
    "confirmations": pl.Int64,
    "confirmed_steps": pl.Float64,
    "confirmed_low": pl.Float64,
    "confirmed_high": pl.Float64,
}

_HARDLY = 10.0  # an interval that spans this factor is no knowledge worth a number
_MOST_RUNGS = 8  # of those at which trials were pruned, in a sentence


def point_names(table: pl.DataFrame) -> list[str]:
    """The hyperparameters among the columns of ``Curve.table``."""
    return [name for name in table.columns if name not in _FIRST_COLUMNS and name not in _LAST_COLUMNS]


@dataclass(frozen=True, eq=False)
class Curve:
    """Steps to result against batch size.

    What is estimated is S(B), the expected fewest steps over as many feasible trials as were run, drawn from the
    same search space, seed noise included. ``table`` has one row per batch size, ascending:

    * ``steps``: the fewest steps observed, an unbiased estimate of S(B); null where no trial reached the goal;
    * ``low``, ``high``: the interval of S(B), no narrower than the gap between two evaluations;
    * ``reached``, ``feasible``, ``trials``: how many trials reached the goal, did not diverge before it, were run;
    * ``trial`` and the hyperparameters, under their own names: the winner (ties go to the lower index);
    * ``revisions``: how often the space was widened; ``validated`` and ``reason``: the boundary check, null if no
      space was given;
    * ``verdict``: "too few trials ..." where the interval spans more than a factor of 2, and ``trials_needed``;
    * ``confirmations``, ``confirmed_steps``, ``confirmed_low``, ``confirmed_high``: the winner run again with new
      seeds: how often, the median, and its interval.

    ``log_samples`` (D, M) are the joint draws from which ``regimes`` has its intervals, as logarithms: of the confirmed
    steps where every point was ``confirmed``, else of S(B); NaN where the goal was not reached. What two seeds say has
    samples so far out that steps themselves would be infinite.

    ``approximate`` says why the curve is not exact, where trials were pruned: a pruned trial might have won, so
    ``steps`` is an upper bound; and the intervals take it as one that was merely not watched for longer, though it was
    dropped for looking bad. ``None`` if none was pruned.

    ``test`` has what the test examples say of the winners and their confirmations where they reached the goal (see
    ``held_out.on_test``); nothing else depends on it.
    """

    goal: Goal
    table: pl.DataFrame
    regimes: Regimes
    level: float = 0.9
    confirmed: bool = False
    notes: tuple[str, ...] = ()
    log_samples: Array = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    approximate: str | None = None
    test: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)


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
        found: What became of the trials, if it is known already.

    A run without trials, or without the metric of the goal, is an ``AnalysisError``.
    """
    found = found or outcomes(trials, measurements, goal)
    if equal_trials:
        fewest = max(1, found.fewest_feasible())
        trials_per_batch_size = min(fewest, trials_per_batch_size or fewest)
    names = hyperparameters(found.table.columns)
    points = [
        _Point.of(found, group, names, _space_at(space, batch_size), edge, level, samples)
        for batch_size, group in found.search(trials_per_batch_size)
    ]
    kinds: Kinds = {name: found.table.schema[PREFIX + name] for name in names}
    table = pl.DataFrame([point.row for point in points], schema=_FIRST_COLUMNS | kinds | _LAST_COLUMNS)
    reached = [point for point in points if point.row["steps"] is not None]
    again = [point.confirmed for point in reached if point.confirmed is not None]
    confirmed = bool(again) and len(again) == len(reached)
    joint = np.full((samples, len(points)), np.nan)
    inside = table.get_column("steps").is_not_null()
    if reached:
        joint[:, inside.to_numpy()] = np.column_stack(again if confirmed else [point.sample for point in reached])
    shown = table.filter(inside)
    steps = shown.get_column("confirmed_steps" if confirmed else "steps").to_numpy() * 1.0
    sizes = shown.get_column("batch_size").to_numpy() * 1.0
    boundaries = regimes(sizes, steps, joint[:, inside.to_numpy()], tolerance=tolerance, level=level)
    approximate = _approximate(found.table)
    notes = _notes(found, table, confirmed, approximate)
    if missed := table.filter(~inside).get_column("batch_size").to_list():
        notes = (*notes, f"where the goal was not reached {nearest(measurements, goal, missed)}")
    test = on_test(measurements, [group for point in reached for group in _chosen(found, point.row, names)])
    return Curve(goal, table, boundaries, level, confirmed, notes, joint, approximate, test)


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


@dataclass(frozen=True)
class _Point:
    """A row of the table, with samples (D,) of log S(B) and of the logarithm of the winner's median steps over
    seeds.
    """

    row: dict[str, object]
    sample: Array
    confirmed: Array | None = None

    @classmethod
    def of(
        cls,
        found: Outcomes,
        group: pl.DataFrame,
        names: list[str],
        space: Space | None,
        edge: float,
        level: float,
        samples: int,
    ) -> _Point:
        batch_size, feasible = int(group.item(0, "batch_size")), group.filter("feasible")
        row: dict[str, object] = dict.fromkeys((*_FIRST_COLUMNS, *names, *_LAST_COLUMNS))
        row |= {"batch_size": batch_size, "trials": group.height, "feasible": feasible.height, "confirmations": 0}
        row |= {"reached": feasible.get_column("goal_step").count(), "revisions": group.get_column("revision").max()}
        if not row["reached"]:
            row |= {"validated": False, "reason": "no trial reached the goal"}
            return cls(row, np.empty(0))
        best = feasible.sort("goal_step", "revision", "index", nulls_last=True).row(0, named=True)
        generator = numpy_generator("steps to result", str(found.goal), batch_size)
        fitted = tail.fit(*crossings(feasible), samples, generator)
        sample = fitted.expected(feasible.height, found.evaluations[batch_size])
        low, high = central(sample, level)
        # The crossing itself is only known to lie after the evaluation before it.
        row |= {"steps": best["goal_step"], "trial": best["trial"]} | {name: best[PREFIX + name] for name in names}
        row |= {"low": min(low, best["before"] + 1.0), "high": max(high, float(best["goal_step"]))}
        if space is not None:
            row["reason"] = boundary({name: row[name] for name in names}, space, edge)
            row["validated"] = row["reason"] is None
        if high > WIDE * low:
            row["trials_needed"] = needed = trials_needed(fitted, generator, level)
            remedy = f"about {needed} would do" if needed else "more of them alone would hardly help: change the space"
            known = f"steps are known within a factor of {high / low:.1f}"
            if high > _HARDLY * low:
                known = (
                    f"{row['reached']} of {feasible.height} reached the goal, which says next to nothing of the steps"
                )
            row["verdict"] = f"too few trials: {known}; {remedy}"
        return cls(row, np.log(sample), _confirm(row, _again(found, best, names), level, samples, generator))


def _chosen(found: Outcomes, point: Mapping[str, object], names: list[str]) -> list[pl.DataFrame]:
    """The winner of a point, and the runs of it with new seeds."""
    winner = found.table.filter(pl.col("trial") == point["trial"])
    return [winner, _again(found, winner.row(0, named=True), names)]


def _again(found: Outcomes, best: Mapping[str, object], names: list[str]) -> pl.DataFrame:
    """The runs of the best point with new seeds."""
    same = [pl.col(PREFIX + name).eq_missing(pl.lit(best[PREFIX + name])) for name in names]
    return found.table.filter(pl.col("replicate") > 0, pl.col("batch_size") == best["batch_size"], *same)


def _confirm(
    row: dict[str, object], again: pl.DataFrame, level: float, samples: int, generator: np.random.Generator
) -> Array | None:
    """Enter the confirmation into the row; samples of the log median if all of at least 2 runs reached the goal.

    Log steps are taken as normal over seeds, with the gap between two evaluations as a further error.
    """
    count = again.height
    if not count:
        return None
    steps = again.get_column("goal_step").cast(pl.Float64).fill_null(np.inf).to_numpy()
    median, least = float(np.median(steps)), float(steps.min())
    row |= {"confirmations": count, "confirmed_steps": median if np.isfinite(median) else None}
    if missed := int(np.isinf(steps).sum()):
        row |= {"confirmed_low": least if np.isfinite(least) else None, "validated": False}
        row["reason"] = f"{missed} of {count} confirmations did not reach the goal"
        return None
    if count < 2:
        return None
    logs = np.log(steps)
    gap = logs - np.log(np.maximum(again.get_column("before").to_numpy(), 1))
    error = np.sqrt((logs.var(ddof=1) + (gap**2).mean() / 12) / count)
    sample = logs.mean() + error * generator.standard_t(count - 1, size=samples)
    found = Interval.from_log_samples(median, sample, level)
    row |= {"confirmed_low": found.low, "confirmed_high": found.high}
    return np.asarray(sample)


def _approximate(trials: pl.DataFrame) -> str | None:
    """What pruning has made of the curve; None if no trial was pruned."""
    pruned = trials.filter(pl.col("status") == "pruned")
    if pruned.is_empty():
        return None
    steps = [str(step) for step in pruned.get_column("steps").unique().sort()]
    rungs = ", ".join(steps if len(steps) <= _MOST_RUNGS else [*steps[: _MOST_RUNGS - 1], "...", steps[-1]])
    return (
        f"approximate: policy halving, or another pruner, dropped {pruned.height} trial{'s' * (pruned.height > 1)} "
        f"at rungs {rungs}; one of them might have won, so steps to result is an upper bound. The intervals are to be "
        "trusted less: they take these trials as not watched for longer, though they were dropped for their values"
    )


def _notes(found: Outcomes, table: pl.DataFrame, confirmed: bool, approximate: str | None) -> tuple[str, ...]:
    def at(condition: pl.Expr) -> str:
        return ", ".join(map(str, table.filter(condition).get_column("batch_size")))

    notes = []
    status = found.table.get_column("status")
    if running := int((status == "running").sum()):
        notes.append(f"{running} trials are still running: the curve is not final")
    if approximate:
        notes.append(approximate)
    if sizes := at(pl.col("steps").is_null()):
        others = ": the regimes are those of the others" if table.get_column("steps").count() else ""
        notes.append(f"no trial reached the goal at batch size {sizes}{others}")
    if sizes := at(pl.col("validated").eq(False) & pl.col("steps").is_not_null()):
        notes.append(f"not validated at batch size {sizes}: see reason")
    if sizes := at(pl.col("verdict").is_not_null()):
        notes.append(f"too few trials at batch size {sizes}: see verdict")
    if table.get_column("revisions").n_unique() > 1:
        notes.append("batch sizes whose space was widened had more trials: equal_trials compares on equal terms")
    if not confirmed and table.get_column("confirmations").sum():
        notes.append("not every point was confirmed: the regimes are drawn from the winners, who are lucky")
    return tuple(notes)
