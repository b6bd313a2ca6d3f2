"""Learning-rate schedules as frozen values: pure functions from the step to a multiple of the base rate.

Steps count from 0 and need not be whole. Every parameter, and the step, is a number or a tensor; all of them
broadcast, so parameters of shape (K,) give K trials their own schedule; all work under ``torch.func.vmap``.
Legend: t step, T decay steps, a decay factor (Sh19's alpha), d(t) the multiple of the base learning rate.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from batchscope.errors import ScheduleError

Number = float | Tensor


def holds(condition: bool | Tensor) -> bool:
    """Whether a check passes; a tensor whose values are not known yet (vmap, a compiled graph) passes."""
    if not isinstance(condition, Tensor):
        return condition
    if torch.compiler.is_compiling():
        return True
    try:
        return bool(condition.all())
    except RuntimeError:  # vmap's answer to a question about one value of a batch
        return True


def require_positive(owner: object, **values: Number) -> None:
    for name, value in values.items():
        if not holds((value > 0) & (value < math.inf)):
            raise ScheduleError(f"{type(owner).__name__} needs {name} > 0 and finite, got {name}={value}")


def require_not_negative(owner: object, **values: Number) -> None:
    for name, value in values.items():
        if not holds((value >= 0) & (value < math.inf)):
            raise ScheduleError(f"{type(owner).__name__} needs {name} >= 0 and finite, got {name}={value}")


def _require_rising(owner: object, steps: tuple[Number, ...], factors: tuple[Number, ...]) -> None:
    name = type(owner).__name__
    if len(steps) != len(factors) or not steps:
        raise ScheduleError(
            f"{name} needs one factor for every step and at least one of both, "
            f"got {len(steps)} steps and {len(factors)} factors"
        )
    for before, after in itertools.pairwise(steps):
        if not holds((after > before) & (after < math.inf)):
            raise ScheduleError(f"{name} needs steps that rise strictly, got {after} after {before}")
    for factor in factors:
        require_not_negative(owner, factors=factor)


def numbers(*values: Number) -> tuple[float, ...]:
    """Parameters as numbers, where a schedule must be the same for all trials."""
    for value in values:
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ScheduleError(f"one schedule for all needs one value a parameter, got shape {tuple(value.shape)}")
    return tuple(float(value) for value in values)


@dataclass(frozen=True)
class Schedule(ABC):
    """A multiple of the base learning rate for every step.

    Raises:
        ScheduleError: At birth, if a parameter has no meaning in the schedule's formula.
    """

    @final
    def factor(self, step: Number) -> Tensor:
        """d(t): the multiple of the base learning rate at 0-based ``step``.

        The shape is that of ``step`` and the parameters broadcast together. Whole-number steps and Python
        numbers are computed in float64; a floating-point tensor keeps its type.
        """
        if not isinstance(step, Tensor):
            step = torch.tensor(step, dtype=torch.float64)
        elif not step.is_floating_point():
            step = step.double()
        return self._at(step)

    @property
    @abstractmethod
    def knots(self) -> tuple[float, ...]:
        """The steps after 0 at which one piece of the formula ends and the next begins, ascending."""

    @abstractmethod
    def _at(self, t: Tensor) -> Tensor: ...

    def __mul__(self, other: Schedule) -> Schedule:
        """The product of two schedules, such as a warm-up times a decay."""
        return Product(self, other)


@dataclass(frozen=True)
class Constant(Schedule):
    """d(t) = 1 (Sh19 appendix C)."""

    @property
    def knots(self) -> tuple[float, ...]:
        """None: one piece."""
        return ()

    def _at(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class _Decay(Schedule, ABC):
    """From 1 at step 0 to ``decay_factor`` at ``decay_steps``, where it stays."""

    decay_steps: Number
    decay_factor: Number = 0.0

    def __post_init__(self) -> None:
        require_positive(self, decay_steps=self.decay_steps)
        require_not_negative(self, decay_factor=self.decay_factor)

    @property
    def knots(self) -> tuple[float, ...]:
        """Where the decay ends."""
        return numbers(self.decay_steps)

    def _done(self, t: Tensor) -> Tensor:
        return (t / self.decay_steps).clamp(0, 1)


@dataclass(frozen=True)
class Linear(_Decay):
    """d(t) = 1 - (1 - a) t/T (Sh19 appendix C)."""

    def _at(self, t: Tensor) -> Tensor:
        return _between(self._done(t), self.decay_factor)


@dataclass(frozen=True)
class Cosine(_Decay):
    """d(t) = a + (1 - a)/2 (1 + cos(pi t/T)) (Sh19 appendix C, from Loshchilov and Hutter 2017)."""

    def _at(self, t: Tensor) -> Tensor:
        return _between((1 - torch.cos(math.pi * self._done(t))) / 2, self.decay_factor)


@dataclass(frozen=True)
class ExponentialPolynomial(_Decay):
    """d(t) = a + (1 - a) (1 - t/T)^power, power > 0 (Sh19 appendix C, its lambda)."""

    power: Number = 1.0

    def __post_init__(self) -> None:
        """Check the power too."""
        _Decay.__post_init__(self)
        require_positive(self, power=self.power)

    def _at(self, t: Tensor) -> Tensor:
        return _between(1 - (1 - self._done(t)) ** self.power, self.decay_factor)


@dataclass(frozen=True)
class InverseExponentialPolynomial(_Decay):
    """d(t) = a / (a + (1 - a) (t/T)^power), a > 0, power > 0 (Sh19 appendix C, its lambda)."""

    decay_factor: Number = 0.01
    power: Number = 1.0

    def __post_init__(self) -> None:
        """Check that the factor is positive, and the power."""
        _Decay.__post_init__(self)
        require_positive(self, decay_factor=self.decay_factor, power=self.power)

    def _at(self, t: Tensor) -> Tensor:
        a = self.decay_factor
        return a / (a + (1 - a) * self._done(t) ** self.power)


@dataclass(frozen=True)
class Exponential(_Decay):
    """d(t) = a^(t/T), a > 0 (Sh19 appendix C)."""

    decay_factor: Number = 0.01

    def __post_init__(self) -> None:
        """Check that the factor is positive."""
        _Decay.__post_init__(self)
        require_positive(self, decay_factor=self.decay_factor)

    def _at(self, t: Tensor) -> Tensor:
        return self.decay_factor ** self._done(t)


def _between(done: Tensor, end: Number) -> Tensor:
    """From 1 to ``end``; both ends exact."""
    return (1 - done) + done * end


@dataclass(frozen=True)
class PiecewiseLinear(Schedule):
    """Lines through (steps[i], factors[i]), then the last factor (Sh19 appendix C); steps[0] is 0."""

    steps: tuple[Number, ...]
    factors: tuple[Number, ...]

    def __post_init__(self) -> None:
        """Check that the steps rise from 0."""
        object.__setattr__(self, "steps", tuple(self.steps))
        object.__setattr__(self, "factors", tuple(self.factors))
        _require_rising(self, self.steps, self.factors)
        if not holds(self.steps[0] == 0):
            raise ScheduleError(f"PiecewiseLinear needs steps that begin at 0, got {self.steps[0]}")

    @property
    def knots(self) -> tuple[float, ...]:
        """The given steps after 0."""
        return numbers(*self.steps[1:])

    def _at(self, t: Tensor) -> Tensor:
        value = torch.zeros_like(t) + self.factors[0]
        corners = list(zip(self.steps, self.factors, strict=True))
        for (left, start), (right, end) in itertools.pairwise(corners):
            value = torch.where(t >= left, start + (end - start) * ((t - left) / (right - left)), value)
        return torch.where(t >= self.steps[-1], self.factors[-1], value)


@dataclass(frozen=True)
class PiecewiseConstant(Schedule):
    """1 before steps[0], then factors[i] from steps[i] on.

    S18 section 5.1 (/5 at epochs 60, 120, 160), ML18 section 3.1 (/10 at 50% and 75% of training), Goyal 2017
    (/10 at epochs 30, 60, 80).
    """

    steps: tuple[Number, ...]
    factors: tuple[Number, ...]

    def __post_init__(self) -> None:
        """Check that the steps rise from above 0."""
        object.__setattr__(self, "steps", tuple(self.steps))
        object.__setattr__(self, "factors", tuple(self.factors))
        _require_rising(self, self.steps, self.factors)
        require_positive(self, steps=self.steps[0])

    @property
    def knots(self) -> tuple[float, ...]:
        """The steps of the drops."""
        return numbers(*self.steps)

    def _at(self, t: Tensor) -> Tensor:
        value = torch.ones_like(t)
        for step, factor in zip(self.steps, self.factors, strict=True):
            value = torch.where(t >= step, factor, value)
        return value


@dataclass(frozen=True)
class Product(Schedule):
    """Two schedules at once: d(t) = first(t) second(t)."""

    first: Schedule
    second: Schedule

    @property
    def knots(self) -> tuple[float, ...]:
        """The knots of both."""
        return tuple(sorted({*self.first.knots, *self.second.knots}))

    def _at(self, t: Tensor) -> Tensor:
        return self.first.factor(t) * self.second.factor(t)


LEARNING_RATE_SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "exponential_polynomial": ExponentialPolynomial,
    "inverse_exponential_polynomial": InverseExponentialPolynomial,
    "exponential": Exponential,
    "piecewise_linear": PiecewiseLinear,
    "piecewise_constant": PiecewiseConstant,
}
"""Study-file name -> schedule; parameters as in the class, times in steps (`Stretched` for other units)."""
