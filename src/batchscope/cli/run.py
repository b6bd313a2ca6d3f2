"""``batchscope run``: run a study, or what is missing of it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from batchscope import runs, workloads
from batchscope.cli.main import INTERRUPTED
from batchscope.cli.progress import Display
from batchscope.cli.shared_options import DataDir
from batchscope.cli.show import console, print_estimate, print_notes, print_warnings, say
from batchscope.executors import starting
from batchscope.spec.study import Study


def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The study, a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to it, such as search.trials=8.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder; otherwise runs/ and the study's file name.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; 0 runs in this one. Otherwise one a core, or one on a GPU.")
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory",
            metavar="SIZE",
            help="What to plan for, of all processes together: 8GiB. Otherwise what is free.",
        ),
    ] = None,
    replay_choices: Annotated[
        Path | None,
        typer.Option("--replay-choices", metavar="RUN", help="Take programs, pack sizes and threads of another run."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show trials, rungs and cost, and run nothing.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Run a study; on a folder that holds a part of it, run what is missing. Ctrl-C is safe."""
    resolved = Study.from_yaml(study, overrides or ())
    folder = output or Path("runs") / study.stem
    begun = not dry_run and replay_choices is None and (folder / "study.yaml").exists()
    if begun and (done := runs.finished_run(resolved, folder, device)):
        say(f"nothing is left to run in {folder}", stderr=True)
        done.write_report()
        _show(done)
        return
    if workers != 0 and not dry_run:
        starting.begin()  # before torch, which takes this process as long
    if dry_run:
        from batchscope.runs.estimate import estimate  # here, because asking for help needs no torch

        with workloads.explained(resolved.workload):
            cost = estimate(
                resolved,
                device=device,
                workers=workers,
                data_dir=data_dir,
                replay_choices=replay_choices,
                max_memory=max_memory,
            )
        print_estimate(console(), resolved, cost)
        print_notes(cost.notes)
        return
    again = shlex.join(["batchscope", *sys.argv[1:]])
    try:
        with Display(resolved, folder) as display:
            result = runs.run(
                resolved,
                folder,
                workers=workers,
                device=device,
                data_dir=data_dir,
                on_progress=display.update,
                replay_choices=replay_choices,
                max_memory=max_memory,
            )
    except runs.Interrupted:
        say(f"stopped; what is finished is in {folder}. Go on with: {again}", stderr=True)
        raise typer.Exit(INTERRUPTED) from None
    _show(result)


def _show(result: runs.Run) -> None:
    from batchscope.cli.show_answers import print_answers  # here, because workers begin before polars is read

    for answers in result.answers():
        print_answers(console(), answers, folded=shlex.join(["batchscope", "analyze", str(result.folder), "--all"]))
    print_warnings(result)
    print_notes(result.notes)
    if result.weights_line:
        say(f"weights: {result.weights_line}")
    say(f"report: {result.folder / 'report.html'}")
