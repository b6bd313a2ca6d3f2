"""From the tables of a run to one row per trial: did it reach the goal, when, and if not, how long was it watched."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batchscope.errors import AnalysisError
from batchscope.spec.goal import EXAMPLES, Goal, is_metric

Array = NDArray[np.float64]
Table = pl.DataFrame | pl.LazyFrame
# A budget that ends between the last evaluation and the next one counts as spent.
SPENT = 0.05
PREFIX = "hyperparameter/"
OPTIMIZER = PREFIX + "optimizer"
RATE = PREFIX + "learning_rate"
HELD_ROWS = 10_000_000  # half a gigabyte


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of every trial with respect to one goal.

    ``table`` has the columns of the trials, in the order of the search, and

    * ``goal_step``: the first evaluation strictly beyond the goal, null if there was none;
    * ``before``: the evaluation before it, 0 if there was none;
    * ``watched``: the last step at which the trial is known not to have reached the goal;
    * ``feasible``: it did not diverge before the goal. A trial that reached the goal has reached it, also if it
      diverged later.

    ``evaluations`` are the steps at which the trials were evaluated, ascending, by batch size.
    """

    goal: Goal
    table: pl.DataFrame
    evaluations: dict[int, Array]

    def search(self, trials_per_batch_size: int | None = None) -> Iterator[tuple[int, pl.DataFrame]]:
        """Batch size and the trials of its search, without confirmations, up to the n-th feasible one.

        Raises:
            AnalysisError: If that number is below 1.
        """
        if trials_per_batch_size is not None and trials_per_batch_size < 1:
            raise AnalysisError(f"a number of trials is at least 1, got {trials_per_batch_size}")
        found = self.table.filter(pl.col("replicate") == 0)
        if trials_per_batch_size is not None:
            feasible = pl.col("feasible").cast(pl.Int64)
            found = found.filter(feasible.cum_sum().over("batch_size") - feasible < trials_per_batch_size)
        for group in found.partition_by("batch_size", maintain_order=True):
            yield int(group.item(0, "batch_size")), group

    def fewest_feasible(self) -> int:
        """The number of feasible trials of the search at the batch size that has the fewest."""
        return min(int(group.get_column("feasible").sum()) for _, group in self.search())


def outcomes(trials: Table, measurements: Table, goal: Goal) -> Outcomes:
    """Find the first evaluation beyond the goal of every trial (Sh19 section 4: strictly beyond).

    ``measurements`` may be lazy: it is streamed, and only the evaluations beyond the goal are kept.

    Raises:
        AnalysisError: If there are no trials, one is in the table twice, the metric was not measured, evaluations ended
            early without an answer to this goal, or an untrained model is beyond it.
    """
    known = trials.lazy().collect()
    if known.is_empty():
        raise AnalysisError("the run has no trials yet: there is nothing to analyse")
    if known.get_column("trial").is_duplicated().any():
        raise AnalysisError("a trial stands in the table of trials twice: keep the last row of each and ask again")
    evaluations = measurements.lazy()
    require_metric(evaluations, goal.metric)
    reached = first_evaluations_beyond(evaluations, goal)
    if blind := undecided(evaluations, goal, reached):
        raise AnalysisError(
            f"{goal} cannot be answered from this run: evaluations of {blind} trials ended early, once it was "
            "clear that they were out of reach of the study's goals, and none of these is as easy. Add the goal to the "
            "study's and run it in a new folder, or run with evaluation.sequential=false"
        )
    if (reached.get_column("goal_step") < 1).any():
        raise AnalysisError(f"steps to a goal are counted from 1, and {goal} holds before any: choose a harder goal")
    grid = evaluation_grid(evaluations, goal.metric)
    previous = grid.with_columns(pl.col("step").shift(1).over("batch_size").fill_null(0).alias("before"))
    table = (
        known.join(reached, on="trial", how="left")
        .join(previous, left_on=["batch_size", "goal_step"], right_on=["batch_size", "step"], how="left")
        .with_columns(
            pl.coalesce("before", "steps").alias("watched"),
            (pl.col("goal_step").is_not_null() | (pl.col("status") != "diverged")).alias("feasible"),
        )
        .sort("batch_size", "replicate", "revision", "index", "trial")
    )
    sizes = grid.partition_by("batch_size", as_dict=True, include_key=False)
    return Outcomes(goal, table, {int(key[0]): steps.to_series().to_numpy() * 1.0 for key, steps in sizes.items()})


