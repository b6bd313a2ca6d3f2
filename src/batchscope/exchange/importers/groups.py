"""A source with a column whose values are runs of their own: one run for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from batchscope.errors import DataError
from batchscope.exchange.importers.result import ColumnError, Imported, ImportedGroup, Problems, new_runs

Tables = tuple[pl.DataFrame, pl.DataFrame]
_FOLDER = re.compile(r"\w[\w .+=@-]{0,99}")


def groups(rows: pl.DataFrame, problems: Problems) -> list[tuple[str, pl.DataFrame]]:
    """The rows of each group by its name, in the order of the file; all of them under ``""`` if there are no groups.

    Raises:
        ColumnError: If a group cannot be the name of a folder.
    """
    if "group" not in rows.columns:
        return [("", rows)]
    rows = rows.with_columns(pl.col("group").str.strip_chars())
    unnamed = pl.col("group").is_null() | (pl.col("group") == "")
    problems.add("rows without a group, left out", rows.filter(unnamed).height)
    parts = rows.filter(~unnamed).partition_by("group", as_dict=True, maintain_order=True)
    names = [str(name) for (name,) in parts]
    for name in names:
        if not _FOLDER.fullmatch(name):
            raise ColumnError(
                f"the group {name!r:.80} cannot name a folder: use letters, digits and spaces, '.', '_', '-', '+', '='"
            )
    if len({name.casefold() for name in names}) < len(names):
        raise ColumnError("two groups differ only in upper and lower case: give them different names")
    return [(str(name), part.drop("group")) for (name,), part in parts.items()]


def grouped(
    parts: Sequence[tuple[str, pl.DataFrame]],
    total: Problems,
    tables: Callable[[pl.DataFrame, Problems], Tables],
    path: Path,
    folder: Path,
    imported: Mapping[str, Any],
    goals: Sequence[str],
) -> Imported:
    """One run for each group, all of them or none; a group without anything that can be used is named and left out.

    Args:
        parts: The rows of each group by its name, which is ``""`` if there are no groups.
        total: What was wrong with the whole.
        tables: Trials and evaluations of the rows of a group.
        path: The source.
        folder: The run to make, or that of the runs.
        imported: What the document says of the import beside the source.
        goals: Of every run.

    Raises:
        DataError: If no group holds anything that can be used.
    """
    made: list[ImportedGroup] = []
    lines: list[str] = []
    for name, rows in parts:
        problems = Problems(dict(total.counts), dict(total.first))
        trials, evaluations = tables(rows, problems)
        label = f"{name}: " if len(parts) > 1 else ""
        if trials.is_empty():
            reasons = "; ".join(problems.lines())
            left_out = "left out, it holds nothing that can be used: " if label else ""
            lines.append(f"{label}{left_out}{reasons or 'no rows'}")
            continue
        lines += [label + line for line in problems.lines()]
        document = {
            "imported": {**imported, "source": path.name} | ({"group": name} if name else {}),
            "workload": name or path.stem,
            "goals": list(goals),
        }
        made.append(ImportedGroup(folder / name if name else folder, document, problems, trials, evaluations))
    if not made:
        raise DataError(f"{path} holds nothing that can be used: {'; '.join(lines) or 'no rows'}")
    new_runs(made)
    trials_made, evaluations_made = (
        sum(map(len, tables)) for tables in ([p.trials for p in made], [p.evaluations for p in made])
    )
    return Imported(tuple(part.folder for part in made), trials_made, evaluations_made, tuple(lines))
