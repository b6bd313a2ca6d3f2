"""Anybody's measurements from a CSV file: one row an evaluation."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from batchscope.errors import DataError
from batchscope.exchange.importers.cleaning import clean, numbers, status_of, trial_rows, whole_numbers
from batchscope.exchange.importers.groups import grouped, groups
from batchscope.exchange.importers.result import ColumnError, Imported, Problems, check_goals
from batchscope.store.disk import read_table
from batchscope.store.schema import HYPERPARAMETER

_METRIC = re.compile(r"[A-Za-z][\w.-]*/[\w.-]+")


def import_csv(
    path: str | Path,
    folder: str | Path,
    *,
    batch_size: str,
    step: str,
    metrics: Mapping[str, str],
    trial: str | None = None,
    hyperparameters: Mapping[str, str] | None = None,
    status: str | None = None,
    seconds: str | None = None,
    epoch: str | None = None,
    group: str | None = None,
    goals: Sequence[str] = (),
    separator: str = ",",
) -> Imported:
    """Make a run of a CSV file with one row an evaluation; with ``group``, one run for each of its values.

    A file that cannot be read, lacks a column, or holds nothing that can be used, is a ``DataError``.

    Args:
        path: The file.
        folder: The run to make; with ``group``, the folder of the runs.
        batch_size: The column of the batch size, in whatever an example is; it is recorded, never converted.
        step: The column of the weight updates done so far.
        metrics: Our name of a metric, such as ``validation/loss``, to its column.
        trial: The column that tells trials of one batch size apart; without it there is one trial a batch size.
        hyperparameters: Our name of a hyperparameter to its column.
        status: The column of what became of the trial.
        seconds: The column of the seconds that the trial has trained.
        epoch: The column of the epochs done.
        group: The column whose values are runs of their own.
        goals: Such as ``"validation/loss < 3.42"``, for ``analyze`` to find.
        separator: Between the fields.
    """
    path, folder = Path(path), Path(folder)
    for name in metrics:
        if not _METRIC.fullmatch(name):
            raise ColumnError(
                f"a metric is named as in validation/loss, got {name!r}: type --metric validation/loss=COL"
            )
    if not metrics:
        raise ColumnError("there is nothing to import without a metric: type --metric validation/loss=COL")
    given = check_goals(list(goals))
    columns = {"batch_size": batch_size, "step": step, **metrics}
    columns |= {HYPERPARAMETER + name: column for name, column in (hyperparameters or {}).items()}
    options = {"trial": trial, "status": status, "seconds": seconds, "epoch": epoch, "group": group}
    columns |= {name: column for name, column in options.items() if column is not None}
    rows = read(path, columns, separator)
    total = Problems()
    parts = groups(rows, total)

    def tables(rows: pl.DataFrame, problems: Problems) -> tuple[pl.DataFrame, pl.DataFrame]:
        trials, evaluations = _tables(rows, list(metrics), problems)
        return (
            trials if len(evaluations) else trials.clear()
        ), evaluations  # without one evaluation there is nothing to analyse

    return grouped(parts, total, tables, path, folder, {"kind": "csv", "columns": columns}, given)


def read(path: Path, columns: Mapping[str, str], separator: str) -> pl.DataFrame:
    """These columns of a CSV file as text, under our names.

    Raises:
        DataError: If the file cannot be read or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if len(separator.encode()) != 1:
        raise ColumnError(f"a separator is one character, got {separator!r}")
    try:
        source = read_table(pl.scan_csv, path, infer_schema=False, separator=separator)
        there = source.collect_schema().names()
        for column in columns.values():
            if column not in there:
                near = difflib.get_close_matches(column.lower(), there, n=1)
                meant = f"; did you mean {near[0]!r}?" if near else "."
                listed = textwrap.shorten(", ".join(map(repr, there)), 300, placeholder=" ...")
                raise ColumnError(f"{path} has no column {column!r}{meant} It has {listed}")
        return source.select(pl.col(column).alias(name) for name, column in columns.items()).collect()
    except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
        raise DataError(f"cannot read {path} as CSV: {str(error).splitlines()[0]}") from None


def _tables(rows: pl.DataFrame, metrics: list[str], problems: Problems) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows = whole_numbers(rows, "batch_size", "batch size", 1, problems)
    rows = whole_numbers(rows, "step", "step", 0, problems)
    for name in [*metrics, *(name for name in ("seconds", "epoch") if name in rows.columns)]:
        rows = numbers(rows, name, name, problems)
    rows = named(rows, problems)
    constant = [name for name in rows.columns if name == "status" or name.startswith(HYPERPARAMETER)]
    trials = per_trial(rows, constant, problems)
    if "status" in trials.columns:
        words = {word: status_of(word, "a trial") for word in trials["status"].drop_nulls().unique().sort()}
        trials = trials.with_columns(pl.col("status").replace_strict(words, return_dtype=pl.String))
    evaluations = rows.drop(constant).with_columns((pl.col("step") * pl.col("batch_size")).alias("examples"))
    evaluations = clean(evaluations, metrics, problems)
    return trial_rows(trials, evaluations, metrics, problems), evaluations


def named(rows: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """``rows`` with a trial's id in ``trial``: the name in the source, and the batch size where names recur."""
    if "trial" not in rows.columns:
        return rows.with_columns(pl.format("b{}", "batch_size").alias("trial"))
    rows = rows.with_columns(pl.col("trial").str.strip_chars().str.replace_all(r"\p{C}", "\N{REPLACEMENT CHARACTER}"))
    unnamed = pl.col("trial").is_null() | (pl.col("trial") == "")
    problems.add("rows without a trial, left out", rows.filter(unnamed).height)
    rows = rows.filter(~unnamed)
    if rows.select(pl.col("batch_size").n_unique().over("trial").max() > 1).item():
        return rows.with_columns(pl.format("b{}-{}", "batch_size", "trial").alias("trial"))
    return rows


def per_trial(rows: pl.DataFrame, constant: list[str], problems: Problems) -> pl.DataFrame:
    """One row a trial, numbered in the order of the source; of what changes within a trial, the last value."""
    for name in constant:
        distinct = rows.select(name, "trial").drop_nulls().unique(maintain_order=True)
        changing = distinct.filter(pl.col("trial").is_duplicated()).unique("trial", maintain_order=True)
        problems.add_rows(f"trials in which {name} changes, the last value kept", changing)
    trials = rows.group_by("trial", "batch_size", maintain_order=True).agg(pl.col(constant).drop_nulls().last())
    return trials.with_columns(pl.int_range(pl.len()).over("batch_size").alias("index"))
