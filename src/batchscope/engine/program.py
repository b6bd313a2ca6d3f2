"""How steps are computed: the interface of a program, and ``advance``, which is the same for all of them."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from batchscope.engine.evaluate import Accumulators, evaluate
from batchscope.engine.pack import Pack, State, to_evaluate
from batchscope.engine.training import Settings, Training
from batchscope.engine.watch import Standing, Watch
from batchscope.spec.goal import RUNNING_LOSS, TEST, Goal
from batchscope.spec.trial import Trial
from batchscope.tensors import Pair, size_of


@dataclass(frozen=True)
class Measurements:
    """Measurements of K trials at some steps.

    Attributes:
        steps: The evaluations, ascending.
        examples: Seen at each evaluation.
        epochs: Seen at each evaluation.
        metrics: Name to a row for each evaluation, of K values; None for what was not measured, because the evaluation
            ended early or the trial is over.
        seconds: Training seconds of one trial up to each evaluation.
        ends: For a trial that is over, diverged or beyond all its goals, its last evaluation.
    """

    steps: list[int] = field(default_factory=list)
    examples: list[int] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    metrics: dict[str, list[list[float | None]]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Crossing:
    """A trial at the evaluation at which it first was beyond some goals."""

    trial: Trial
    step: int
    goals: frozenset[Goal]
    state: State


class Program(ABC):
    """Trains and evaluates packs of one batch size.

    A program may cache whatever it compiled or traced; what it computes depends on its arguments only. It serves every
    replicate: ``Settings`` say which one the trials are of.
    """

    training: Training

    @abstractmethod
    def __init__(self, training: Training) -> None:
        """Prepare for a training; nothing is computed yet."""

    @abstractmethod
    def train(self, state: State, settings: Settings, start: int, until: int) -> tuple[State, Tensor]:
        """Advance K trials from step ``start`` to ``until``.

        Returns:
            The new state, and (K,) float64 sums over the steps of the batches' mean losses.
        """

    @abstractmethod
    def evaluate(
        self, state: State, examples: Pair, whole: Sequence[Accumulators] = (), place: int = 0
    ) -> dict[str, Tensor]:
        """Name to (K, B) values of some validation examples: ``loss`` and every metric that is an average.

        Args:
            state: Of K trials; slots may be missing.
            examples: Inputs and targets, B of them.
            whole: For each trial the metrics that are no averages, to be updated with these examples; a program that
                cannot serve such metrics refuses the workload at its birth.
            place: Validation examples before these, by which random numbers are seeded.
        """


def advance(
    program: Program,
    pack: Pack,
    until: int,
    evaluations: Sequence[int],
    *,
    watch: Watch = Watch(),  # noqa: B008 - frozen
    interrupted: Callable[[], bool] = lambda: False,
    crossed: Callable[[Crossing], None] = lambda crossing: None,
) -> tuple[Pack, Measurements] | None:
    """Train a pack until a step and measure it at every evaluation on the way: a pure function of its arguments.

    Args:
        program: How.
        pack: From where.
        until: The step to stop at.
        evaluations: Steps in (pack.step, until] at which the trials are evaluated; none to train only.
        watch: What the evaluations are for.
        interrupted: Asked at every evaluation; once it says so, nothing is returned.
        crossed: Told of every trial that reaches a goal, where it does.

    Returns:
        The pack at ``until``, or at the evaluation at which its last trial was over, and its measurements; None if
        interrupted.
    """
    training = program.training.of_replicate(pack.trials[0].replicate)
    settings = Settings.of(training, pack.trials)
    standing = Standing(watch, len(pack.trials))
    result = Measurements(ends=standing.ends)
    losses = torch.zeros(len(pack.trials), dtype=torch.float64, device=training.loaded.device)
    since = pack.step
    for target in sorted({*evaluations, until}):
        if interrupted():
            return None
        started = time.perf_counter()
        state, sums = program.train(pack.state, settings, pack.step, target)
        losses += sums
        trained = _clock(losses)
        seconds = (trained - started) / len(pack.trials)
        pack = replace(pack, state=state, step=target, train_seconds=pack.train_seconds + seconds)
        if target in evaluations:
            seen = replace(pack, state=to_evaluate(training, settings, state))
            values = _evaluation(program, seen, standing, watch, (losses / (target - since)).tolist())
            crossings = standing.note(target, values)
            _record(result, training, pack, values | _tested(program, seen, sorted(crossings)))
            for k, goals in crossings.items():
                own = {name: value[k] for name, value in seen.state.items()}
                crossed(Crossing(pack.trials[k], target, frozenset(goals), own))
            losses, since = torch.zeros_like(losses), target
            seconds = (time.perf_counter() - trained) / len(pack.trials)
            pack = replace(pack, evaluation_seconds=pack.evaluation_seconds + seconds)
            if not standing.alive:
                break
    return pack, result


def _evaluation(
    program: Program, pack: Pack, standing: Standing, watch: Watch, losses: list[float]
) -> dict[str, list[float | None]]:
    """Name to a value for every trial, at the step where a pack stands."""
    alive, loaded = standing.alive, program.training.loaded
    early = watch.full is not None and pack.step not in watch.full
    found: dict[str, list[float | None]] = {
        RUNNING_LOSS: [loss if k not in standing.ends else None for k, loss in enumerate(losses)]
    }
    for data, examples in (("train", loaded.train_sample), ("validation", loaded.validation)):
        if examples is not None:
            goals = {k: standing.open(k, data) for k in alive} if early else None
            values, taken = evaluate(program.evaluate, program.training, pack.state, alive, goals, examples)
            found |= {f"{data}/{name}": value for name, value in values.items()}
            found |= standing.decided(taken, size_of(examples), data)
    return found


def _tested(program: Program, pack: Pack, trials: Sequence[int]) -> dict[str, list[float | None]]:
    """What the test examples say of some trials; nobody decides by it."""
    workload, test = program.training.loaded.workload, program.training.loaded.test
    if test is None:
        return {}
    names = ("loss", *workload.metrics)
    values: Mapping[str, list[float | None]] = dict.fromkeys(names, [None] * len(pack.trials))
    if trials:
        values, _ = evaluate(program.evaluate, program.training, pack.state, trials, examples=test)
    return {f"{TEST}{name}": values[name] for name in names}


def _clock(computed: Tensor) -> float:
    """The time when everything that a tensor depends on has been computed."""
    if computed.is_cuda:
        torch.cuda.synchronize(computed.device)
    return time.perf_counter()


def _record(
    evaluations: Measurements, training: Training, pack: Pack, values: Mapping[str, list[float | None]]
) -> None:
    evaluations.steps.append(pack.step)
    evaluations.examples.append(training.timeline.examples(pack.step))
    evaluations.epochs.append(training.timeline.epoch(pack.step))
    evaluations.seconds.append(pack.train_seconds)
    for name, value in values.items():
        evaluations.metrics.setdefault(name, []).append(value)


def diverged_at(evaluations: Measurements, k: int) -> int | None:
    """The first evaluation at which anything measured of trial ``k`` is not finite; what was not measured is not
    that.
    """
    for row, step in enumerate(evaluations.steps):
        rows = (values[row] for name, values in evaluations.metrics.items() if not name.startswith(TEST))
        seen = [value for values in rows if (value := values[k]) is not None]
        if not all(map(math.isfinite, seen)):
            return step
    return None
