"""The schedule that is compiled: any of its forms as a rate by epoch, cut into held and moving pieces."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from batchscope.errors import ScheduleError
from batchscope.schedules.batch_schedule import factor_after, factor_before
from batchscope.schedules.compose import Stretched
from batchscope.schedules.learning_rate import Schedule
from batchscope.schedules.rate_text import parse_learning_rate
from batchscope.schedules.torch_scheduler import read_torch_scheduler

Unit = Literal["epoch", "step"]


@dataclass(frozen=True)
class Piece:
    """A stretch of the original schedule between two of its knots, in epochs."""

    start: float
    end: float
    constant: bool


def in_epochs(
    lr_schedule: str | Schedule | LRScheduler,
    batch_size: int,
    train_size: int,
    epochs: float,
    learning_rate: float | None,
    unit: Unit | None,
) -> tuple[float, Schedule]:
    """The base rate, and the schedule in epochs.

    Raises:
        ScheduleError: If the schedule, its base rate and its unit do not go together.
    """
    if unit not in (*get_args(Unit), None):
        raise ScheduleError(f"unit must be one of {', '.join(get_args(Unit))}, got {unit!r}")
    steps_per_epoch = train_size / batch_size
    if isinstance(lr_schedule, Schedule):
        base, schedule, in_steps = (
            1.0 if learning_rate is None else learning_rate,
            lr_schedule,
            unit != "epoch",
        )
        if not 0 < base < math.inf:
            raise ScheduleError(f"learning_rate must be > 0, got {base}")
        return base, Stretched(schedule, 1 / steps_per_epoch) if in_steps else schedule
    if learning_rate is not None:
        raise ScheduleError(f"the schedule brings its own base rate: leave out learning_rate={learning_rate}")
    if isinstance(lr_schedule, str):
        if unit == "step":
            raise ScheduleError("a learning rate in words is in epochs: leave out unit='step'")
        return parse_learning_rate(lr_schedule, epochs)
    if unit == "step":
        base, sampled = read_torch_scheduler(lr_schedule, math.ceil(epochs * steps_per_epoch))
        return base, Stretched(sampled, 1 / steps_per_epoch)
    return read_torch_scheduler(lr_schedule, math.ceil(epochs))


def pieces(rate: Schedule, epochs: float) -> list[Piece]:
    """The training cut at the knots of the rate."""
    edges = [0.0, *sorted({knot for knot in rate.knots if 0 < knot < epochs}), epochs]
    return [Piece(start, end, _is_constant(rate, start, end)) for start, end in itertools.pairwise(edges)]


def _is_constant(rate: Schedule, start: float, end: float) -> bool:
    first = factor_after(rate, start)
    others = [factor_before(rate, end), *rate.factor(inside(start, end, 7)).tolist()]
    return all(math.isclose(first, other, rel_tol=1e-14) for other in others)


def inside(start: float, end: float, count: int = 4096) -> Tensor:
    """Points strictly between two epochs, evenly apart; the shape is (count,)."""
    return torch.linspace(start, end, count + 2, dtype=torch.float64)[1:-1]


def peak_of(rate: Schedule, row: list[Piece]) -> tuple[float, float]:
    """The largest factor, and the first epoch where it is reached.

    Raises:
        ScheduleError: If the rate is never above 0.
    """
    best = (-1.0, 0.0)
    for piece in row:
        points = [(factor_after(rate, piece.start), piece.start), (factor_before(rate, piece.end), piece.end)]
        if not piece.constant:
            epochs = inside(piece.start, piece.end)
            factors = rate.factor(epochs)
            at = int(factors.argmax())
            points.insert(1, (float(factors[at]), float(epochs[at])))
        for point in points:
            best = point if point[0] > best[0] else best
    if not 0 < best[0] < math.inf:
        raise ScheduleError(f"a learning rate that is never above 0 has no noise scale to keep, got {rate!r}")
    return best
