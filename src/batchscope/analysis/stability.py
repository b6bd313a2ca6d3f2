"""How forgiving a batch size is: the band of learning rates that train reliably, and the share of good points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from batchscope.amounts import bounds, number, percent
from batchscope.analysis.budgets import Better
from batchscope.analysis.outcomes import (
    RATE,
    SPENT,
    Outcomes,
    Table,
    evaluation_grid,
    outcomes,
    require_every_evaluation,
    require_full_training,
    require_metric,
    require_rates,
)
from batchscope.analysis.words import Words
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal

LAST = 5


@dataclass(frozen=True, eq=False)
class StabilityMap:
    """Final quality over base learning rate x batch size (ML18 figures 1-12), and the reliable band (figure 16).

    The base rate is the learning rate over the batch size (ML18 eq 6); to keep it is the linear scaling rule.

    ``table``: batch_size, base_rate, learning_rate, value (the median of the last five evaluations; null where
    training diverged), reliable, trial.

    ``bands``: batch_size, low, high (base rates), octaves (log2 of high over low), best_rate, best_value, rates (how
    many were tried), open_low, open_high (the band reaches the last rate tried on that side: it is at least so wide).
    Null where no rate was reliable.
    """

    metric: str
    better: Better
    threshold: float
    table: pl.DataFrame
    bands: pl.DataFrame


_BANDS = {
    "batch_size": pl.Int64,
    "low": pl.Float64,
    "high": pl.Float64,
    "octaves": pl.Float64,
    "best_rate": pl.Float64,
    "best_value": pl.Float64,
    "rates": pl.Int64,
    "open_low": pl.Boolean,
    "open_high": pl.Boolean,
}


def stability_map(
    trials: Table,
    measurements: Table,
    metric: str,
    *,
    better: Better = "lower",
    threshold: float | None = None,
) -> StabilityMap:
    """The map of base rate x batch size of a run.

    A rate trains reliably where it did not diverge and its value is as good as ``threshold``: by default, halfway from
    the median value at the first evaluation to the best value of the map. The band of a batch size is the run of
    neighbouring reliable rates around its best one.

    Raises:
        AnalysisError: If the trials have no learning rate above 0, were not all trained to the end of their budget, or
            evaluations ended early.
    """
    evaluations = measurements.lazy()
    require_metric(evaluations, metric)
    known = trials.lazy().filter(pl.col("replicate") == 0).collect()
    require_rates(known, "a map of base rates")
    require_full_training(known, "a map of the final metric")
    require_every_evaluation(evaluations, metric, "a map of the final metric")
    sign = 1.0 if better == "lower" else -1.0
    grid = evaluation_grid(evaluations, metric)
    final = _values(evaluations, metric, grid.group_by("batch_size", maintain_order=True).tail(LAST))
    value = pl.when((pl.col("status") != "diverged") & pl.col("value").is_finite()).then("value").alias("value")
    base_rate = (pl.col(RATE) / pl.col("batch_size")).alias("base_rate")
    rows = known.join(final, on="trial", how="left").with_columns(value, base_rate)
    values = [number * sign for number in rows.get_column("value").drop_nulls()]
    if not values:
        raise AnalysisError(f"every trial diverged before it had a value of {metric}: there is nothing to map")
    if threshold is None:
        first = _values(evaluations, metric, grid.group_by("batch_size", maintain_order=True).head(1))
        untrained = first.filter(pl.col("value").is_finite()).select(pl.col("value").median()).item()
        threshold = (float(untrained) + sign * min(values)) / 2
    table = rows.sort("batch_size", "base_rate", "index").select(
        "batch_size",
        "base_rate",
        pl.col(RATE).alias("learning_rate"),
        "value",
        (pl.col("value") * sign <= threshold * sign).fill_null(False).alias("reliable"),
        "trial",
    )
    bands = [_band(group, sign) for group in table.partition_by("batch_size", maintain_order=True)]
    return StabilityMap(metric, better, threshold, table, pl.DataFrame(bands, schema=_BANDS))


def _values(evaluations: pl.LazyFrame, metric: str, grid: pl.DataFrame) -> pl.DataFrame:
    """The median of ``metric`` of each trial over the evaluations in ``grid``."""
    chosen = evaluations.join(grid.lazy(), on=["batch_size", "step"], how="semi")
    return chosen.group_by("trial").agg(pl.col(metric).median().alias("value")).collect(engine="streaming")


def _band(group: pl.DataFrame, sign: float) -> dict[str, object]:
    rates, reliable = group.get_column("base_rate").to_list(), group.get_column("reliable").to_list()
    row: dict[str, object] = dict.fromkeys(_BANDS)
    row |= {"batch_size": group.item(0, "batch_size"), "rates": len(set(rates))}
    peak = (group.get_column("value") * sign).arg_min()
    if peak is None or not reliable[peak]:
        return row
    low = high = peak
    while low and reliable[low - 1]:
        low -= 1
    while high + 1 < len(rates) and reliable[high + 1]:
        high += 1
    row |= {"best_rate": rates[peak], "best_value": group.item(peak, "value"), "low": rates[low], "high": rates[high]}
    row["octaves"] = math.log2(rates[high] / rates[low])
    return row | {"open_low": low == 0, "open_high": high == len(rates) - 1}


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The share of the search space that is nearly as fast as its best point.

    ``table``: batch_size, factor, share, low, high, unknown. Trials sample the space evenly in its scales, so a share
    of trials is a share of space; divergent ones count as slow. The interval is that of Jeffreys for a binomial share,
    and takes the best point found for the best there is: with few trials the share is too large. ``unknown`` trials
    were stopped before it could be seen whether they are within the factor; with any, the share is null.
    """

    goal: Goal
    table: pl.DataFrame
    level: float = 0.9


