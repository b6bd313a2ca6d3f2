"""Does the recommended setting reach the goal first, when it is trained anew?

Three settings of one workload, each trained several times by the eager loop that a user would write, with initial
values and data order that neither the study nor the probe has seen:

    recommended   the fastest option of ``bs.recommend(run, probe)``
    largest       the largest batch size that the probe ran, with the hyperparameters of the largest one studied
    default       batch size 128 with Adam and learning rate 1e-3

Trainings take turns, in an order that is drawn anew for each repetition. The clock counts fetching a batch, and the
update; it stands still while the validation error is looked at, at the evaluations of the study. A training ends at the
goal, or at ``--seconds`` on its clock.

    python benchmarks/recommended_training.py RUN PROBE [--repetitions 3] [--goal GOAL] [--seconds 60] [--data-dir DIR]

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import batchscope as bs
from batchscope import workloads
from batchscope.machine.cores import processor_name
from batchscope.plan.rungs import Grid
from batchscope.spec.probe import Probe

LAST_EVALUATION = 10**7
CHUNK = 1000


@dataclass(frozen=True)
class Setting:
    """What is trained: a batch size, an optimizer of torch and its arguments."""

    name: str
    batch_size: int
    optimizer: str
    arguments: dict[str, Any]

    def build(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = getattr(torch.optim, self.optimizer)(model.parameters(), **self.arguments)
        return made


def settings(run: bs.Run, probe: Probe, goal: str) -> list[Setting]:
    """The three settings that are compared."""
    fastest = bs.recommend(run.steps_to_result(goal), probe).fastest
    largest = max(row.batch_size for row in probe.batches if row.step is not None and row.accumulation_steps == 1)
    tuned = run.steps_to_result(goal).table.sort("batch_size").row(-1, named=True)
    return [
        Setting("recommended", fastest.batch_size, "SGD", _nesterov(fastest.hyperparameters)),
        Setting("largest", largest, "SGD", _nesterov(tuned)),
        Setting("default", 128, "Adam", {"lr": 1e-3}),
    ]


def _nesterov(point: Any) -> dict[str, Any]:
    return {"lr": float(point["learning_rate"]), "momentum": float(point["momentum"]), "nesterov": True}


def train(setting: Setting, workload: bs.Workload, goal: bs.Goal, seed: int, most_seconds: float) -> dict[str, Any]:
    """One training: steps and seconds to the goal; None if it was not reached in time."""
    torch.manual_seed(seed)
    model = workload.model()
    optimizer = setting.build(model)
    assert isinstance(workload.train, tuple)
    inputs, targets = workload.train
    assert isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    evaluations = iter(Grid(1.05, 1, LAST_EVALUATION).evaluations())
    step, seconds, evaluation = 0, 0.0, next(evaluations)
    order, place = torch.randperm(len(inputs)), 0
    while seconds < most_seconds:
        started = time.perf_counter()
        while step < evaluation:
            batch = order[place : place + setting.batch_size]
            place += setting.batch_size
            if place >= len(inputs):
                order, place = torch.randperm(len(inputs)), 0
            optimizer.zero_grad()
            workload.loss(model(inputs[batch]), targets[batch]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
        seconds += time.perf_counter() - started
        if goal.is_reached(validate(model, workload, goal.metric.removeprefix("validation/"))):
            return {"steps": step, "seconds": seconds}
        evaluation = next(evaluations)
    return {"steps": None, "seconds": None}


@torch.no_grad()
def validate(model: torch.nn.Module, workload: bs.Workload, name: str) -> float:
    """The mean of a metric over the validation examples."""
    assert isinstance(workload.validation, tuple)
    inputs, targets = workload.validation
    assert isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    model.eval()
    parts = zip(torch.split(inputs, CHUNK), torch.split(targets, CHUNK), strict=True)
    total = sum(float(workload.metrics[name](model(part), wanted).double().sum()) for part, wanted in parts)
    model.train()
    return total / len(inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("probe", type=Path)
    parser.add_argument("--goal", help="default: the last goal of the study")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="the most that one training may take")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    run, probe = bs.open_run(options.run), Probe.from_json(options.probe)
    goal = bs.Goal.parse(options.goal or str(run.goals[-1]))
    workload = workloads.load(run.workload, options.data_dir)
    torch.set_num_threads(probe.threads)
    contenders = settings(run, probe, str(goal))
    found: dict[str, list[dict[str, Any]]] = {setting.name: [] for setting in contenders}
    for setting in contenders:  # warm-up, not counted
        train(setting, workload, goal, 0, 0.2)
    order = random.Random(0)
    for repetition in range(options.repetitions):
        for setting in order.sample(contenders, len(contenders)):
            result = train(setting, workload, goal, 1_000_000 + repetition, options.seconds)
            found[setting.name].append(result)
            print(f"{setting.name} B={setting.batch_size}: {result}", file=sys.stderr, flush=True)
    rows = []
    for setting in contenders:
        reached = [result for result in found[setting.name] if result["seconds"] is not None]
        every = len(reached) == options.repetitions
        rows.append(
            {
                "setting": setting.name,
                "batch_size": setting.batch_size,
                "optimizer": setting.optimizer,
                "arguments": setting.arguments,
                "reached": len(reached),
                "steps": [result["steps"] for result in found[setting.name]],
                "seconds": [result["seconds"] for result in found[setting.name]],
                "median_seconds": statistics.median(r["seconds"] for r in reached) if every else None,
            }
        )
    fastest = bs.recommend(run.steps_to_result(str(goal)), probe).fastest
    summary = {
        "benchmark": "recommended_training",
        "goal": str(goal),
        "repetitions": options.repetitions,
        "promised_seconds": [fastest.time.value, fastest.time.low, fastest.time.high],
        "rows": rows,
        "threads": probe.threads,
        "machine": processor_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
