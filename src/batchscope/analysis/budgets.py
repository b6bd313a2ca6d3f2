"""The best metric within a budget of steps or of epochs (Sh19 section 4.8, figure 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from batchscope.amounts import count, number
from batchscope.analysis.outcomes import SPENT, Table, require_every_evaluation, require_metric
from batchscope.analysis.words import Words
from batchscope.errors import AnalysisError

Better = Literal["lower", "higher"]
Unit = Literal["steps", "epochs"]


@dataclass(frozen=True, eq=False)
class BudgetQuality:
    """The best value of a metric at every batch size and budget, over all trials and evaluations within the budget.

    ``table``: batch_size, budget, value, step, trial; null where some trial was stopped before the budget was spent,
    for what it would have reached is not known. Step budgets favour large batches, which see more examples; epoch
    budgets favour small ones, which take more steps.
    """

    metric: str
    better: Better
    unit: Unit
    table: pl.DataFrame


def best_under_budgets(
    trials: Table,
    measurements: Table,
    metric: str,
    budgets: Sequence[float] | None = None,
    *,
    better: Better = "lower",
    unit: Unit = "steps",
) -> BudgetQuality:
    """The best ``metric`` under every budget (default: the six largest powers of 2 that can be answered).

    Raises:
        AnalysisError: If no batch size has all its trials trained up to any of the budgets, or the measurements have
            no epochs to budget, or evaluations ended early.
    """
    evaluations = measurements.lazy()
    require_metric(evaluations, metric)
    if unit == "epochs" and "epoch" not in evaluations.collect_schema().names():
        raise AnalysisError("a budget of epochs needs a column epoch in the measurements: ask for a budget of steps")
    known = trials.lazy().filter(pl.col("replicate") == 0).collect()
    require_every_evaluation(evaluations, metric, "the best value within a budget")
    value = pl.col(metric)
    measured = evaluations.filter(value.is_finite()).join(known.lazy().select("trial"), on="trial", how="semi")
    spent = (pl.col("epoch") if unit == "epochs" else pl.col("step").cast(pl.Float64)).min().alias("spent")
    best = (value.min() if better == "lower" else value.max()).alias("value")
    grid = measured.group_by("batch_size", "step").agg(best, spent).collect(engine="streaming")
    # A diverged trial has nothing more to show; any other one might have got better after it was stopped.
    ends = known.filter(pl.col("status") != "diverged").group_by("batch_size").agg(pl.col("steps").min().alias("end"))
    grid = grid.join(ends, on="batch_size").filter(pl.col("step") <= pl.col("end"))
    horizon = grid.group_by("batch_size").agg(pl.col("spent").max().alias("horizon"))
    if budgets is None:
        budgets = _powers(horizon.get_column("horizon").drop_nulls().to_list())
    asked = pl.DataFrame({"budget": list(map(float, budgets))}, schema={"budget": pl.Float64})
    answerable = horizon.join(asked, how="cross").filter(pl.col("horizon") >= pl.col("budget") * (1 - SPENT))
    if answerable.is_empty():
        raise AnalysisError(
            f"the best {metric} within a budget needs every trial trained that far, and no batch size has that for "
            f"{list(budgets)} {unit}: ask for less, or run the study with `policy: full`"
        )
    within = answerable.join(grid, on="batch_size").filter(pl.col("spent") <= pl.col("budget"))
    within = within.sort(["value", "step"], descending=[better == "higher", False], maintain_order=True)
    found = within.group_by("batch_size", "budget", maintain_order=True).agg(pl.col("value", "step").first())
    looked = measured.select("trial", "batch_size", "step", value.alias("value"))
    there = looked.join(found.lazy(), on=["batch_size", "step"], how="semi").collect(engine="streaming")
    keys = ["batch_size", "step", "value"]
    who = there.join(found, on=keys, how="semi").group_by(keys).agg(pl.col("trial").min())
    table = (
        known.select("batch_size")
        .unique()
        .join(asked, how="cross")
        .join(found, on=["batch_size", "budget"], how="left")
        .join(who, on=keys, how="left")
        .sort("batch_size", "budget")
    )
    return BudgetQuality(metric, better, unit, table)


def _powers(horizons: list[float]) -> list[float]:
    top = max(horizons, default=1.0)
    powers = [2.0**power for power in range(-10, 60) if 2.0**power <= top]
    return powers[-6:]


def words(result: BudgetQuality) -> Words:
    """What the table says."""
    best = (
        result.table.drop_nulls("value").sort("budget", "value", descending=[True, result.better == "higher"]).head(1)
    )
    found = [
        f"{number(row['value'])} within {count(row['budget'])} {result.unit}, at batch size {number(row['batch_size'])}"
        for row in best.iter_rows(named=True)
    ]
    return Words(
        f"Best {result.metric} within a budget of {result.unit}",
        "The best value that any trial had within the budget. A budget of steps favours large batches, which see more "
        "examples; one of epochs favours small batches, which take more steps.",
        "; ".join(found) or "no value within any budget",
    )
