"""Warm-ups, and schedules made of schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from batchscope.errors import ScheduleError
from batchscope.schedules.learning_rate import (
    Number,
    Schedule,
    holds,
    numbers,
    require_not_negative,
    require_positive,
)


@dataclass(frozen=True)
class Ramp(Schedule):
    """The form of all three warm-ups: linearly from ``start`` to 1 over the first ``steps``, then 1."""

    steps: Number
    start: Number = 0.0

    def __post_init__(self) -> None:
        """Check length and start."""
        require_positive(self, steps=self.steps)
        require_not_negative(self, start=self.start)

    @property
    def knots(self) -> tuple[float, ...]:
        """Where the warm-up ends."""
        return numbers(self.steps)

    def _at(self, t: Tensor) -> Tensor:
        done = (t / self.steps).clamp(0, 1)
        return self.start * (1 - done) + done


@dataclass(frozen=True)
class Then(Schedule):
    """``first`` until step ``at``, from there on ``second`` as if it began at step 0."""

    first: Schedule
    second: Schedule
    at: Number

    def __post_init__(self) -> None:
        """Check the change-over."""
        require_positive(self, at=self.at)

    @property
    def knots(self) -> tuple[float, ...]:
        """Those of the first up to the change-over, the change-over, those of the second."""
        at = float(self.at)
        return (
            *(knot for knot in self.first.knots if knot < at),
            at,
            *(at + knot for knot in self.second.knots),
        )

    def _at(self, t: Tensor) -> Tensor:
        return torch.where(t >= self.at, self.second.factor((t - self.at).clamp_min(0)), self.first.factor(t))


@dataclass(frozen=True)
class Stretched(Schedule):
    """A schedule written in another unit of time, ``steps_per_unit`` steps long, such as an epoch."""

    schedule: Schedule
    steps_per_unit: Number

    def __post_init__(self) -> None:
        """Check the unit."""
        require_positive(self, steps_per_unit=self.steps_per_unit)

    @property
    def knots(self) -> tuple[float, ...]:
        """The knots in steps."""
        return tuple(knot * float(self.steps_per_unit) for knot in self.schedule.knots)

    def _at(self, t: Tensor) -> Tensor:
        return self.schedule.factor(t / self.steps_per_unit)


def linear_warm_up(steps: Number, start: Number = 0.0) -> Ramp:
    """Linearly from ``start`` times the rate over the first ``steps``."""
    return Ramp(steps, start)


def goyal_warm_up(total_steps: Number) -> Ramp:
    """From 1/32 of the rate linearly over the first 5% of training (ML18 section 3.4, after Goyal 2017)."""
    return Ramp(0.05 * total_steps, 1 / 32)


def golmant_warm_up(steps: Number, scale: Number) -> Ramp:
    """From the base rate to ``scale`` times it over the first W epochs, here ``steps`` (G18 table 1).

    ``scale`` is the multiple of the base rate that the scaling rule asks for, such as B/B_0; the warm-up
    multiplies the scaled rate, so it begins at 1/``scale``.

    Raises:
        ScheduleError: If ``scale`` is below 1, where there is nothing to warm up to.
    """
    if not holds(scale >= 1):
        raise ScheduleError(
            f"a warm-up from the base rate needs scale >= 1, got {scale}: at smaller batches leave it out"
        )
    return Ramp(steps, 1 / scale)


WARM_UPS: dict[str, Callable[..., Ramp]] = {
    "linear": linear_warm_up,
    "goyal": goyal_warm_up,
    "golmant": golmant_warm_up,
}
"""Study-file name -> warm-up; ``warm_up * schedule`` composes it with any schedule."""
