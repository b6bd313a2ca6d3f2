"""``batchscope recommend``: which batch size on how many devices, for time or for money."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import batchscope
from batchscope.advice.document import document
from batchscope.cli.advice import chosen, print_recommendation, whole_numbers
from batchscope.cli.shared_options import AsJson, RunFolder
from batchscope.cli.show import console, print_json, print_warnings
from batchscope.runs import open_run
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
    run: RunFolder,
    goal: Annotated[str | None, typer.Option("--goal", help="Otherwise the study's first.")] = None,
    probe: ProbeFile = None,
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
    """Recommend batch size, devices and hyperparameters for time or for money."""
    result = open_run(run)
    print_warnings(result)
    measured = None if probe is None else Probe.from_json(probe)
    found = batchscope.recommend(
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
    text = None if snippet is None else result.snippet(chosen(found, choice), snippet, goal=goal)
    if as_json:
        device = None if measured is None else f"{measured.device_name} ({measured.device})"
        answer = document(found, workload=result.workload, device=device)
        print_json(answer if text is None else answer | {"snippet": text})
    elif text is not None:
        print(text, end="")
    else:
        print_recommendation(console(), found, everything=everything)
