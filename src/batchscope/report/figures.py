"""The data of every figure, as tables: nothing is drawn here, and a drawing adds nothing.

Hyperparameters keep the prefix of the store, ``hyperparameter/learning_rate``, so that no name of theirs can
collide with a column of ours.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from batchscope.analysis import Curve, Interval
from batchscope.analysis.outcomes import PREFIX, Outcomes, hyperparameters, outcomes

NEAR = 1.1  # trials within this factor of the fastest show how exactly its hyperparameters are known
LEARNING_RATE, MOMENTUM = PREFIX + "learning_rate", PREFIX + "momentum"
EFFECTIVE = PREFIX + "effective_learning_rate"
STATUSES = ("complete", "stopped", "pruned", "diverged", "running")
_COLUMNS = {
    "steps": pl.Int64,
    "low": pl.Float64,
    "high": pl.Float64,
    "tuned": pl.Float64,
    "tuned_low": pl.Float64,
    "tuned_high": pl.Float64,
    "tuned_seeds": pl.Int64,
    "runners_up": pl.Float64,
    "validated": pl.Boolean,
    "reason": pl.String,
    "verdict": pl.String,
}


def steps_to_result(curve: Curve) -> pl.DataFrame:
    """The curve with what it is held against, one row per batch size (Sh19 figure 1).

    Adds, as Float64: ``shown``, ``shown_low``, ``shown_high``, the tuned steps where the curve is confirmed, else the
    fewest of the search, with their interval; ``examples``, shown times batch size; ``perfect_scaling``, the steps if
    this batch size needed no more examples than the one that needed fewest; ``speedup``, how many times fewer steps
    than the smallest batch size that reached the goal.
    Columns that the analysis did not give are null.
    """
    table = curve.table.sort("batch_size")
    columns = [
        (pl.col(name) if name in table.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in _COLUMNS.items()
    ]
    shown, batch_size = pl.col(curve.quantity).cast(pl.Float64), pl.col("batch_size")
    low, high = ("tuned_low", "tuned_high") if curve.confirmed else ("low", "high")
    return (
        table.with_columns(columns)
        .with_columns(pl.col(low).alias("shown_low"), pl.col(high).alias("shown_high"))
        .with_columns(shown.alias("shown"), (shown * batch_size).alias("examples"))
        .with_columns(
            (pl.col("examples").min() / batch_size).alias("perfect_scaling"),
            (pl.col("shown").drop_nulls().first() / pl.col("shown")).alias("speedup"),
        )
    )


def reached(curve: Curve) -> list[int]:
    """The batch sizes that reached the goal, ascending."""
    return curve.table.drop_nulls(curve.quantity).get_column("batch_size").sort().to_list()


def law(curve: Curve, nodes: int = 65) -> pl.DataFrame:
    """The fitted law over the batch sizes that it was fitted to: ``batch_size`` and ``steps``; empty without one."""
    if curve.regimes.law is None:
        return pl.DataFrame(schema={"batch_size": pl.Float64, "steps": pl.Float64})
    fitted = curve.regimes.law.law
    grid = np.geomspace(fitted.measured[0], fitted.measured[1], nodes)
    return pl.DataFrame({"batch_size": grid, "steps": [fitted.steps(float(size)) for size in grid]})


def boundaries(curve: Curve) -> pl.DataFrame:
    """The ends of the regimes, in their order: ``boundary``, ``value``, ``low``, ``high`` (batch sizes), ``place``.

    ``place`` is ``measured``; ``beyond`` or ``below`` the measured batch sizes; ``unknown`` without regimes. The
    side is that on which the interval is open; where it is open on both, the fitted law tells that of the critical
    batch size, and their order that of the others. A value whose interval is open on both sides is ``unknown``.
    """
    names = ("perfect_scaling_until", "critical_batch_size", "maximum_useful_batch_size")
    ends: list[Interval] = [getattr(curve.regimes, name) for name in names]
    places = ["unknown"] * 3
    if curve.regimes.law is not None:
        fitted = curve.regimes.law.law
        until, critical, useful = map(_place, ends)
        critical = critical or ("beyond" if fitted.critical_batch_size > fitted.measured[0] else "below")
        places = [
            until or ("beyond" if critical == "beyond" and useful in {None, "beyond"} else "below"),
            critical,
            useful or ("below" if critical == "below" and until in {None, "below"} else "beyond"),
        ]
    vague = curve.regimes.undetermined
    places = ["unknown" if name in vague else place for name, place in zip(names, places, strict=True)]
    rows = [(name, end.value, end.low, end.high, place) for name, end, place in zip(names, ends, places, strict=True)]
    numbers = dict.fromkeys(("value", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema={"boundary": pl.String} | numbers | {"place": pl.String}, orient="row")


def _place(end: Interval) -> str | None:
    if end.value is not None:
        return "measured"
    return "beyond" if end.low is not None else "below" if end.high is not None else None


def regimes(curve: Curve) -> pl.DataFrame:
    """The regimes that the curve passes through: ``regime``, ``start`` and ``end`` (batch sizes).

    A boundary outside the measured batch sizes ends with them. Where noise puts the end of diminishing returns
    before its start, there is none between perfect scaling and the end of use.
    """
    schema = {"regime": pl.String, "start": pl.Float64, "end": pl.Float64}
    ends = {row["boundary"]: row for row in boundaries(curve).iter_rows(named=True)}
    until, useful = ends["perfect_scaling_until"], ends["maximum_useful_batch_size"]
    if "unknown" in (until["place"], useful["place"]):
        return pl.DataFrame(schema=schema)
    sizes = reached(curve)
    first, last = float(sizes[0]), float(sizes[-1])
    places = {"below": first, "beyond": last}
    start = places.get(until["place"], until["value"])
    end = max(start, places.get(useful["place"], useful["value"]))
    rows = [
        ("perfect scaling", first, start),
        ("diminishing returns", start, end),
        ("beyond the maximum useful", end, last),
    ]
    return pl.DataFrame([row for row in rows if row[1] < row[2]], schema=schema, orient="row")


def search_space(
    curve: Curve,
    trials: pl.DataFrame,
    measurements: pl.DataFrame | pl.LazyFrame,
    known: Outcomes | None = None,
) -> pl.DataFrame:
    """The trials of the search and what became of each (Sh19 figures 9, 10, 13, 14); no confirmation runs.

    ``known`` is what became of the trials, if that is known already.

    Returns:
        ``trial``, ``batch_size``, ``status``, ``revision``, ``steps``; the hyperparameters with their prefix,
        and the effective learning rate eta/(1 - gamma) where there is a learning rate and a momentum (Sh19
        section 2.2); ``outcome`` (``reached``, ``feasible``, ``infeasible``); ``goal_step``, the first evaluation
        beyond the goal; ``ratio``, goal_step over the fewest of its batch size; ``best``, the setting of the
        curve; ``best_metric``,
        the best value of the goal's metric at any evaluation.
    """
    metric = pl.col(curve.goal.metric)
    evaluations = measurements.lazy().filter(metric.is_finite()).group_by("trial")
    seen = evaluations.agg((metric.min() if curve.goal.side == "<" else metric.max()).alias("best_metric"))
    points = [PREFIX + name for name in hyperparameters(trials.columns)]
    effective = [(pl.col(LEARNING_RATE) / (1 - pl.col(MOMENTUM))).alias(EFFECTIVE)]
    numbers = {name for name in points if trials.schema[name].is_numeric()}
    return (
        (known or outcomes(trials, measurements, curve.goal))
        .table.filter(pl.col("replicate") == 0)
        .join(seen.collect(engine="streaming"), on="trial", how="left")
        .sort("batch_size", "revision", "index", "trial")
        .with_columns(effective if numbers >= {LEARNING_RATE, MOMENTUM} and EFFECTIVE not in points else [])
        .with_columns(
            pl.when(pl.col("goal_step").is_not_null())
            .then(pl.lit("reached"))
            .when("feasible")
            .then(pl.lit("feasible"))
            .otherwise(pl.lit("infeasible"))
            .alias("outcome"),
            (pl.col("goal_step") / pl.col("goal_step").min().over("batch_size")).alias("ratio"),
            pl.col("trial").is_in(curve.table.get_column("trial").drop_nulls().to_list()).alias("best"),
        )
        .select(
            *("trial", "batch_size", "status", "revision", "steps"),
            pl.col(f"^{PREFIX}.*$"),
            *("outcome", "goal_step", "ratio", "best", "best_metric"),
        )
    )


def learning_curves(space: pl.DataFrame, measurements: pl.DataFrame | pl.LazyFrame, metric: str) -> pl.DataFrame:
    """How the search trial of every batch size's setting learnt: ``batch_size``, ``step`` and ``value`` of the metric.

    Args:
        space: As ``search_space`` gives it.
        measurements: Of the run; a lazy table is never read whole.
        metric: Which; evaluations that ended before they knew it, and values that are not finite, are left out.
    """
    best = space.filter("best").select("trial", pl.col("batch_size").cast(pl.Int64))
    own = pl.col("trial").is_in(best["trial"].to_list()) & pl.col(metric).is_finite() & (pl.col("step") > 0)
    seen = measurements.lazy().filter(own).select("trial", "step", pl.col(metric).cast(pl.Float64).alias("value"))
    found = seen.collect(engine="streaming").join(best, on="trial")
    return found.select("batch_size", pl.col("step").cast(pl.Int64), "value").sort("batch_size", "step")


def ordered(space: pl.DataFrame, *, numbers_only: bool = False) -> list[str]:
    """The hyperparameter columns of a table, learning rate, momentum and effective rate first."""
    names = [PREFIX + name for name in hyperparameters(space.columns)]
    names = [name for name in names if not numbers_only or space.schema[name].is_numeric()]
    first = [name for name in (LEARNING_RATE, MOMENTUM, EFFECTIVE) if name in names]
    return first + [name for name in names if name not in first]


def best_points(space: pl.DataFrame) -> pl.DataFrame:
    """The best point of every batch size, one row per hyperparameter (Sh19 figures 8, 21, 22).

    Args:
        space: As ``search_space`` gives it.

    Returns:
        For hyperparameters that are numbers: ``hyperparameter``, ``batch_size``, ``value``; ``near_low`` and
        ``near_high``, the range of the value over the trials that needed at most ``NEAR`` times the fewest
        steps; ``linear`` and ``square_root``, the value at the smallest batch size scaled in proportion to
        the batch size and to its root, null for what no such rule speaks of. A momentum is scaled as the
        length of its memory, 1/(1 - gamma): with it the noise scale g stays as it is in linear scaling (S18
        equation 5).
    """
    numbers = ("value", "near_low", "near_high", "linear", "square_root")
    tables = [
        pl.DataFrame(schema={"hyperparameter": pl.String, "batch_size": pl.Int64} | dict.fromkeys(numbers, pl.Float64))
    ]
    for name in ordered(space, numbers_only=True):
        near = space.filter((pl.col("ratio") <= NEAR) | pl.col("best")).group_by("batch_size")
        best = (
            space.filter("best")
            .select("batch_size", pl.col(name).cast(pl.Float64).alias("value"))
            .drop_nulls()
            .join(
                near.agg(pl.col(name).min().alias("near_low"), pl.col(name).max().alias("near_high")),
                on="batch_size",
            )
            .sort("batch_size")
        )
        growth = pl.col("batch_size") / pl.col("batch_size").first()
        origin = pl.col("value").first()
        rules = [
            (1 - (1 - origin) / factor if name == MOMENTUM else origin * factor)
            if name in {LEARNING_RATE, MOMENTUM, EFFECTIVE}
            else pl.lit(None)
            for factor in (growth, growth.sqrt())
        ]
        tables.append(
            best.select(
                pl.lit(name).alias("hyperparameter"),
                pl.col("batch_size").cast(pl.Int64),
                pl.col("value", "near_low", "near_high").cast(pl.Float64),
                rules[0].cast(pl.Float64).alias("linear"),
                rules[1].cast(pl.Float64).alias("square_root"),
            )
        )
    return pl.concat(tables)


def contours(space: pl.DataFrame, nodes: int = 9) -> pl.DataFrame:
    """Lines of equal effective learning rate, one for each power of ten that the trials span (Sh19 figure 9).

    ``level``, ``learning_rate`` and ``momentum`` (Float64): ``nodes`` points a line, evenly in log(1 - momentum),
    from side to side of the range that the trials cover.
    """
    schema = dict.fromkeys(("level", "learning_rate", "momentum"), pl.Float64)
    lines = [pl.DataFrame(schema=schema)]
    if EFFECTIVE not in space.columns or MOMENTUM not in space.columns:
        return lines[0]
    inside = space.filter((pl.col(LEARNING_RATE) > 0) & pl.col(MOMENTUM).is_between(0, 1, closed="left"))
    if inside.height < 2:
        return lines[0]
    rate, memory = inside[LEARNING_RATE].to_numpy(), 1 / (1 - inside[MOMENTUM].to_numpy())
    least, most = rate.min() * memory.min(), rate.max() * memory.max()
    for exponent in range(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1):
        level = 10.0**exponent
        first, last = max(memory.min(), level / rate.max()), min(memory.max(), level / rate.min())
        if last > first * (1 + 1e-9):
            length = np.geomspace(first, last, nodes)
            lines.append(
                pl.DataFrame({"level": [level] * nodes, "learning_rate": level / length, "momentum": 1 - 1 / length})
            )
    return pl.concat(lines)


def costs(trials: pl.DataFrame) -> pl.DataFrame:
    """What every batch size took: trials by status and the work that they did, confirmation runs included.

    ``batch_size``, ``trials``, one column per status, ``confirmations``, ``steps``, ``examples``,
    ``train_seconds``, ``evaluation_seconds``, and ``evaluation_share`` of these two together.
    """
    return (
        trials.group_by("batch_size")
        .agg(
            pl.len().cast(pl.Int64).alias("trials"),
            *((pl.col("status") == name).sum().cast(pl.Int64).alias(name) for name in STATUSES),
            (pl.col("replicate") > 0).sum().cast(pl.Int64).alias("confirmations"),
            pl.col("steps", "examples", "train_seconds", "evaluation_seconds").sum(),
        )
        .sort("batch_size")
        .with_columns(_evaluation_share())
    )


def total(costs: pl.DataFrame) -> pl.DataFrame:
    """One row: the costs of all batch sizes together, without ``batch_size``."""
    return costs.drop("batch_size", "evaluation_share").sum().with_columns(_evaluation_share())


def _evaluation_share() -> pl.Expr:
    evaluation, training = pl.col("evaluation_seconds"), pl.col("train_seconds")
    both = evaluation + training
    return pl.when(both > 0).then(evaluation / both).alias("evaluation_share")