def needed(trials: Table, measurements: Table, metrics: Collection[str]) -> tuple[pl.DataFrame, Table]:
    """The tables, with only the measurements that questions about these trials and metrics need.

    They are read once and held in memory if there are few enough, else left lazy. Tables that cannot answer are
    returned as they are, so that the question itself says why.
    """
    known, evaluations = trials.lazy().collect(), measurements.lazy()
    names = evaluations.collect_schema().names()
    if known.is_empty() or not set(metrics) <= set(names):
        return known, evaluations
    kept = {"trial", "batch_size", "step", "epoch", *metrics}
    columns = [name for name in names if name in kept or ("/" in name and not is_metric(name))]
    evaluations = evaluations.select(columns).filter(pl.col("trial").is_in(known.get_column("trial").implode()))
    rows = measurements.lazy().select(pl.len())  # which the headers of the files tell; those of few trials are counted
    few = any(count.collect(engine="streaming").item() <= HELD_ROWS for count in (rows, evaluations.select(pl.len())))
    return known, evaluations.collect(engine="streaming") if few else evaluations


def crossings(feasible: pl.DataFrame) -> tuple[Array, Array, Array]:
    """Feasible trials as the first arguments of ``tail.fit``."""
    reached = feasible.drop_nulls("goal_step")
    missed = feasible.filter(pl.col("goal_step").is_null())
    before, first = (reached.get_column(name).to_numpy() * 1.0 for name in ("before", "goal_step"))
    return before, first, np.maximum(missed.get_column("watched").to_numpy() * 1.0, 1.0)


def first_evaluations_beyond(measurements: Table, goal: Goal) -> pl.DataFrame:
    """For every trial that has reached the goal the first evaluation beyond it: ``trial``, ``goal_step``."""
    value = pl.col(goal.metric)
    beyond = value.is_not_nan() & (value < goal.threshold if goal.side == "<" else value > goal.threshold)
    first = measurements.lazy().filter(beyond).group_by("trial").agg(pl.col("step").min().alias("goal_step"))
    return first.collect(engine="streaming")


def undecided(measurements: Table, goal: Goal, reached: pl.DataFrame | None = None) -> int:
    """Trials of which it is not known when they reached a goal: an evaluation before ended early, with another goal in
    mind.

    Where evaluations may end early, ``validation/error/at_least`` says of one that did what the error is at least, for
    all that can be told: that decides every goal that is as hard.

    Args:
        measurements: The table of measurements.
        goal: On a metric that the table has.
        reached: What ``first_evaluations_beyond`` gives, if it is there already.
    """
    evaluations = measurements.lazy()
    columns = evaluations.collect_schema().names()
    if EXAMPLES not in columns:
        return 0
    bound = pl.col(goal.bound) if goal.bound in columns else pl.lit(None, pl.Float64)
    decided = bound >= goal.threshold if goal.side == "<" else bound <= goal.threshold
    blind = evaluations.filter(_ended_early(goal.metric) & ~decided.fill_null(False))
    first = blind.group_by("trial").agg(pl.col("step").min()).collect(engine="streaming")
    known = first.join(
        first_evaluations_beyond(evaluations, goal) if reached is None else reached, on="trial", how="left"
    )
    return known.filter(pl.col("goal_step").is_null() | (pl.col("step") < pl.col("goal_step"))).height


def ended_early(measurements: Table, metric: str) -> bool:
    """Whether any evaluation ended before it had a value of a metric."""
    evaluations = measurements.lazy()
    if EXAMPLES not in evaluations.collect_schema().names():
        return False
    return bool(evaluations.select(_ended_early(metric).any()).collect(engine="streaming").item())


def _ended_early(metric: str) -> pl.Expr:
    return pl.col(metric).is_null() & pl.col(EXAMPLES).is_not_null()


