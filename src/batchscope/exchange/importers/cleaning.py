"""From the rows of a source to the two tables of a run: what is unfit is counted, never guessed silently."""

from __future__ import annotations

import polars as pl

from batchscope.exchange.importers.result import ColumnError, Problems
from batchscope.store.schema import HYPERPARAMETER

LARGEST_STEP = 2**53


def clean(evaluations: pl.DataFrame, metrics: list[str], problems: Problems) -> pl.DataFrame:
    """Evaluations fit for a run: sorted, each (trial, step) once, every value a number or missing.

    Args:
        evaluations: ``trial``, ``batch_size``, ``step`` without nulls, metrics and further columns, in the source's
            order.
        metrics: The names of the metric columns.
        problems: Where to count what was done.
    """
    place = ("trial", "step")
    for name in metrics:
        wild = evaluations.filter(pl.col(name).is_not_null() & ~pl.col(name).is_finite())
        problems.add_rows(f"values of {name} that are not finite, kept as not-a-number", wild)
    evaluations = evaluations.with_columns(
        pl.when(pl.col(name).is_finite()).then(name).otherwise(pl.when(pl.col(name).is_not_null()).then(float("nan")))
        for name in metrics
    )
    unsorted = evaluations.filter(pl.col("step") < pl.col("step").shift().over("trial"))
    problems.add_rows("rows out of the order of steps, sorted", unsorted)
    once = evaluations.unique(maintain_order=True)
    problems.add("rows that repeat another exactly, left out", len(evaluations) - len(once))
    again = once.filter(pl.struct(place).is_duplicated()) if len(once) else once
    extra = len(again) - len(again.unique(list(place)))
    if extra:
        where = f"trial {again['trial'][0]}, step {again['step'][0]}"
        problems.add("rows that repeat a trial's step with other values, the last of each kept", extra, where)
        once = once.unique(list(place), keep="last", maintain_order=True)
    empty = pl.all_horizontal(pl.col(name).is_null() for name in metrics) if metrics else pl.lit(False)
    problems.add_rows("rows without any value, left out", once.filter(empty))
    once = once.filter(~empty)
    for name in metrics:
        problems.add_rows(f"missing values of {name}", once.filter(pl.col(name).is_null()))
    return once.sort("trial", "step")


STATUSES = {
    "running": "running",
    "complete": "complete",
    "completed": "complete",
    "finished": "complete",
    "done": "complete",
    "diverged": "diverged",
    "infeasible": "diverged",
    "stopped": "stopped",
    "right-censored": "stopped",
    "incomplete": "stopped",
    "failed": "stopped",
    "fail": "stopped",
    "crashed": "stopped",
    "killed": "stopped",
    "pruned": "pruned",
}


def status_of(word: str, where: str) -> str:
    """A trial's status in our words.

    Raises:
        ColumnError: If the word is not known.
    """
    status = STATUSES.get(word.strip().lower())
    if status is None:
        raise ColumnError(f"{where} has the status {word!r:.80}: known ones are {', '.join(STATUSES)}")
    return status


def whole_numbers(rows: pl.DataFrame, column: str, label: str, least: int, problems: Problems) -> pl.DataFrame:
    """The rows in which ``column`` (text) is a whole number of at least ``least``, and it as Int64."""
    number = pl.col(column).str.strip_chars().cast(pl.Float64, strict=False)
    missing = pl.col(column).is_null() | (pl.col(column).str.strip_chars() == "")
    fit = number.is_between(least, LARGEST_STEP) & (number == number.floor())
    problems.add(f"rows without a {label}, left out", rows.filter(missing).height)
    unfit = rows.filter(~missing & ~fit.fill_null(False))
    problems.add_rows(f"rows whose {label} is no whole number of at least {least}, left out", unfit, column)
    return rows.filter(fit.fill_null(False)).with_columns(number.cast(pl.Int64).alias(column))


def numbers(rows: pl.DataFrame, column: str, label: str, problems: Problems) -> pl.DataFrame:
    """``rows`` with ``column`` (text) as Float64; text that is no number is counted and becomes null."""
    text = pl.col(column).str.strip_chars()
    number = text.cast(pl.Float64, strict=False)
    unread = rows.filter(text.is_not_null() & (text != "") & number.is_null())
    problems.add_rows(f"values of {label} that are no numbers, left out", unread, column)
    return rows.with_columns(number.alias(column))


def numbers_or_words(values: pl.Series) -> pl.Series:
    """A hyperparameter's column: numbers if all of its values are, else words."""
    if values.dtype != pl.String:
        return values.cast(pl.Float64)
    plain = values.str.strip_chars().replace("", None)
    found = plain.cast(pl.Float64, strict=False)
    return found if found.null_count() == plain.null_count() else plain


def trial_rows(trials: pl.DataFrame, evaluations: pl.DataFrame, metrics: list[str], problems: Problems) -> pl.DataFrame:
    """The trials table of an import.

    Args:
        trials: ``trial``, ``batch_size``, ``index``, and where known ``status``, ``steps``, ``hyperparameter/...``.
        evaluations: Their clean evaluations.
        metrics: The metric columns of ``evaluations``.
        problems: Where to count what was assumed.
    """
    wild = pl.any_horizontal(pl.col(name).is_nan().any() for name in metrics)
    seconds = pl.col("seconds").max() if "seconds" in evaluations.columns else pl.lit(None, pl.Float64)
    ends = evaluations.group_by("trial").agg(
        pl.col("step").max().alias("_last"), wild.alias("_wild"), seconds.alias("train_seconds")
    )
    known = trials.join(ends, on="trial", how="left", maintain_order="left")
    for name, kind in (("status", pl.String), ("steps", pl.Int64)):
        if name not in known.columns:
            known = known.with_columns(pl.lit(None, kind).alias(name))
    problems.add_rows("trials without any measurement", known.filter(pl.col("_last").is_null()))
    assumed = known.filter(pl.col("status").is_null() & pl.col("_wild"))
    problems.add_rows("trials with values that are not finite and no status, taken as diverged", assumed)
    beyond = known.filter(pl.col("_last") > pl.col("steps"))
    problems.add_rows("trials measured beyond the steps that they state, the measurements believed", beyond)
    steps = pl.max_horizontal("_last", "steps").fill_null(0)
    guess = pl.when(pl.col("_wild").fill_null(False)).then(pl.lit("diverged")).otherwise(pl.lit("complete"))
    return known.with_columns(
        steps.alias("steps"),
        (steps * pl.col("batch_size")).alias("examples"),
        pl.coalesce("status", guess).alias("status"),
        pl.lit(0, pl.Int64).alias("replicate"),
        pl.lit(0, pl.Int64).alias("revision"),
        *(numbers_or_words(known[name]) for name in known.columns if name.startswith(HYPERPARAMETER)),
    ).drop("_last", "_wild")
