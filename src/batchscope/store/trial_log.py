"""From segments to the two tables of a run: what is valid in the log of trials, which evaluations that covers."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from batchscope.store.schema import HYPERPARAMETER, LOG, MEASUREMENTS, TRIALS, empty
from batchscope.store.segments import Pair


def log_of(pairs: Collection[Pair]) -> pl.DataFrame:
    """The log of trials, as committed by these pairs."""
    frames = [pair.rows for pair in pairs]
    log = pl.concat(frames, how="diagonal_relaxed") if frames else empty({**TRIALS, **LOG})
    hyperparameters = sorted(name for name in log.columns if name.startswith(HYPERPARAMETER))
    return log.select(*TRIALS, *hyperparameters, *LOG)


def evaluations_of(frames: list[pl.LazyFrame]) -> pl.LazyFrame:
    """One table of measurements; a metric that a segment lacks is null there."""
    if not frames:
        return empty(MEASUREMENTS).lazy()
    whole = pl.concat(frames, how="diagonal")
    names = whole.collect_schema().names()
    metrics = sorted(name for name in names if name not in MEASUREMENTS)
    return whole.select(*(name for name in MEASUREMENTS if name != "seconds"), *metrics, "seconds")


def valid_evaluations(evaluations: pl.LazyFrame, trials: pl.DataFrame) -> pl.LazyFrame:
    """The evaluations that the valid rows of the log cover, each once."""
    reach = trials.lazy().select("trial", pl.col("steps").alias("_reach"))
    within = evaluations.join(reach, on="trial").filter(pl.col("step") <= pl.col("_reach")).drop("_reach")
    return within.unique(["trial", "step"], keep="first", maintain_order=True)


def merge_log(log: pl.DataFrame) -> pl.DataFrame:
    """One row for every unbroken stretch of a trial: its last row, going on from where its first did."""
    ordered = log.sort("trial", "steps", "commit")
    stretch = (pl.col("since") != pl.col("steps").shift()).fill_null(False).cum_sum().over("trial")
    return (
        ordered.group_by("trial", stretch.alias("_stretch"), maintain_order=True)
        .agg(pl.col("since").first(), pl.exclude("trial", "since").last())
        .select(log.columns)
    )


def trials_of(log: pl.DataFrame) -> tuple[pl.DataFrame, bool]:
    """The table of trials, in the order of the search; and whether the log is clean (see ``resolve_log``)."""
    latest, clean = resolve_log(log)
    return latest.drop(LOG).sort("batch_size", "replicate", "revision", "index", "trial"), clean


def resolve_log(log: pl.DataFrame) -> tuple[pl.DataFrame, bool]:
    """The last valid row of every trial; and whether all rows are valid and no two cover the same steps."""
    ordered = log.sort("trial", "steps", "commit")
    before = pl.col("steps").shift().over("trial").fill_null(-1)
    broken = ordered.filter(pl.col("since") != before)["trial"].unique()
    latest = ordered.group_by("trial", maintain_order=True).last()
    if broken.is_empty():
        return latest.select(log.columns), True
    suspects = ordered.filter(pl.col("trial").is_in(broken.implode()))
    reach = dict.fromkeys(broken, -1)
    last: dict[str, int] = {}
    for row, (trial, since, steps) in enumerate(suspects.select("trial", "since", "steps").iter_rows()):
        if since <= reach[trial]:
            reach[trial], last[trial] = steps, row
    sound = latest.filter(~pl.col("trial").is_in(broken.implode()))
    return pl.concat([sound.select(log.columns), suspects[sorted(last.values())].select(log.columns)]), False
