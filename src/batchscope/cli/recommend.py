"""``batchscope recommend``: which batch size on how many devices, for time or for money."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import batchscope
from batchscope.advice.across import across
from batchscope.advice.across import document as document_of_several
from batchscope.advice.document import document
from batchscope.advice.recommendation import Recommendation
from batchscope.cli.advice import chosen, print_across, print_recommendation, whole_numbers
from batchscope.cli.shared_options import AsJson, OptionalRunFolders
from batchscope.cli.show import console, print_json, print_warnings
from batchscope.runs import Run, open_run
from batchscope.spec.prediction import Prediction
from batchscope.spec.probe import Probe

Devices = Annotated[str, typer.Option("--devices", help="Numbers of devices to choose among: 1,2,4,8.")]
ProbeFile = Annotated[
    Path | None, typer.Option("--probe", help="What batchscope probe --json printed; without it: steps and examples.")
]
Bandwidth = Annotated[float | None, typer.Option("--bandwidth", help="GB/s between devices; otherwise bytes are free.")]
Latency = Annotated[float, typer.Option("--latency", help="Microseconds between devices.")]
Price = Annotated[float | None, typer.Option("--price", help="Of one device for one hour.")]
Power = Annotated[float | None, typer.Option("--power", help="Watts that one device draws.")]
AnyWorkload = Annotated[bool, typer.Option("--any-workload", help="Take a probe of another workload.")]


def recommend(
    run: OptionalRunFolders = None,
    goal: Annotated[str | None, typer.Option("--goal", help="Otherwise the study's first.")] = None,
    probe: ProbeFile = None,
    from_prediction: Annotated[
        Path | None,
        typer.Option("--from-prediction", help="What batchscope predict wrote, instead of a run; marked as predicted."),
    ] = None,
    devices: Devices = "1",
    bandwidth: Bandwidth = None,
    latency: Latency = 0.0,
    price: Price = None,
    power: Power = None,
    deadline: Annotated[str | None, typer.Option("--deadline", help="Such as 90m: the cheapest that meets it.")] = None,
    budget: Annotated[float | None, typer.Option("--budget", help="The fastest that costs no more.")] = None,
    batch_sizes: Annotated[str | None, typer.Option("--batch-sizes", help="Only these: 64,128.")] = None,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Go beyond what was measured, and mark it.")
    ] = False,
    any_workload: AnyWorkload = False,
    snippet: Annotated[
        str | None, typer.Option("--snippet", help="Print the setting instead: yaml (a study) or pytorch (a loop).")
    ] = None,
    choice: Annotated[
        str,
        typer.Option("--choice", help="Of the snippet: recommended, fastest, balanced, cheapest, deadline or budget."),
    ] = "recommended",
    everything: Annotated[
        bool, typer.Option("--all", help="Show every choice, the Pareto front, and what it all rests on.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recommend batch size, devices and hyperparameters for time or for money; of several runs, which of them too."""
    measured = None if probe is None else Probe.from_json(probe)
    if (from_prediction is None) == (not run):
        raise typer.BadParameter("give the folder of a run, or --from-prediction FILE, and not both")
    opened: dict[str, Run | Prediction] = {str(folder): open_run(folder) for folder in run or ()}
    if from_prediction is not None:
        if snippet is not None:
            raise typer.BadParameter("--snippet writes down a setting that was trained; a prediction has none")
        opened[str(from_prediction)] = Prediction.from_json(from_prediction)
    found: dict[str, Recommendation] = {}
    for name, result in opened.items():
        if isinstance(result, Run):
            print_warnings(result)
        found[name] = batchscope.recommend(
            result,
            measured,
            goal=goal,
            devices=whole_numbers(devices, "--devices 1,2,4,8"),
            bandwidth=bandwidth,
            latency=latency,
            price=price,
            power=power,
            deadline=deadline,
            budget=budget,
            batch_sizes=None if batch_sizes is None else whole_numbers(batch_sizes, "--batch-sizes 64,128"),
            extrapolate=extrapolate,
            any_workload=any_workload,
        )
    best = across(found)
    asked = chosen(best.chosen, choice) if snippet is not None else None
    source = opened[best.run]
    text = source.snippet(asked, snippet, goal=goal) if asked and snippet and isinstance(source, Run) else None
    if as_json:
        device = None if measured is None else f"{measured.device_name} ({measured.device})"
        answers = {name: document(one, workload=opened[name].workload, device=device) for name, one in found.items()}
        answer = answers[best.run] if len(found) == 1 else document_of_several(best, answers)
        print_json(answer if text is None else answer | {"snippet": text})
    elif text is not None:
        print(text, end="")
    elif len(found) == 1:
        print_recommendation(console(), best.chosen, everything=everything)
    else:
        print_across(console(), best)
