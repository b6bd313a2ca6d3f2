"""``batchscope report``: write the report of a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from batchscope.advice.across import across
from batchscope.advice.recommend import recommend
from batchscope.cli.advice import whole_numbers
from batchscope.cli.main import FAILED
from batchscope.cli.recommend import AnyWorkload, Bandwidth, Devices, Latency, Power, Price, ProbeFile
from batchscope.cli.shared_options import RunFolders
from batchscope.cli.show import print_warnings, say
from batchscope.cli.show_answers import lacking
from batchscope.errors import AnalysisError
from batchscope.report import comparison
from batchscope.runs import open_run
from batchscope.spec.probe import Probe

WATCH_SECONDS = 10.0


def report(
    run: RunFolders,
    watch: Annotated[bool, typer.Option("--watch", help="Write it anew until the run is finished.")] = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write the curve as a still picture too.")] = None,
    probe: ProbeFile = None,
    devices: Devices = "1",
    bandwidth: Bandwidth = None,
    latency: Latency = 0.0,
    price: Price = None,
    power: Power = None,
    any_workload: AnyWorkload = False,
    goal: Annotated[str | None, typer.Option("--goal", help="Of several runs; otherwise their first.")] = None,
    normalised: Annotated[
        bool, typer.Option("--normalised", help="Of several runs: their curves relative to one batch size too.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the page of several runs is written.")] = Path(
        "comparison.html"
    ),
) -> None:
    """Write report.html and summary.json into the folder of a run; of several runs, one page with all their curves."""
    if len(run) > 1:
        _several(run, goal, normalised, output)
        return
    result = open_run(run[0])
    counts = whole_numbers(devices, "--devices 1,2,4,8")
    measured = None if probe is None else Probe.from_json(probe)
    print_warnings(result)
    while watch and result.driver:
        try:
            path = result.write_report(live=True)
            say(f"{path} written; the run goes on", stderr=True)
        except AnalysisError as error:
            say(f"not yet: {error}", stderr=True)
        time.sleep(WATCH_SECONDS)
    advice = None
    if measured is not None or counts != [1] or bandwidth or latency or price or power:
        advice = recommend(
            result,
            measured,
            devices=counts,
            bandwidth=bandwidth,
            latency=latency,
            price=price,
            power=power,
            any_workload=any_workload,
        )
    say(str(result.write_report(advice=advice)))
    answers = result.answers()
    for one in answers:
        for name, refused in one.faults.items():
            say(f"{one.goal}: {name}: {refused.reason}", stderr=True)
    if svg is not None:
        svg.write_text(result.picture(), encoding="utf-8")
        say(str(svg))
    if lacking(answers):
        raise typer.Exit(FAILED)


def _several(folders: list[Path], goal: str | None, normalised: bool, output: Path) -> None:
    """One page of several runs."""
    opened = {str(folder): open_run(folder) for folder in folders}
    for result in opened.values():
        print_warnings(result)
    best = across({name: recommend(result, goal=goal) for name, result in opened.items()})
    curves = {name: result.steps_to_result(goal) for name, result in opened.items()}
    output.write_text(comparison.render(curves, normalised=normalised, first=best.sentence), encoding="utf-8")
    say(best.sentence)
    say(str(output))
