"""Steps to a target that somebody has found already: one row a batch size, or a trial."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import polars as pl

from batchscope.errors import DataError
from batchscope.exchange.importers.cleaning import LARGEST_STEP, numbers, numbers_or_words, whole_numbers
from batchscope.exchange.importers.csv import named, read
from batchscope.exchange.importers.groups import grouped, groups
from batchscope.exchange.importers.result import Imported, Problems
from batchscope.exchange.importers.several_runs import each_training
from batchscope.store.schema import HYPERPARAMETER

METRIC = "reached/goal"
GOAL = f"{METRIC} > 0.5"
MOST_RUNS = 1000
_SEVERAL = "--runs N, --low COL and --high COL, with --mean where the steps are their mean"


def import_curve(
    path: str | Path,
    folder: str | Path,
    *,
    batch_size: str,
    steps: str | None = None,
    examples: str | None = None,
    epochs: str | None = None,
    train_size: int | None = None,
    tuned: bool = False,
    runs: int | None = None,
    low: str | None = None,
    high: str | None = None,
    mean: bool = False,
    trial: str | None = None,
    hyperparameters: dict[str, str] | None = None,
    group: str | None = None,
    separator: str = ",",
) -> Imported:
    """Make a run whose steps to result are those in a CSV file; with ``group``, one run for each of its values.

    A file that cannot be read, lacks a column, or holds nothing that can be used, is a ``DataError``.

    The metric ``reached/goal`` is 0 at the step before the one given and 1 at it: nothing else is known, and nothing
    else is stored. A row without steps is a trial that was not seen to reach the target.

    Args:
        path: The file.
        folder: The run to make; with ``group``, the folder of the runs.
        batch_size: The column of the batch size, in whatever an example is; it is recorded, never converted.
        steps: The column of the steps to the target; or one of the two that follow.
        examples: That of the examples to it; an update that is not full counts as one.
        epochs: That of the epochs to it, of ``train_size`` examples each.
        train_size: Examples of an epoch.
        tuned: Whether each row trains what was tuned at its batch size before, as in published tables. Rows of one
            batch size are then its trainings anew, else points of a search, whose fastest is lucky.
        runs: How many trainings a row sums up, where it is not one; the rows are ``tuned`` then.
        low: The column of the fewest of these, in the unit of the steps.
        high: That of the most.
        mean: Whether the steps of a row are the mean of its trainings; their median otherwise.
        trial: The column that tells trials of one batch size apart; without it every row is a trial.
        hyperparameters: Our name of a hyperparameter to its column.
        group: The column whose values are runs of their own.
        separator: Between the fields.
    """
    path, folder = Path(path), Path(folder)
    given = {name: column for name, column in (("steps", steps), ("examples", examples), ("epochs", epochs)) if column}
    if len(given) != 1 or ("epochs" in given) != (train_size is not None):
        raise DataError("a curve needs --steps COL, or --examples COL, or --epochs COL with --train-size N")
    several = runs is not None
    if {low is not None, high is not None, several} != {several} or (mean and not several):
        raise DataError(f"rows of several trainings need {_SEVERAL}; got only some of these")
    if several and (not tuned or trial is not None or not 2 <= runs <= MOST_RUNS):  # type: ignore[operator]
        raise DataError(f"{_SEVERAL} are for --tuned rows without --trial, and N is from 2 to {MOST_RUNS}")
    ((unit, column),) = given.items()
    columns = {"batch_size": batch_size, "steps": column}
    columns |= {name: end for name, end in (("low", low), ("high", high)) if end is not None}
    columns |= {HYPERPARAMETER + name: column for name, column in (hyperparameters or {}).items()}
    columns |= {name: column for name, column in {"trial": trial, "group": group}.items() if column is not None}
    total = Problems()
    parts = groups(read(path, columns, separator), total)
    imported = {"kind": "curve", "columns": columns, "tuned": tuned}
    imported |= {"unit": unit} | ({"train_size": train_size} if train_size else {})
    imported |= {"runs": runs, "mean": mean} if several else {}
    each = {"steps": None, "examples": 1, "epochs": train_size}[unit]
    tables = partial(_tables, examples_of_one=each, runs=runs, mean=mean)
    return grouped(parts, total, tables, path, folder, imported, [GOAL])


def _tables(
    rows: pl.DataFrame, problems: Problems, examples_of_one: int | None, runs: int | None, mean: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The two tables; what is in ``steps`` is a number of steps, or each of it is so many examples."""
    rows = whole_numbers(rows, "batch_size", "batch size", 1, problems)
    rows = numbers(rows, "steps", "the steps", problems)
    if runs is not None:
        rows = each_training(rows, runs, mean=mean, problems=problems)
    if examples_of_one is not None:
        rows = rows.with_columns((pl.col("steps") * examples_of_one / pl.col("batch_size")).ceil())
    unfit = pl.col("steps").is_not_null() & ~pl.col("steps").is_between(1, LARGEST_STEP)
    problems.add_rows(
        "rows whose steps are no number of at least 1, left out", rows.filter(unfit), "batch_size", "steps"
    )
    rows = rows.filter(~unfit)
    broken = rows.filter(pl.col("steps") != pl.col("steps").floor()).head(len(rows) if runs is None else 0)
    problems.add_rows("fractional steps, rounded up to the step that is whole", broken, "batch_size", "steps")
    never = rows.filter(pl.col("steps").is_null())
    problems.add_rows("rows without steps, taken as trials that did not reach the target", never, "batch_size")
    rows = rows.with_columns(pl.col("steps").ceil().cast(pl.Int64))
    once = rows.unique(maintain_order=True) if runs is None else rows
    problems.add("rows that repeat another exactly, left out", len(rows) - len(once))
    if "trial" in once.columns:
        once = named(once, problems)
        single = once.unique("trial", keep="last", maintain_order=True)
        problems.add("rows that repeat a trial with other values, the last of each kept", len(once) - len(single))
        once = single
    else:
        order = pl.int_range(pl.len()).over("batch_size") + 1
        once = once.with_columns(pl.format("b{}-{}", "batch_size", order).alias("trial"))
        several = once.filter(pl.col("batch_size").is_duplicated()).head(len(once) if runs is None else 0)
        problems.add_rows("rows that share a batch size, taken as trials of their own", several, "batch_size")
    reached = pl.col("steps").is_not_null()
    trials = once.with_columns(
        pl.int_range(pl.len()).over("batch_size").alias("index"),
        pl.lit(0, pl.Int64).alias("replicate"),
        pl.lit(0, pl.Int64).alias("revision"),
        pl.when(reached).then(pl.lit("complete")).otherwise(pl.lit("stopped")).alias("status"),
        pl.col("steps").fill_null(0),
        (pl.col("steps") * pl.col("batch_size")).fill_null(0).alias("examples"),
        *(numbers_or_words(once[name]) for name in once.columns if name.startswith(HYPERPARAMETER)),
    )
    at = trials.filter(pl.col("steps") > 0).select("trial", "batch_size", pl.col("steps").alias("step"))
    evaluations = pl.concat([at.with_columns(step=pl.col("step") - 1, value=0.0), at.with_columns(value=pl.lit(1.0))])
    return trials, evaluations.with_columns(examples=pl.col("step") * pl.col("batch_size")).rename({"value": METRIC})
