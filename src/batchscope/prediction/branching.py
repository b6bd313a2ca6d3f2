"""Branches of a training, trained: from its checkpoints on at larger batch sizes, over the same examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

import numpy as np
import torch

from batchscope.amounts import percent
from batchscope.engine.evaluate import evaluate
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack, to_evaluate
from batchscope.engine.program import advance
from batchscope.engine.training import Loaded, Settings, Training
from batchscope.errors import StudyError
from batchscope.interval import Interval
from batchscope.plan.rungs import TRAINING_PASSES
from batchscope.prediction.branch_plan import LARGEST_FACTOR, BranchPlan
from batchscope.prediction.branches import (
    Branch,
    BranchCost,
    Branches,
    BranchPoint,
    warm_up,
)
from batchscope.prediction.crossing import Array, critical_factor, is_told, mean_interval
from batchscope.prediction.one_training import OneTraining, rate_rule
from batchscope.schedules import BatchSchedule, staged_batch_schedule
from batchscope.schedules.table import ScalingRule
from batchscope.spec.workload import Workload
from batchscope.tensors import map_pair

AT = (0.05, 0.1, 0.3, 0.6)
REPLICATES = 3
# Of a loss near 3, which is that of the paper's models, its tolerance of 0.01 is a third of a percent.
TOLERANCE = 0.01
LEVEL = 0.9


@dataclass(frozen=True)
class Branching:
    """How far branches are.

    Attributes:
        at: The point that is being branched from.
        factor: The factor that is being trained; 1 for the training itself.
        trainings: That were trained so far.
        at_most: That there can be.
    """

    at: float
    factor: int
    trainings: float
    at_most: float


@dataclass
class _Spent:
    """Examples trained and evaluated so far."""

    trained: int = 0
    evaluated: int = 0
    started: float = field(default_factory=time.perf_counter)

    def trainings(self, plan: BranchPlan) -> float:
        return (self.trained + self.evaluated / TRAINING_PASSES) / plan.examples


def branches_of(
    one: OneTraining,
    workload: Workload,
    device: torch.device,
    *,
    at: Sequence[float] = AT,
    window: float | None = None,
    largest_factor: int = LARGEST_FACTOR,
    replicates: int = REPLICATES,
    tolerance: float = TOLERANCE,
    rule: str | None = None,
    on_progress: Callable[[Branching], None] = lambda progress: None,
) -> Branches:
    """Branch from a training; arguments and errors are those of ``runs.branch``."""
    if not 0 < tolerance < 1:
        raise StudyError(f"the tolerance is a share of the loss between 0 and 1, got {tolerance:g}; --tolerance 0.01")
    moved = rate_rule(one.study.algorithm.optimizer, rule)
    loaded = Loaded(workload, one.study, device, drawn_at_once=one.batch_size)
    training = Training(loaded, one.batch_size)
    plan = BranchPlan.of(training, at=at, window=window, largest_factor=largest_factor, replicates=replicates)
    work = _Work(one, training, plan, moved, tolerance, on_progress)
    points = tuple(work.point(index) for index in range(len(plan.starts)))
    return Branches(
        workload=one.study.workload,
        optimizer=one.study.algorithm.optimizer,
        hyperparameters=dict(one.point),
        batch_size=one.batch_size,
        examples=plan.examples,
        train_size=workload.train_size,
        rule=moved,
        window=plan.window,
        tolerance=tolerance,
        replicates=replicates,
        seed=one.study.seed,
        points=points,
        warm_up=warm_up(
            points,
            training.timeline.rate({}),
            batch_size=one.batch_size,
            examples=plan.examples,
            train_size=workload.train_size,
            rule=moved,
            learning_rate=_learning_rate(one, training),
            momentum=one.momentum,
        ),
        cost=BranchCost(plan.at_most, work.spent.trainings(plan), time.perf_counter() - work.spent.started),
    )


class _Work:
    """The trainings and their branches."""

    def __init__(
        self,
        one: OneTraining,
        training: Training,
        plan: BranchPlan,
        rule: ScalingRule,
        tolerance: float,
        on_progress: Callable[[Branching], None],
    ) -> None:
        self._training, self._plan, self._rule = training, plan, rule
        self._tolerance, self._tell, self.spent = tolerance, on_progress, _Spent()
        self._packs = [Pack.fresh(training, [one.trial(replicate)]) for replicate in range(plan.replicates)]
        self._loop = Loop(training)
        self._examples = map_pair(itemgetter(slice(plan.evaluated)), training.loaded.validation)

    def point(self, index: int) -> BranchPoint:
        """Train on to a point, and branch from it until a factor is worse beyond noise."""
        plan, start = self._plan, self._plan.starts[index]
        begun = [self._advanced(self._loop, pack, start // plan.batch_size) for pack in self._packs]
        before = [self._loss(self._loop, pack) for pack in begun]
        ended, after = self._over_window(self._loop, begun, 1)
        if not np.isfinite([*before, *after]).all():
            raise StudyError(
                f"the training at batch size {plan.batch_size} has a loss that is no number after "
                f"{percent(plan.at[index])} of it: give a smaller learning rate"
            )
        excess, branches = [], []
        for factor in plan.factors:
            self._tell(Branching(plan.at[index], factor, self.spent.trainings(plan), plan.at_most))
            program = Loop(replace(self._training, schedule=self._schedule(start, factor)))
            excess.append(_excess(self._over_window(program, begun, factor)[1], after))
            branches.append(Branch(factor, mean_interval(excess[-1], LEVEL)))
            if is_told(excess[-1], self._tolerance, LEVEL):
                break
        following = (*plan.starts, plan.examples)[index + 1]
        self._packs = begun if plan.goes_on_from(start, following) == start else ended
        factors = np.array(plan.factors[: len(excess)], float)
        critical = critical_factor(factors, np.array(excess), self._tolerance, LEVEL)
        return BranchPoint(
            plan.at[index],
            start,
            float(np.mean(before)),
            float(np.mean(after)),
            tuple(branches),
            _times(critical, plan.batch_size),
        )

    def _over_window(self, program: Loop, begun: Sequence[Pack], factor: int) -> tuple[list[Pack], Array]:
        """The packs at the window's end, and their losses (R,)."""
        ended, losses = [], []
        for pack in begun:
            found, start = [], pack.step
            for mark in self._plan.marks:
                pack = self._advanced(program, pack, start + mark // (factor * self._plan.batch_size))
                found.append(self._loss(program, pack))
            ended.append(pack)
            losses.append(np.mean(found))
        return ended, np.array(losses)

    def _schedule(self, start: int, factor: int) -> BatchSchedule:
        """The training up to a point, and from there on at so many times the batch size."""
        plan, timeline = self._plan, self._training.timeline
        return staged_batch_schedule(
            timeline.rate({}),
            {0: plan.batch_size, start / plan.examples: factor * plan.batch_size},
            train_size=plan.examples,
            epochs=1.0,
            rule=self._rule,
            unit="step",
        )

    def _advanced(self, program: Loop, pack: Pack, until: int) -> Pack:
        if until == pack.step:
            return pack
        clock = program.training.timeline
        self.spent.trained += clock.examples(until) - clock.examples(pack.step)
        advanced = advance(program, pack, until, ())
        assert advanced is not None  # nobody interrupts it
        return advanced[0]

    def _loss(self, program: Loop, pack: Pack) -> float:
        training = program.training.of_replicate(pack.trials[0].replicate)
        state = to_evaluate(training, Settings.of(training, pack.trials), pack.state)
        means, _ = evaluate(program.evaluate, training, state, examples=self._examples)
        self.spent.evaluated += self._plan.evaluated
        found = means["loss"][0]
        assert found is not None
        return found


def _excess(losses: Array, training: Array) -> Array:
    """(R,) by how much losses are above those of the training, as a share of their mean; at most once as much."""
    found = (losses - training) / abs(training.mean())
    return np.where(np.isfinite(found), np.minimum(found, 1.0), 1.0)


def _times(factor: Interval, batch_size: int) -> Interval:
    value, low, high = (None if one is None else one * batch_size for one in (factor.value, factor.low, factor.high))
    return Interval(value, low, high, factor.level)


def _learning_rate(one: OneTraining, training: Training) -> float:
    """At the batch size of the training, which a scaling rule of the study may have moved."""
    values = one.study.algorithm.hyperparameters(one.point)
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    return float(training.timeline.scaled(tensors)["learning_rate"])
