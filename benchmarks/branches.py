"""Does the batch-size warm-up that follows from branches reach the goal in fewer updates, at the same examples?

Branches from a training, then trains it and its warm-up anew with seeds that the branches have not seen, the same
examples in the same order for both. Prints one JSON line: critical batch sizes, the cost, and of both trainings the
updates and examples until the goal is reached, and the mean of the last five losses.

    python benchmarks/branches.py fashion_mnist/fc-256 --learning-rate 0.0148 --momentum 0.908 --epochs 2
"""

from __future__ import annotations

import argparse
import bisect
import json
import statistics
from typing import Any

import torch

import batchscope as bs
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import advance
from batchscope.engine.training import Loaded, Training
from batchscope.prediction.one_training import OneTraining
from batchscope.runs.one_training import TrainingRequest, training_of
from batchscope.schedules import BatchSchedule
from batchscope.spec.goal import Goal

MARKS = 100  # evaluations in a training


def trained(
    one: OneTraining, loaded: Loaded, schedule: BatchSchedule | None, goal: Goal, replicate: int
) -> dict[str, float | None]:
    """One training: updates and examples to the goal, and what it ends with."""
    training = Training(loaded, one.batch_size, replicate, schedule)
    clock, pack = training.timeline, Pack.fresh(training, [one.trial(replicate)])
    steps = sorted({max(1, round(clock.last * i / MARKS)) for i in range(1, MARKS + 1)})
    if schedule is not None:  # evaluated after the same examples as far as whole updates go
        size = clock.examples(clock.last)
        seen = [clock.examples(step) for step in range(clock.last + 1)]
        steps = sorted({bisect.bisect_left(seen, min(size * i / MARKS, seen[-1])) for i in range(1, MARKS + 1)})
    advanced = advance(Loop(training), pack, clock.last, steps)
    assert advanced is not None
    found = advanced[1]
    values = [row[0] for row in found.metrics[goal.metric]]
    reached = next((i for i, value in enumerate(values) if value is not None and goal.is_reached(value)), None)
    final = [row[0] or 0.0 for row in found.metrics["validation/loss"]][-5:]
    return {
        "updates": None if reached is None else found.steps[reached],
        "examples": None if reached is None else found.examples[reached],
        "all_updates": found.steps[-1],
        "final_loss": statistics.mean(final),
    }


def main() -> None:
    """Branch, train both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--optimizer", default="nesterov")
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--momentum", type=float)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--goal", default="validation/error < 0.15")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--replicates", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ("batch_size", "optimizer", "learning_rate", "momentum", "epochs")
    given = {name: getattr(options, name) for name in names}
    found = bs.branch(options.workload, **given, replicates=options.replicates)
    one, workload = training_of(TrainingRequest(options.workload, **given))
    loaded = Loaded(workload, one.study, torch.device("cpu"), drawn_at_once=one.batch_size)
    goal = Goal.parse(options.goal)
    result: dict[str, Any] = {
        "benchmark": "branches",
        "workload": options.workload,
        **given,
        "critical": [[point.at, point.critical_batch_size.to_dict()] for point in found.points],
        "warm_up": [[phase.example_start, phase.batch_size] for phase in found.warm_up.phases],
        "cost": found.cost.trainings,
        "at_most": found.cost.at_most,
        "seconds": found.cost.seconds,
        "goal": options.goal,
    }
    for name, schedule in (("training", None), ("warm_up", found.warm_up)):
        rows = [trained(one, loaded, schedule, goal, 1000 + seed) for seed in range(options.seeds)]
        result[name] = {key: [row[key] for row in rows] for key in rows[0]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
