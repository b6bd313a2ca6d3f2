"""What an import made, and what it found wrong with its source."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from batchscope.errors import DataError, StoreError
from batchscope.spec.goal import Goal
from batchscope.store.provenance import collect
from batchscope.store.store import Store


class ColumnError(DataError, ValueError):
    """A column, option or value that was asked for and is not in the source."""


@dataclass
class Problems:
    """What was wrong with a source: each kind counted, with the first place it was found."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, count: int = 1, where: str = "") -> None:
        """Count ``what`` happened ``count`` times."""
        if count:
            self.counts[what] = self.counts.get(what, 0) + count
            self.first.setdefault(what, where)

    def add_rows(self, what: str, rows: pl.DataFrame, *columns: str) -> None:
        """Count rows, naming the first by its trial and step, where known, and these columns."""
        if len(rows):
            names = [name for name in ("trial", "step") if name in rows.columns and name not in columns]
            place = [f"{name} {rows[name][0]!s:.80}" for name in names] + [f"{rows[name][0]!s:.80}" for name in columns]
            self.add(what, len(rows), ", ".join(place))

    def lines(self) -> tuple[str, ...]:
        """One line a kind."""
        return tuple(
            f"{count:,} {what}" + (f" (first: {self.first[what]})" if self.first[what] else "")
            for what, count in self.counts.items()
        )


@dataclass(frozen=True)
class Imported:
    """The runs that an import made.

    Attributes:
        runs: Their folders.
        trials: How many, over all runs.
        measurements: How many, over all runs.
        problems: What was wrong with the source and what was done about it, one line a kind.
    """

    runs: tuple[Path, ...]
    trials: int
    measurements: int
    problems: tuple[str, ...]


@contextmanager
def new_run(folder: Path, document: Mapping[str, Any], problems: Problems) -> Iterator[Store]:
    """A run folder that appears under its name only when all of it is written.

    Raises:
        StoreError: If there is something under that name already.
    """
    check_free(folder)
    unfinished = folder.with_name(f".{folder.name}.importing")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
        with Store.create(unfinished, text, {}) as store:
            yield store
            store.write_provenance(collect(imported={**document["imported"], "problems": list(problems.lines())}))
        try:
            if folder.is_dir():
                folder.rmdir()  # empty, or this fails
            unfinished.rename(folder)
        except OSError as error:
            raise StoreError(f"cannot make {folder}: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def check_free(folder: Path) -> None:
    """Refuse to import over something.

    Raises:
        StoreError: If ``folder`` is a file or holds anything.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} exists already: choose another folder for the imported run, or remove it")


def check_goals(goals: tuple[str, ...] | list[str]) -> list[str]:
    """The goals in their standard form; refuses what is no goal (``StudyError``)."""
    return [str(Goal.parse(goal)) for goal in goals]
