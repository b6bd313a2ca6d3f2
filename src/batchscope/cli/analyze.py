"""``batchscope analyze``: steps to result and scaling regimes of a run, or of every run in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchscope.analysis import answered
from batchscope.analysis.regimes import OVERHEAD
from batchscope.cli.main import FAILED
from batchscope.cli.shared_options import AsJson
from batchscope.cli.show import console, print_json, print_runs, print_table, print_warnings, printable, say
from batchscope.cli.show_answers import lacking, overview, print_answers, print_curve
from batchscope.errors import AnalysisError, BatchscopeError
from batchscope.runs import ask_each, comparison, holds_several, open_run
from batchscope.spec.goal import Goal

if TYPE_CHECKING:
    from batchscope.analysis import Curve
    from batchscope.runs import Run


def analyze(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or a folder of runs.")],
    goal: Annotated[
        list[str] | None, typer.Option("--goal", help='Such as "validation/error < 0.1"; otherwise the study\'s own.')
    ] = None,
    equal_trials: Annotated[
        bool, typer.Option("--equal-trials", help="Take the same number of trials at every batch size.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every reservation and every analysis, not only what matters most.")
    ] = False,
    overhead: Annotated[
        float,
        typer.Option(
            min=0.01, max=100, help="Of the other critical batch size: examples beyond those of linear scaling."
        ),
    ] = OVERHEAD,
    as_json: AsJson = False,
) -> None:
    """Say which batch size to take for every goal and why, with the curve and where its regimes end."""
    if holds_several(run):
        _analyze_each(run, goal or [], equal_trials, everything, overhead, as_json)
        return
    result = open_run(run)
    print_warnings(result)
    answers = result.answers(goal or (), equal_trials=equal_trials)
    answered(answers)  # or what stands against the first is told
    if as_json:
        print_json(result.summary(goal or (), equal_trials=equal_trials, overhead=overhead))
    for one in () if as_json else answers:
        print_answers(console(), one, folded="" if everything else "the same with --all", overhead=overhead)
    if result.weights_line and not as_json:
        console().print(f"weights: {printable(result.weights_line)}")
    if lacking(answers):
        raise typer.Exit(FAILED)


def _analyze_each(
    folder: Path, goals: list[str], equal_trials: bool, everything: bool, overhead: float, as_json: bool
) -> None:
    """The same for a folder of runs. A run that refuses is named on standard error, and the others go on."""
    asked = [Goal.parse(text) for text in goals]  # what is no goal is refused once, not by every run

    def question(run: Run) -> tuple[Run, list[Curve], str]:
        if not as_json:
            return run, [one.curve for one in answered(run.answers(asked, equal_trials=equal_trials))], ""
        document = run.summary(asked, equal_trials=equal_trials, overhead=overhead)
        curves = [one.curve for one in answered(run.answers(asked, equal_trials=equal_trials))]
        return run, curves, json.dumps(document, allow_nan=False)

    curves: dict[str, list[Curve]] = {}
    documents: dict[str, str] = {}
    for name, answer in ask_each(folder, question):
        if isinstance(answer, BatchscopeError):
            say(f"{name} has no answer: {answer}", stderr=True)
            documents[name] = json.dumps({"refused": str(answer)})
            continue
        run, curves[name], documents[name] = answer
        print_warnings(run)
        if not as_json:
            console().print(f"\n{printable(name)}", style="bold")
            for curve in curves[name]:
                print_curve(console(), curve, everything=everything, overhead=overhead)
    if not curves:
        raise AnalysisError(f"none of the {len(documents)} runs in {folder} has an answer: see the reasons above")
    if as_json:
        print_runs(documents, comparison(curves))
    else:
        print_table(console(), overview(curves))
