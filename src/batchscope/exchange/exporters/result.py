"""What an export wrote, and the folder that appears only when all of it is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from batchscope.errors import StoreError
from batchscope.store.store import Store


@dataclass(frozen=True)
class Exported:
    """An export.

    Attributes:
        folder: Where it lies.
        trials: How many.
        measurements: How many.
        notes: What the format cannot hold, one line each.
    """

    folder: Path
    trials: int
    measurements: int
    notes: tuple[str, ...] = ()


Counted = Callable[[pl.DataFrame], pl.DataFrame]
"""Of the table of trials the rows that count."""


def every(trials: pl.DataFrame) -> pl.DataFrame:
    """All of them count."""
    return trials


def counting(store: Store, counted: Counted) -> tuple[pl.DataFrame, pl.LazyFrame]:
    """The trials of a run that count, and their evaluations."""
    trials, evaluations = store.tables()
    found = counted(trials)
    if len(found) < len(trials):
        evaluations = evaluations.join(found.lazy().select("trial"), on="trial", how="semi")
    return found, evaluations


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which gets its name at the end.

    Raises:
        StoreError: If there is something under that name, or the disk refuses.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} exists already: choose another folder with -o, or remove it")
    unfinished = folder.with_name(f".{folder.name}.exporting")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if folder.is_dir():
            folder.rmdir()
        unfinished.rename(folder)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
