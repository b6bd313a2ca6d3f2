"""``batchscope analyze``: steps to result and scaling regimes of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from batchscope.cli.options import AsJson, RunFolder


def analyze(
    run: RunFolder,
    goal: Annotated[
        list[str] | None, typer.Option("--goal", help='Such as "validation/error < 0.1"; otherwise the study\'s own.')
    ] = None,
    equal_trials: Annotated[
        bool, typer.Option("--equal-trials", help="Take the same number of trials at every batch size.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the steps-to-result curve of every goal, its regimes, and how sure they are."""
    from batchscope.cli.show import console, print_curve, print_json, print_warnings
    from batchscope.runs import open_run

    result = open_run(run)
    print_warnings(result)
    if as_json:
        print_json(result.summary(goal or (), equal_trials=equal_trials))
        return
    for curve in result.curves(goal or (), equal_trials=equal_trials):
        print_curve(console(), curve)
