"""``batchscope export``: a run in another format."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from batchscope.amounts import counted
from batchscope.cli.shared_options import RunFolder
from batchscope.cli.show import say
from batchscope.exchange.exporters import every, export_batch_science, export_tables
from batchscope.runs import open_run
from batchscope.runs.planned import left_out
from batchscope.store import Store, find_runs


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
        place, result = target / folder.relative_to(run), open_run(folder)
        counts = result.counted if result.study else every  # an archive keeps what its source did not analyse
        if file_format is Format.BATCH_SCIENCE:
            written = export_batch_science(store, place, counts)
        else:
            written = export_tables(store, place, "csv" if file_format is Format.CSV else "parquet", counts)
        for note in (*store.warnings, *left_out(result.not_counted), *written.notes):
            say(f"note: {note}", stderr=True)
        say(f"{written.folder}: {counted(written.trials, 'trial')}, {counted(written.measurements, 'measurement')}")
