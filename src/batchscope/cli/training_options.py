"""Options of the verbs that train once: what is trained, for how long, and where the answer goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from batchscope.errors import StudyError

TrainingSource = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD|STUDY|RUN",
        help="A built-in name or path/to/file.py:function with settings, a study.yaml of one point, or a run.",
    ),
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Of the training.", show_default="16, or that of the study")]
Optimizer = Annotated[str | None, typer.Option(help="As in a study.", show_default="nesterov")]
LearningRate = Annotated[float | None, typer.Option(help="Of the training.", show_default=False)]
Momentum = Annotated[float | None, typer.Option(help="Of the training.", show_default="the optimizer's")]
Epochs = Annotated[float | None, typer.Option(help="Length of the training.", show_default="1")]
Steps = Annotated[int | None, typer.Option(min=1, help="The same in steps.", show_default=False)]
GoalText = Annotated[str | None, typer.Option("--goal", help="Of a run, otherwise its study's first.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of initial values and orders.", show_default="0")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Threads = Annotated[int | None, typer.Option(min=1, help="Of the CPU.", show_default="1, or those of the study")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="A file for the JSON document.", show_default=False)
]


def shares(text: str) -> list[float]:
    """``0.1,0.3`` as numbers.

    Raises:
        StudyError: If one is no number.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise StudyError(f"--at is a list of shares of the training such as 0.1,0.3,0.6, got {text!r}") from None


def check_output(output: Path | None) -> None:
    """Refuse a place that nothing can be written to, before anything is trained."""
    if output is not None and output.is_dir():
        raise typer.BadParameter(f"--output: {output} is a folder; name a file, such as {output / 'answer.json'}")
    if output is not None and not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"--output: there is no folder {output.absolute().parent}; make it, or name another")


def write(output: Path, text: str) -> None:
    """Write a document whole, or leave what was there."""
    beside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        beside.write_text(text + "\n", encoding="utf-8")
        os.replace(beside, output)
    finally:
        beside.unlink(missing_ok=True)
