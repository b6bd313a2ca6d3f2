"""The tables of a run: their columns, types and rules, enforced at every write.

``trials`` is an append log: each commit adds a row for every trial that it advanced, and the row with the
most steps is the trial. Two columns are the store's own: ``since``, the steps from which the row goes on (-1:
from nothing), and ``commit``, a number that grows. A row counts only if the rows before it reach to its
``since``; a lost segment thus takes back exactly what was measured in it and after it, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from batchscope.errors import StoreError

# 2: a trial that a race stopped has the status stopped.
SCHEMA_VERSION = 2
# What schema 1 called it.
OLD_STATUS = ("censored", "stopped")
STATUSES = ("running", "complete", "diverged", "stopped", "pruned")
HYPERPARAMETER = "hyperparameter/"

Types = Mapping[str, pl.DataType | type[pl.DataType]]
TRIALS: Types = {
    "trial": pl.String,
    "batch_size": pl.Int64,
    "index": pl.Int64,
    "replicate": pl.Int64,
    "revision": pl.Int64,
    "status": pl.String,
    "steps": pl.Int64,
    "examples": pl.Int64,
    "train_seconds": pl.Float64,
    "evaluation_seconds": pl.Float64,
}
LOG: Types = {"since": pl.Int64, "commit": pl.Int64}
MEASUREMENTS: Types = {
    "trial": pl.String,
    "batch_size": pl.Int64,
    "step": pl.Int64,
    "examples": pl.Int64,
    "epoch": pl.Float64,
    "seconds": pl.Float64,
}
_PRINTABLE = pl.col("trial").str.len_chars().is_between(1, 256) & ~pl.col("trial").str.contains(r"\p{C}")
_MAY_BE_ABSENT = {"examples", "train_seconds", "evaluation_seconds", "epoch", "seconds"}


def trials_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """``frame`` with the columns and types of the trials table.

    Raises:
        StoreError: If a column is missing, unknown or of another kind, or a row breaks a rule of the table.
    """
    hyperparameters = {
        name: pl.String if frame.schema[name] in {pl.String, pl.Categorical, pl.Enum} else pl.Float64
        for name in sorted(frame.columns)
        if name.startswith(HYPERPARAMETER) and len(name) > len(HYPERPARAMETER)
    }
    table = _conform("trials", frame, {**TRIALS, **hyperparameters})
    if table["trial"].is_duplicated().any():
        raise StoreError("the trials of a commit hold one trial twice: give one row a trial")
    unknown = set(table["status"]) - set(STATUSES)
    if unknown:
        raise StoreError(f"a trial's status is one of {', '.join(STATUSES)}; got {', '.join(map(repr, unknown))}")
    _require("trials", table, pl.col("steps") >= 0, "steps at least 0")
    return table


def measurements_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """``frame`` with the columns and types of the measurements table, sorted by trial and step.

    Raises:
        StoreError: If a column is missing, unknown or of another kind, or a row breaks a rule of the table.
    """
    metrics: Types = {name: pl.Float64 for name in sorted(frame.columns) if "/" in name}
    table = _conform("measurements", frame, {**MEASUREMENTS, **metrics}).sort("trial", "step")
    _require("measurements", table, pl.col("step") >= 0, "steps at least 0")
    if table.select((pl.struct("trial", "step") == pl.struct("trial", "step").shift()).any()).item():
        raise StoreError("the measurements of a commit hold one step of a trial twice: give one row an evaluation")
    return table


def _conform(table: str, frame: pl.DataFrame, types: Types) -> pl.DataFrame:
    missing = set(types) - set(frame.columns) - _MAY_BE_ABSENT
    unknown = set(frame.columns) - set(types)
    if missing or unknown:
        words = [f"lacks {name!r}" for name in sorted(missing)] + [f"may not have {name!r}" for name in sorted(unknown)]
        raise StoreError(f"the table {table} {', '.join(words)}")
    try:
        result = frame.select(
            pl.col(name).cast(kind) if name in frame.columns else pl.lit(None, kind).alias(name)
            for name, kind in types.items()
        )
    except pl.exceptions.PolarsError as error:
        raise StoreError(f"the table {table} has a column of the wrong type: {error}") from error
    keys = [name for name in types if "/" not in name and name not in _MAY_BE_ABSENT]
    _require(table, result, pl.all_horizontal(pl.col(keys).is_not_null()), "a value in " + ", ".join(keys))
    _require(
        table,
        result,
        _PRINTABLE,
        "a trial id of printable characters",
    )
    _require(table, result, pl.col("batch_size") >= 1, "a batch size of at least 1")
    return result


def _require(table: str, frame: pl.DataFrame, rule: pl.Expr, words: str) -> None:
    bad = frame.filter(~rule)
    if len(bad):
        raise StoreError(f"a row of {table} needs {words}; got {bad.row(0, named=True)} in {len(bad)} rows")


def is_log(frame: pl.DataFrame) -> bool:
    """Whether these are the rows of a trials segment."""
    types = {**TRIALS, **LOG}
    rest = {name: kind for name, kind in frame.schema.items() if name not in types}
    fit = _holds(frame.schema, types) and all(
        name.startswith(HYPERPARAMETER) and kind in {pl.Float64, pl.String} for name, kind in rest.items()
    )
    keys = [name for name in types if name not in _MAY_BE_ABSENT]
    return fit and not any(frame[name].null_count() for name in keys) and set(frame["status"]) <= set(STATUSES)


def is_measurements(schema: Types) -> bool:
    """Whether the columns are those of a measurements segment."""
    rest = {name: kind for name, kind in schema.items() if name not in MEASUREMENTS}
    return _holds(schema, MEASUREMENTS) and all("/" in name and kind == pl.Float64 for name, kind in rest.items())


def _holds(schema: Types, types: Types) -> bool:
    return all(schema.get(name) == kind for name, kind in types.items())


def empty(types: Types) -> pl.DataFrame:
    """A table with these columns and no rows."""
    return pl.DataFrame(schema=types)
