"""Branches as frozen values: the critical batch size over a training, and the batch-size warm-up that follows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.optimize import isotonic_regression

from batchscope.interval import Interval
from batchscope.schedules import BatchSchedule, Schedule, staged_batch_schedule
from batchscope.schedules.table import ScalingRule
from batchscope.spec.space import Value

SCHEMA = 1
# A hundredth of a doubling: a critical batch size of 63.9 lets 64 be trained.
_SLACK = 0.01


@dataclass(frozen=True)
class Branch:
    """One factor at one point.

    Attributes:
        factor: Times the batch size of the training.
        excess: By how much its loss ends above that of the training, as a share of the latter: mean over the replicates
            with Student's interval; a loss that is no number counts as twice the training's, as any above that does.
    """

    factor: int
    excess: Interval


@dataclass(frozen=True)
class BranchPoint:
    """Branches from one point of the training.

    Attributes:
        at: The share of the training's examples that were seen.
        examples: Seen.
        loss: Of the training there, on the validation examples, mean over the replicates.
        loss_after: Of the training at the end of the window.
        branches: Ascending by factor.
        critical_batch_size: The largest batch size that is not worse; a side that the branches leave open is None.
    """

    at: float
    examples: int
    loss: float
    loss_after: float
    branches: tuple[Branch, ...]
    critical_batch_size: Interval


@dataclass(frozen=True)
class BranchCost:
    """What branches cost, in trainings: examples trained, and evaluated at a third of that, over those of the training.

    Attributes:
        at_most: Told before.
        trainings: Trained.
        seconds: It took.
    """

    at_most: float
    trainings: float
    seconds: float


@dataclass(frozen=True)
class Branches:
    """The critical batch size over one training (Merrill et al. 2025), and the warm-up that follows.

    Attributes:
        workload: Its name.
        optimizer: Of the training, like all that follows.
        hyperparameters: Its point.
        batch_size: B_0.
        examples: Its length.
        train_size: Examples in an epoch; None where the data has none.
        rule: What moved the learning rate of a branch.
        window: Examples that a branch was trained for.
        tolerance: The share of the loss by which a branch may end above the training.
        replicates: Trainings, each with branches of its own.
        seed: Of the study.
        points: Ascending.
        warm_up: The batch-size schedule that follows, of the length of the training.
        cost: In trainings.
    """

    workload: str
    optimizer: str
    hyperparameters: dict[str, Value]
    batch_size: int
    examples: int
    train_size: int | None
    rule: ScalingRule
    window: int
    tolerance: float
    replicates: int
    seed: int
    points: tuple[BranchPoint, ...]
    warm_up: BatchSchedule
    cost: BranchCost

    def document(self) -> dict[str, Any]:
        """The JSON document: schema, the training, points, the warm-up, the cost."""
        return {
            "schema": SCHEMA,
            "workload": self.workload,
            "optimizer": self.optimizer,
            "hyperparameters": self.hyperparameters,
            "batch_size": self.batch_size,
            "examples": self.examples,
            "train_size": self.train_size,
            "rule": self.rule,
            "window": self.window,
            "tolerance": self.tolerance,
            "replicates": self.replicates,
            "seed": self.seed,
            "points": [
                {
                    "at": point.at,
                    "examples": point.examples,
                    "loss": point.loss,
                    "loss_after": point.loss_after,
                    "critical_batch_size": point.critical_batch_size.to_dict(),
                    "branches": [
                        {"factor": branch.factor, "batch_size": branch.factor * self.batch_size}
                        | {"excess": branch.excess.to_dict()}
                        for branch in point.branches
                    ],
                }
                for point in self.points
            ],
            "warm_up": self.warm_up.document(),
            "cost": {
                "at_most": self.cost.at_most,
                "trainings": self.cost.trainings,
                "seconds": self.cost.seconds,
            },
        }

    def to_json(self) -> str:
        """`document` as text."""
        return json.dumps(self.document(), indent=2, allow_nan=False)

    @property
    def warm_up_call(self) -> str:
        """The Python expression that makes the warm-up of a training at a constant rate, for generated code."""
        size = self.warm_up.train_size
        stages = {round(phase.epoch_start, 6): phase.batch_size for phase in self.warm_up.phases}
        rate = f"{self.warm_up.base_learning_rate:.12g}"
        lines = [f"{rate!r}", f"{stages!r}", f"train_size={size}", f"epochs={self.warm_up.epochs!r}"]
        lines += [f"rule={self.rule!r}", f"momentum={self.warm_up.base_momentum!r}"]
        return "\n".join(["staged_batch_schedule(", *(f"    {line}," for line in lines), ")"])


def warm_up(
    points: Sequence[BranchPoint],
    rate: Schedule,
    *,
    batch_size: int,
    examples: int,
    train_size: int | None,
    rule: ScalingRule,
    learning_rate: float,
    momentum: float,
) -> BatchSchedule:
    """The batch-size warm-up that follows from critical batch sizes over a training.

    1. The critical batch sizes are brought into order: the nearest that never fall, in squares of their logarithms,
       because noise alone can make one fall. Where none was found it is taken to be the largest that was tried.
    2. From every point on the batch size is the largest doubling of the training's that is not above its critical one;
       before the first point it is the training's.
    3. The rate moves with the batch size, by the rule.

    Args:
        points: Ascending.
        rate: The training's, in its steps.
        batch_size: Of the training.
        examples: Its length.
        train_size: Examples in an epoch; without epochs the whole training counts as one.
        rule: For the rate.
        learning_rate: Of the training.
        momentum: Of the training.
    """
    size = train_size or examples
    critical = [math.log2(_taken(point, batch_size) / batch_size) for point in points]
    stages = {0.0: batch_size}
    for point, doublings in zip(points, isotonic_regression(critical).x, strict=True):
        factor = 2 ** math.floor(max(float(doublings), 0.0) + _SLACK)
        stages[point.examples / size] = min(batch_size * factor, size)
    return staged_batch_schedule(
        rate,
        {epoch: held for epoch, held in stages.items() if epoch == 0 or held != _before(stages, epoch)},
        train_size=size,
        epochs=examples / size,
        rule=rule,
        learning_rate=learning_rate,
        momentum=momentum,
        unit="step",
    )


def _taken(point: BranchPoint, batch_size: int) -> float:
    found = point.critical_batch_size.value
    return found if found is not None else batch_size * float(point.branches[-1].factor)


def _before(stages: dict[float, int], epoch: float) -> int:
    return stages[max(other for other in stages if other < epoch)]
