"""From one training to its goal: the critical batch size by three methods, and the steps of other batch sizes."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch

import batchscope
from batchscope.engine.training import Loaded
from batchscope.errors import BatchscopeError, PredictionError
from batchscope.interval import Interval
from batchscope.prediction.branches import BranchPoint
from batchscope.prediction.branching import branches_of
from batchscope.prediction.noise_along import (
    critical_batch_size,
    measured_batch,
    measured_examples,
    noise_along,
    stretches,
)
from batchscope.prediction.one_training import OneTraining
from batchscope.prediction.to_goal import Reached, at_rates, to_goal
from batchscope.prediction.track_record import (
    METHODS,
    Scored,
    best_method,
    corrected,
    record_of,
    track_record,
)
from batchscope.spec.goal import Goal
from batchscope.spec.prediction import (
    LEVEL,
    Bounds,
    MethodAnswer,
    PredictedSteps,
    Prediction,
    PredictionCost,
    TrackRecord,
    steps_at,
)
from batchscope.spec.workload import Workload

# A curve reaches this many doublings to both sides of the batch size of the training.
DOUBLINGS = 8
# Of the training to the goal, which is short.
BRANCH_AT = (0.1, 0.3, 0.6)
SOURCES: dict[str, Literal["signs", "hessian"]] = {"gradient_noise": "signs", "hessian_noise": "hessian"}


def prediction_of(
    one: OneTraining,
    workload: Workload,
    device: torch.device,
    goal: Goal,
    *,
    methods: Sequence[str] = METHODS,
    try_rates: bool = False,
    on_progress: Callable[[str], None] = lambda doing: None,
    scored: Sequence[Scored] | None = None,
) -> Prediction:
    """Train to the goal, measure, and say what follows; arguments and errors are those of ``runs.predict``."""
    started = time.perf_counter()
    scored = track_record() if scored is None else scored
    candidates = at_rates(one) if try_rates else [one]
    loaded = Loaded(workload, one.study, device, drawn_at_once=one.batch_size)
    on_progress("training to the goal" + (f" at {len(candidates)} learning rates" if try_rates else ""))
    reached = to_goal(candidates, loaded, goal)
    length = reached.steps * one.batch_size
    answers: dict[str, MethodAnswer] = {}
    cost = {"training": reached.examples / length}
    for method in methods:
        on_progress(f"measuring {method.replace('_', ' ')}")
        answers[method], examples = _answer(method, reached, workload, device)
        cost[method] = examples / length
    found = {name: answer.critical_batch_size for name, answer in answers.items()}
    best = best_method({name: None if one is None else one.interval for name, one in found.items()}, scored)
    if best is None:
        reasons = "; ".join(f"{name}: {answer.reason or 'left open'}" for name, answer in answers.items())
        raise PredictionError(f"no method tells a critical batch size: {reasons}. Train longer, for a harder --goal")
    record = record_of(best, scored)
    measured = found[best]
    assert measured is not None
    critical = corrected(measured.interval, record)
    return Prediction(
        workload=one.study.workload,
        goal=str(goal),
        optimizer=one.study.algorithm.optimizer,
        hyperparameters=dict(reached.one.point),
        batch_size=one.batch_size,
        steps=reached.steps,
        critical_batch_size=Bounds.of(critical),
        method=best,
        by=answers,
        curve=tuple(_curve(critical, one.batch_size, reached.steps, record, workload.train_size)),
        record=record,
        cost=PredictionCost(trainings=sum(cost.values()), seconds=time.perf_counter() - started, by=cost),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "batchscope": batchscope.__version__,
        },
    )


def _answer(method: str, reached: Reached, workload: Workload, device: torch.device) -> tuple[MethodAnswer, float]:
    """What a method finds, and the examples that it takes."""
    size = reached.one.batch_size
    try:
        if method == "branches":
            one = reached.one.for_steps(reached.steps)
            branches = branches_of(one, workload, device, at=BRANCH_AT, replicates=2)
            interval = over_training(branches.points, size)
            return MethodAnswer(critical_batch_size=Bounds.of(interval)), branches.cost.trainings * branches.examples
        checkpoints = reached.checkpoints
        batch = measured_batch(reached.training, len(checkpoints), reached.steps * size)
        noise, signal = noise_along(reached.training, checkpoints, SOURCES[method], batch)
        interval = critical_batch_size(noise, signal, stretches(checkpoints), size, LEVEL)
        return MethodAnswer(critical_batch_size=Bounds.of(interval)), measured_examples(
            len(checkpoints), batch, SOURCES[method]
        )
    except BatchscopeError as error:
        return MethodAnswer(critical_batch_size=None, reason=str(error)), 0.0


def over_training(points: Sequence[BranchPoint], batch_size: int) -> Interval:
    """The mean over points of a training; where the largest factor was not worse, of its batch size, and open above."""
    ends = [batch_size * float(point.branches[-1].factor) for point in points]
    found = [point.critical_batch_size for point in points]
    value = sum(one.value or end for one, end in zip(found, ends, strict=True)) / len(points)
    low = sum(one.low or batch_size for one in found) / len(points)
    closed = [one.high for one in found if one.high is not None]
    high = sum(closed) / len(points) if len(closed) == len(points) else None
    return Interval(value, low, high, LEVEL)


def _curve(critical: Interval, base: int, steps: int, record: TrackRecord, most: int | None) -> list[PredictedSteps]:
    """At doublings of the batch size; the interval has that of the critical batch size, and what the record adds."""
    found = []
    assert critical.value is not None
    for power in range(-DOUBLINGS, DOUBLINGS + 1):
        size = base * 2.0**power
        if size < 1 or size != int(size) or (most is not None and size > most):
            continue
        value = steps_at(size, critical.value, base, steps)
        bounds = Bounds(value=value, low=value / record.curve_widened, high=value * record.curve_widened)
        found.append(PredictedSteps(batch_size=int(size), steps=bounds))
    return found
