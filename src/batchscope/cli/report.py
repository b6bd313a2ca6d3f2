"""``batchscope report``: write the report of a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from batchscope.cli.options import RunFolder

WATCH_SECONDS = 10.0


def report(
    run: RunFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Write it anew until the run is finished.")] = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write the curve as a still picture too.")] = None,
) -> None:
    """Write report.html and summary.json into the folder of a run."""
    from batchscope.cli.show import console, print_warnings
    from batchscope.errors import AnalysisError
    from batchscope.runs import open_run

    result = open_run(run)
    print_warnings(result)
    while watch and result.driver:
        try:
            path = result.write_report(live=True)
            console(stderr=True).print(f"{path} written; the run goes on")
        except AnalysisError as error:
            console(stderr=True).print(f"not yet: {error}")
        time.sleep(WATCH_SECONDS)
    console().print(f"{result.write_report()}")
    if svg is not None:
        svg.write_text(result.picture(), encoding="utf-8")
        console().print(f"{svg}")