_SHARES = {
    "batch_size": pl.Int64,
    "factor": pl.Float64,
    "share": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "unknown": pl.Int64,
}


def sensitivity(
    trials: Table,
    measurements: Table,
    goal: Goal,
    factors: Sequence[float] = (1.1, 2.0),
    *,
    level: float = 0.9,
    found: Outcomes | None = None,
) -> Sensitivity:
    """The share of the space whose steps to the goal are within each factor of the fewest.

    ``found`` is what became of the trials, if it is known already.

    Raises:
        AnalysisError: If the run stopped its trials too early to say for any factor, or none reached the goal.
    """
    from scipy.special import betaincinv  # here, because few answers need it and loading it takes long

    found = found or outcomes(trials, measurements, goal)
    rows: list[tuple[int, float, float | None, float | None, float | None, int]] = []
    for batch_size, group in found.search():
        steps = group.get_column("goal_step")
        if not steps.count():
            continue
        for factor in factors:
            limit = float(steps.drop_nulls().to_numpy().min()) * factor
            near, count = int((steps <= limit).sum()), group.height
            # A trial that was watched up to the evaluation before the limit has missed it.
            early = pl.col("feasible") & pl.col("goal_step").is_null() & (pl.col("watched") < limit * (1 - SPENT))
            if unknown := group.filter(early).height:
                rows.append((batch_size, factor, None, None, None, unknown))
                continue
            low, high = betaincinv(near + 0.5, count - near + 0.5, [(1 - level) / 2, (1 + level) / 2])
            rows.append((batch_size, factor, near / count, min(low, near / count), max(high, near / count), 0))
    table = pl.DataFrame(rows, schema=_SHARES, orient="row")
    if table.is_empty():
        raise AnalysisError(f"no trial reached {goal}: choose an easier goal, or train for longer")
    if not table.get_column("share").count():
        raise AnalysisError(
            f"the share of the space within {', '.join(f'{factor:g}' for factor in factors)} times the best needs "
            "trials that were trained so far: ask for smaller factors, or run the study with `policy: full`"
        )
    return Sensitivity(goal, table, level)


def stability_words(result: StabilityMap) -> Words:
    """What the map says."""
    known = result.bands.drop_nulls("octaves").sort("octaves", "batch_size")
    found = "no base rate trains reliably"
    if known.height:
        first, *_, last = [*known.select("octaves", "batch_size").iter_rows()] * (1 + (known.height == 1))
        widths = (
            f"{number(octaves, 2)} octaves wide at batch size {number(size)}"
            for octaves, size in dict.fromkeys((first, last))
        )
        found = f"the reliable band is {', '.join(widths)}"
    return Words(
        "Stable base rates",
        "The median of the last five evaluations over base learning rate and batch size; to keep the base rate is the "
        f"linear scaling rule. Shaded: rates that train reliably, to {number(result.threshold)} or better.",
        found,
    )


def sensitivity_words(result: Sensitivity) -> Words:
    """What the table says."""
    parts = []
    for group in result.table.drop_nulls("share").sort("factor").partition_by("factor", maintain_order=True):
        low, high = (float(value) for value in group.select(pl.col("share").min(), high=pl.col("share").max()).row(0))
        span = percent(low) if low == high else bounds(low, high, percent)
        parts.append(f"{span} of it is within {group.item(0, 'factor'):g} times the fewest steps")
    return Words(
        "How forgiving the search space is",
        f"The share of the search space that reaches {result.goal} nearly as fast as the best point there.",
        "; ".join(parts),
    )
