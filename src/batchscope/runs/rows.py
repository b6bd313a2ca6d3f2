"""Between the results of units and the rows of the tables."""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from batchscope.executors.worker import Result
from batchscope.plan.race import Outcome, Unit
from batchscope.spec.goal import Goal
from batchscope.spec.trial import Trial

_EVALUATION_COLUMNS = {
    "trial": pl.String,
    "batch_size": pl.Int64,
    "step": pl.Int64,
    "examples": pl.Int64,
    "epoch": pl.Float64,
    "seconds": pl.Float64,
}


@dataclass(frozen=True)
class Computed:
    """A unit that was computed.

    Attributes:
        result: Of the unit.
        ids: Of its trials.
        known: For every trial, the last evaluation that is written already: an extended run passes again over what it
            has.
    """

    result: Result
    ids: Sequence[str]
    known: Sequence[int]


def measurement_rows(units: Sequence[Computed]) -> pl.DataFrame:
    """The evaluations of units, one row for each trial and evaluation, without those after a trial was over.

    Plain lists first and one table at the end: a table for every trial would take longer than many a unit.
    """
    metrics = dict.fromkeys(name for unit in units for name in unit.result.evaluations.metrics)
    columns: dict[str, list[Any]] = {name: [] for name in (*_EVALUATION_COLUMNS, *metrics)}
    for unit in units:
        evaluations, batch_size = unit.result.evaluations, unit.result.unit.search_round.batch_size
        epochs = [None if math.isnan(epoch) else epoch for epoch in evaluations.epochs]
        for k, (trial, start, end) in enumerate(zip(unit.ids, unit.known, unit.result.steps, strict=True)):
            within = slice(bisect.bisect_right(evaluations.steps, start), bisect.bisect_right(evaluations.steps, end))
            count = len(evaluations.steps[within])
            columns["trial"] += [trial] * count
            columns["batch_size"] += [batch_size] * count
            columns["step"] += evaluations.steps[within]
            columns["examples"] += evaluations.examples[within]
            columns["epoch"] += epochs[within]
            columns["seconds"] += evaluations.seconds[within]
            for name in metrics:
                rows = evaluations.metrics.get(name)
                columns[name] += [None] * count if rows is None else [row[k] for row in rows[within]]
    return pl.DataFrame(columns, schema=_EVALUATION_COLUMNS | dict.fromkeys(metrics, pl.Float64))


def trial_row(
    trial: Trial, name: str, status: str, steps: int, examples: int, seconds: tuple[float, float]
) -> dict[str, object]:
    """The row of one trial."""
    return {
        "trial": name,
        "batch_size": trial.batch_size,
        "index": trial.index,
        "replicate": trial.replicate,
        "revision": trial.revision,
        "status": status,
        "steps": steps,
        "examples": examples,
        **{f"hyperparameter/{key}": value for key, value in trial.hyperparameters.items()},
        "train_seconds": seconds[0],
        "evaluation_seconds": seconds[1],
    }


def outcomes(result: Result, goals: Sequence[Goal]) -> dict[int, Outcome]:
    """What became of every trial of a unit, by trial index."""
    evaluations, found = result.evaluations, {}
    for k, index in enumerate(result.unit.members):
        reached: dict[Goal, int] = {}
        for goal in goals:
            for step, row in zip(evaluations.steps, evaluations.metrics[goal.metric], strict=True):
                value = row[k]
                if value is not None and goal.is_reached(value):
                    reached[goal] = step
                    break
        best = {goal: value for goal in goals if (value := _best(goal, result, k)) is not None}
        found[index] = Outcome(result.steps[k], result.diverged[k], reached, best)
    return found


def _best(goal: Goal, result: Result, k: int) -> float | None:
    rows = result.evaluations.metrics[goal.metric]
    values = [value for row in rows if (value := row[k]) is not None and math.isfinite(value)]
    return functools.reduce(goal.better, values) if values else None


class Record:
    """What a run folder already knows of its trials, from which units need not be computed again."""

    def __init__(self, trials: pl.DataFrame, measurements: pl.LazyFrame, goals: Sequence[Goal]) -> None:
        """Read the tables once."""
        rows = trials.select("trial", "steps", "status", "train_seconds", "evaluation_seconds").iter_rows()
        self._known = {trial: (steps, status, (train, evaluation)) for trial, steps, status, train, evaluation in rows}
        self._reached: dict[Goal, dict[str, int]] = {}
        self._best: dict[Goal, dict[str, tuple[list[int], list[float]]]] = {}
        self._goals = len(goals)
        columns = measurements.collect_schema().names()
        for goal in goals:
            if goal.metric in columns:
                value = pl.col(goal.metric)
                beyond = value < goal.threshold if goal.side == "<" else value > goal.threshold
                first = measurements.filter(beyond).group_by("trial").agg(pl.col("step").min()).collect()
                self._reached[goal] = dict(first.iter_rows())
                so_far = value.cum_min() if goal.side == "<" else value.cum_max()
                finite = measurements.filter(value.is_finite()).sort("trial", "step")
                bests = finite.group_by("trial", maintain_order=True).agg("step", so_far.alias("best"))
                self._best[goal] = {trial: (steps, best) for trial, steps, best in bests.collect().iter_rows()}

    def outcomes(self, unit: Unit, ids: Sequence[str]) -> dict[int, Outcome] | None:
        """What became of the trials of a unit, by trial index; None unless all of it is known."""
        found = {}
        for index, name in zip(unit.members, ids, strict=True):
            steps, status, _ = self._known.get(name, (0, "", (0.0, 0.0)))
            reached = {goal: by_trial[name] for goal, by_trial in self._reached.items() if name in by_trial}
            over = max(reached.values()) if unit.ends and unit.reached and len(reached) == self._goals else math.inf
            diverged = status == "diverged" and steps <= min(unit.until, over)
            if steps < min(unit.until, over) and not diverged:
                return None
            end = int(min(steps, unit.until, over))
            within = {goal: step for goal, step in reached.items() if unit.start < step <= end}
            # A race that goes on must see what it saw then: nothing of what was measured later.
            best = {goal: value for goal in self._best if (value := self._best_until(goal, name, end)) is not None}
            found[index] = Outcome(end, diverged, within, best)
        return found

    def _best_until(self, goal: Goal, name: str, step: int) -> float | None:
        steps, best = self._best[goal].get(name, ((), ()))
        known = bisect.bisect_right(steps, step)
        return best[known - 1] if known else None

    def steps(self, name: str) -> int:
        """The last evaluation that is known of a trial; 0 for an unknown one."""
        return self._known[name][0] if name in self._known else 0

    def seconds(self, name: str) -> tuple[float, float]:
        """Training and evaluation seconds that are known of a trial."""
        return self._known[name][2] if name in self._known else (0.0, 0.0)
