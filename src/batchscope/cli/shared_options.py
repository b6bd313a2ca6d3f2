"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
RunFolders = Annotated[list[Path], typer.Argument(metavar="RUN...", help="The folder of a run, or of several.")]
OptionalRunFolders = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RUN...", help="The folder of a run, or of several.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where data sets lie; otherwise BATCHSCOPE_DATA, or the user's cache.")
]
