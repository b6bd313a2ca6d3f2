"""Speedup and contours as Golmant 2018 samples them, and curves of several runs on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from batchscope.amounts import count, number
from batchscope.analysis.budgets import Better
from batchscope.analysis.curve import Curve
from batchscope.analysis.outcomes import Table, require_every_evaluation, require_full_training, require_metric
from batchscope.analysis.steps import steps_to_result
from batchscope.analysis.words import Words
from batchscope.errors import AnalysisError
from batchscope.interval import Interval
from batchscope.spec.goal import Goal

CAVEAT = (
    "The threshold is a value that the largest batch size reaches, so lower losses that only small batch sizes reach "
    "do not count: it favours large batches (G18 section 4.3)."
)


@dataclass(frozen=True, eq=False)
class Speedup:
    """G18's speedup s(B; B0) = k(B0) / k(B) (section 3), where k counts the steps to ``goal``.

    ``table``: batch_size, steps, speedup, low, high, ideal (B / B0). ``caveat`` belongs on every picture of it.
    """

    goal: Goal
    base_batch_size: int
    table: pl.DataFrame
    caveat: str = CAVEAT


def speedup(
    trials: Table,
    measurements: Table,
    metric: str = "train/loss",
    *,
    better: Better = "lower",
    quantile: float = 0.25,
) -> Speedup:
    """Speedup to the threshold of G18 (section 4.3): the best quartile of what the largest batch size reached.

    The quartile is taken over the steps of its best trial, each evaluation standing for the steps since the evaluation
    before.

    Raises:
        AnalysisError: If the trials were not all trained to the end of their budget, evaluations ended early, or the
            largest batch size has no measurement of the metric.
    """
    evaluations = measurements.lazy()
    require_metric(evaluations, metric)
    known = trials.lazy().filter(pl.col("replicate") == 0).collect()
    require_full_training(known, "the threshold of the speedup")
    require_every_evaluation(evaluations, metric, "the threshold of the speedup")
    falling = better == "lower"
    largest = known.filter(pl.col("status") != "diverged").filter(pl.col("batch_size") == pl.col("batch_size").max())
    seen = evaluations.join(largest.lazy().select("trial"), on="trial", how="semi").filter(pl.col(metric).is_finite())
    losses = (
        seen.select("trial", "step", metric)
        .collect(engine="streaming")
        .sort(metric, "step", "trial", descending=[not falling, False, False])
    )
    if losses.is_empty():
        raise AnalysisError(
            f"the speedup needs {metric} at the largest batch size, and no evaluation there has a number"
        )
    path = losses.filter(pl.col("trial") == losses.item(0, "trial")).sort("step")
    path = path.with_columns(pl.col("step").diff().fill_null(pl.col("step").first()).alias("steps"))
    path = path.sort(metric, descending=not falling)
    share = pl.col("steps").cum_sum() / pl.col("steps").sum()
    threshold = float(path.filter(share >= quantile).item(0, metric))
    if threshold == path.item(0, metric):
        # A goal is reached strictly beyond its threshold, and nothing is strictly beyond the best.
        threshold = math.nextafter(threshold, math.inf if falling else -math.inf)
    goal = Goal(metric, "<" if falling else ">", threshold)
    curve = steps_to_result(known, evaluations, goal)
    relative = compare({"": curve})
    table = relative.table.select(
        "batch_size",
        "steps",
        (1 / pl.col("relative")).alias("speedup"),
        (1 / pl.col("high")).alias("low"),
        (1 / pl.col("low")).alias("high"),
        (pl.col("batch_size") / relative.reference).alias("ideal"),
    )
    return Speedup(goal, relative.reference, table)


@dataclass(frozen=True, eq=False)
class Contour:
    """A metric over batch size x steps (G18 figures 1 and 5).

    ``table``: batch_size, step, value (of the best trial at that evaluation), best (the best value up to there).
    """

    metric: str
    better: Better
    table: pl.DataFrame


def contour(trials: Table, measurements: Table, metric: str = "train/loss", *, better: Better = "lower") -> Contour:
    """The table behind a contour plot of ``metric``, the best of all trials.

    Trials that were not all trained to the end of their budget, or evaluations that ended early, are an
    ``AnalysisError``.
    """
    evaluations = measurements.lazy()
    require_metric(evaluations, metric)
    known = trials.lazy().filter(pl.col("replicate") == 0).collect()
    require_full_training(known, "a contour plot")
    require_every_evaluation(evaluations, metric, "a contour plot")
    value = pl.col(metric)
    measured = evaluations.filter(value.is_finite()).join(known.lazy().select("trial"), on="trial", how="semi")
    best = value.min() if better == "lower" else value.max()
    table = measured.group_by("batch_size", "step").agg(best.alias("value")).collect(engine="streaming")
    envelope = pl.col("value").cum_min() if better == "lower" else pl.col("value").cum_max()
    return Contour(
        metric, better, table.sort("batch_size", "step").with_columns(envelope.over("batch_size").alias("best"))
    )


@dataclass(frozen=True, eq=False)
class NormalisedCurves:
    """Curves of several runs divided by their steps at one batch size (Sh19 figures 3 to 6).

    ``table``: run, batch_size, steps, relative (S(B) / S(reference)), low, high.
    """

    reference: int
    table: pl.DataFrame


_RELATIVE = {
    "run": pl.String,
    "batch_size": pl.Int64,
    "steps": pl.Float64,
    "relative": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


def compare(curves: Mapping[str, Curve], reference: int | None = None) -> NormalisedCurves:
    """Bring curves to one scale at the ``reference`` batch size (default: the smallest that all of them reached).

    Raises:
        AnalysisError: If a curve has no steps at the reference.
    """
    reached = [set(curve.table.drop_nulls(curve.quantity).get_column("batch_size")) for curve in curves.values()]
    common = sorted(set.intersection(*reached)) if reached else []
    if not common or (reference is not None and reference not in common):
        raise AnalysisError(
            f"curves are compared at a batch size at which all of them reached their goal, got {reference}; "
            f"they share {', '.join(map(str, common)) or 'none'}"
        )
    at = common[0] if reference is None else reference
    rows = []
    for run, curve in curves.items():
        quantity = curve.quantity
        here = curve.table.get_column("batch_size").to_list().index(at)
        unit = float(curve.table.item(here, quantity))
        for column, row in enumerate(curve.table.iter_rows(named=True)):
            if row[quantity] is None:
                continue
            relative = row[quantity] / unit
            ratio = curve.log_samples[:, column] - curve.log_samples[:, here]
            found = Interval.from_log_samples(relative, ratio, curve.level)
            rows.append((run, row["batch_size"], row[quantity], relative, found.low, found.high))
    return NormalisedCurves(at, pl.DataFrame(rows, schema=_RELATIVE, orient="row"))


def speedup_words(result: Speedup) -> Words:
    """What the table says."""
    best = result.table.drop_nulls("speedup").sort("speedup", "batch_size", descending=[True, False]).row(0, named=True)
    return Words(
        "Speedup",
        result.caveat,
        f"{number(best['speedup'], 3)} times fewer steps to {result.goal} at batch size {number(best['batch_size'])} "
        f"than at {number(result.base_batch_size)}",
    )


def contour_words(result: Contour) -> Words:
    """What the table says."""
    order = result.table.sort("best", "step", "batch_size", descending=[result.better == "higher", False, False])
    found = [
        f"the best value, {number(row['best'])}, is at batch size {number(row['batch_size'])} after "
        f"{count(row['step'])} steps"
        for row in order.head(1).iter_rows(named=True)
    ]
    return Words(
        f"{result.metric} by batch size and steps".capitalize(),
        "The best value of all trials up to each step.",
        found[0] if found else "no value was measured",
    )