def evaluation_grid(measurements: Table, metric: str) -> pl.DataFrame:
    """The steps at which trials were looked at for ``metric``: ``batch_size``, ``step``, ascending."""
    evaluations = measurements.lazy()
    looked = pl.col(metric).is_not_null()
    if EXAMPLES in evaluations.collect_schema().names():
        looked |= pl.col(EXAMPLES).is_not_null()
    evaluations = evaluations.filter(looked).select("batch_size", "step").unique()
    return evaluations.collect(engine="streaming").sort("batch_size", "step")


def hyperparameters(columns: Iterable[str]) -> list[str]:
    """The names of the hyperparameters among the columns of a table of trials."""
    return [column.removeprefix(PREFIX) for column in columns if column.startswith(PREFIX)]


def require_every_evaluation(measurements: pl.LazyFrame, metric: str, question: str) -> None:
    """Refuse a run whose evaluations ended early without a value of ``metric``.

    Raises:
        AnalysisError: If one did.
    """
    if ended_early(measurements, metric):
        raise AnalysisError(
            f"{question} needs {metric} at every evaluation, and some evaluations ended early, once it was clear that "
            "a trial was out of reach of its goals: run the study in a new folder with evaluation.sequential=false, or "
            "with `policy: full`"
        )


def require_metric(measurements: pl.LazyFrame, metric: str) -> None:
    """Refuse a metric that the run did not measure, naming those that it did.

    Raises:
        AnalysisError: If it is no column of the measurements.
    """
    names = measurements.collect_schema().names()
    if metric not in names or not is_metric(metric):
        metrics = [name for name in names if is_metric(name)]
        near = difflib.get_close_matches(metric, metrics, n=1)
        meant, measured = f"; did you mean {near[0]}?" if near else ".", ", ".join(metrics) or "nothing"
        if metric.startswith("train/"):
            meant = "; evaluation: {train_examples: 1000} in a study measures those of training examples."
        raise AnalysisError(
            f"a goal needs a metric that the run measured, got {metric!r}{meant} It measured {measured}"
        )


def require_rates(trials: Table, question: str) -> None:
    """Refuse trials whose learning rates cannot be compared.

    Raises:
        AnalysisError: If there is no such column, or a value in it is no number above 0, as an import may have them:
            text such as "auto", 0, NaN; or if the trials have several optimizers, each with a scale of its own.
    """
    rows = trials.lazy()
    schema = rows.collect_schema()
    if OPTIMIZER in schema and len(used := rows.select(pl.col(OPTIMIZER).unique().sort()).collect().to_series()) > 1:
        raise AnalysisError(
            f"{question} needs trials of one optimizer, for rates of several have no common scale, got "
            f"{' and '.join(map(str, used))}; run a study of each and compare them with  batchscope report RUN RUN"
        )
    kind = schema.get(RATE)
    if kind is None:
        raise AnalysisError(f"{question} needs a hyperparameter named learning_rate, and the trials have none")
    rate = pl.col(RATE)
    unfit = ~(rate.is_finite() & (rate > 0)).fill_null(False) if kind.is_numeric() else pl.lit(True)
    found = rows.filter(unfit).select(rate.cast(pl.String).fill_null("none").unique().sort()).collect().to_series()
    if len(found):
        given = ", ".join(found.head(3)) + (", ..." if len(found) > 3 else "")
        raise AnalysisError(f"{question} needs learning rates that are numbers above 0, got {given}")


def require_full_training(trials: pl.DataFrame, question: str) -> None:
    """Refuse a run that stopped trials before the end of their budget: their later measurements do not exist.

    Raises:
        AnalysisError: If a trial that did not diverge was trained for less than another at its batch size.
    """
    kept = trials.filter((pl.col("replicate") == 0) & (pl.col("status") != "diverged"))
    uneven, unfinished = pl.col("steps").n_unique() > 1, (pl.col("status") != "complete").any()
    early = kept.group_by("batch_size").agg((uneven | unfinished).alias("early")).filter("early")
    if early.height:
        raise AnalysisError(
            f"{question} needs every trial trained to the end of its budget, and at batch size "
            f"{', '.join(map(str, early.get_column('batch_size').sort()))} some were stopped early: "
            "run the study with `policy: full`"
        )
