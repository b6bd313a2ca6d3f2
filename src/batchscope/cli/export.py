"""``batchscope export``: a run in another format."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from batchscope.cli.options import RunFolder
from batchscope.cli.show import say
from batchscope.store import Store, find_runs
from batchscope.store.exporters import export_batch_science, export_tables


class Format(StrEnum):
    """What a run can be written as."""

    CSV = "csv"
    PARQUET = "parquet"
    BATCH_SCIENCE = "batch-science"


def export(
    run: RunFolder,
    file_format: Annotated[Format, typer.Option("--format", help="What to write.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to write.", show_default="RUN/exports/FORMAT")
    ] = None,
) -> None:
    """Write the trials and measurements of a run; batchscope import reads each of the formats again."""
    runs = find_runs(run)
    if not runs:
        Store.open(run)  # says what is wrong with it
    target = output or run / "exports" / file_format.value
    for folder in runs:
        store = Store.open(folder)
        place = target / folder.relative_to(run)
        if file_format is Format.BATCH_SCIENCE:
            written = export_batch_science(store, place)
        else:
            written = export_tables(store, place, "csv" if file_format is Format.CSV else "parquet")
        for note in (*store.warnings, *written.notes):
            say(f"note: {note}", stderr=True)
        counts = f"{written.trials:,} trials, {written.measurements:,} measurements"
        say(f"{written.folder}: {counts}")
