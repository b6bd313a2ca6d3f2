"""What an import made, and what it found wrong with its source."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from batchscope.amounts import number
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
            f"{number(count)} {what}" + (f" (first: {self.first[what]})" if self.first[what] else "")
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

    Errors:
        StoreError: If there is something under that name already, or the disk refuses.
    """
    check_free(folder)
    try:
        with _unfinished_run(folder, document, problems) as store:
            yield store
        _give_name(folder)
    finally:
        shutil.rmtree(_unfinished(folder), ignore_errors=True)


@dataclass(frozen=True)
class ImportedGroup:
    """One of several runs that an import makes: where, of what, and its tables."""

    folder: Path
    document: Mapping[str, Any]
    problems: Problems
    trials: pl.DataFrame
    evaluations: pl.DataFrame


def new_runs(parts: Sequence[ImportedGroup]) -> None:
    """Make all of these runs, or none.

    Errors are those of ``new_run``.
    """
    for part in parts:
        check_free(part.folder)
    named: list[Path] = []
    made = [parent for parent in {part.folder.parent for part in parts} if not parent.exists()]
    try:
        for part in parts:
            with _unfinished_run(part.folder, part.document, part.problems) as store:
                store.commit(part.trials, part.evaluations)
        for part in parts:
            _give_name(part.folder)
            named.append(part.folder)
    except BaseException:
        for folder in named:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        for part in parts:
            shutil.rmtree(_unfinished(part.folder), ignore_errors=True)
        for parent in () if len(named) == len(parts) else made:
            shutil.rmtree(parent, ignore_errors=True)


def _unfinished(folder: Path) -> Path:
    """Where a run is written until all of it is there."""
    return folder.with_name(f".{folder.name}.importing")


@contextmanager
def _unfinished_run(folder: Path, document: Mapping[str, Any], problems: Problems) -> Iterator[Store]:
    shutil.rmtree(_unfinished(folder), ignore_errors=True)
    text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
    with Store.create(_unfinished(folder), text, {}) as store:
        yield store
        store.write_provenance(collect(imported={**document["imported"], "problems": list(problems.lines())}))


def _give_name(folder: Path) -> None:
    """Let the run that is written appear under its name.

    Raises:
        StoreError: If the disk refuses.
    """
    try:
        if folder.is_dir():
            folder.rmdir()  # empty, or this fails
        _unfinished(folder).rename(folder)
    except OSError as error:
        raise StoreError(f"cannot make {folder}: {error.strerror or error}") from error


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
