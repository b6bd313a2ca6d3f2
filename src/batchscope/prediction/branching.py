"""Branches of a training, trained: from its checkpoints on at larger batch sizes, over the same examples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

import numpy as np
import torch

from batchscope.amounts import number, percent
from batchscope.engine.evaluate import evaluate
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack, to_evaluate
from batchscope.engine.program import advance
from batchscope.engine.training import Loaded, Settings, Training
from batchscope.errors import StudyError
from batchscope.interval import Interval
from batchscope.plan.rungs import TRAINING_PASSES
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
from batchscope.tensors import map_pair, size_of

AT = (0.05, 0.1, 0.3, 0.6)
# The window, where nobody says: this share of the training, or as much more as holds factors of two and four.
WINDOW, LONGEST_WINDOW = 0.04, 0.2
LARGEST_FACTOR = 32
REPLICATES = 3
# Of a loss near 3, which is that of the paper's models, its tolerance of 0.01 is a third of a percent.
TOLERANCE = 0.01
LEVEL = 0.9
# Fewer updates of a branch say more of how it begins than of its batch size.
FEWEST_UPDATES = 8
# The loss of a branch is the mean over so many evaluations, one after each of the last updates of the largest factor.
EVALUATIONS = 4
# Together they take so many examples for each of the window, a fifth of its training in passes.
EVALUATED = 0.2 * TRAINING_PASSES
FEWEST_EVALUATED = 100


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


@dataclass(frozen=True)
class BranchPlan:
    """What will be trained.

    Attributes:
        batch_size: Of the training.
        examples: Its length, in whole updates.
        starts: The points, in examples.
        at: The points, as shares.
        window: Examples of a branch.
        factors: At the most, ascending.
        replicates: Trainings.
        evaluated: Validation examples of an evaluation.
    """

    batch_size: int
    examples: int
    starts: tuple[int, ...]
    at: tuple[float, ...]
    window: int
    factors: tuple[int, ...]
    replicates: int
    evaluated: int

    @classmethod
    def of(
        cls,
        training: Training,
        *,
        at: Sequence[float],
        window: float | None,
        largest_factor: int,
        replicates: int,
    ) -> BranchPlan:
        """Check what is asked for, and bring it to whole updates.

        Raises:
            StudyError: If a value is out of its range, or the window holds too few updates.
        """
        if replicates < 2:
            raise StudyError(f"an interval needs at least 2 replicates, got {replicates}; write --replicates 3")
        size, steps = training.batch_size, training.timeline.last
        if window is None:
            window = min(max(WINDOW, 4 * FEWEST_UPDATES / steps), LONGEST_WINDOW)
        if not 0 < window < 1:
            raise StudyError(f"the window is a share of the training between 0 and 1, got {window:g}; --window 0.05")
        if not at or not all(0 < share <= 1 - window for share in at):
            raise StudyError(
                f"branches begin at shares of the training above 0 and up to {1 - window:g}, so that the window of "
                f"{percent(window)} fits, got {', '.join(f'{share:g}' for share in at) or 'none'}; --at 0.1,0.3,0.6"
            )
        if largest_factor < 2:
            raise StudyError(f"the largest factor must be at least 2, got {largest_factor}")
        updates = int(window * steps + 1e-9)
        most = min(
            largest_factor, updates // FEWEST_UPDATES, (training.loaded.workload.train_size or updates * size) // size
        )
        if most < 2:
            needed = math.ceil(2 * FEWEST_UPDATES / window)
            raise StudyError(
                f"{percent(window)} of the training are {number(updates)} updates, and a branch at twice the batch "
                f"size needs {2 * FEWEST_UPDATES}: train for {number(needed)} steps or more, or give a larger --window"
            )
        factors = tuple(2**i for i in range(1, most.bit_length()))
        whole = updates // factors[-1] * factors[-1]
        starts = tuple(min(max(1, round(share * steps)), steps - whole) * size for share in sorted(set(at)))
        examples = size_of(training.loaded.validation)
        few = max(FEWEST_EVALUATED, round(EVALUATED * whole * size / EVALUATIONS))
        few = examples if training.loaded.workload.loss_per == "batch" else min(examples, few)
        return cls(size, steps * size, starts, tuple(sorted(set(at))), whole * size, factors, replicates, few)

    @property
    def at_most(self) -> float:
        """Trainings that it costs, if no point ends before its largest factor."""
        trained = here = 0
        for start, following in zip(self.starts, (*self.starts[1:], self.examples), strict=True):
            trained += start - here + self.window * (1 + len(self.factors))
            here = self.goes_on_from(start, following)
        evaluations = len(self.starts) * (1 + EVALUATIONS * (1 + len(self.factors)))
        return self.replicates * (trained + evaluations * self.evaluated / TRAINING_PASSES) / self.examples

    @property
    def marks(self) -> tuple[int, ...]:
        """Examples from a point on at which its branches are evaluated, ascending."""
        apart = self.factors[-1] * self.batch_size
        return tuple(self.window - i * apart for i in reversed(range(EVALUATIONS)))

    def goes_on_from(self, start: int, following: int) -> int:
        """Where the training goes on after a point: at the end of its window, unless the next begins before that."""
        return start + self.window if following >= start + self.window else start


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
