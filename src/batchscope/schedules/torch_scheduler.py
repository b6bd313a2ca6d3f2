"""To and from ``torch.optim.lr_scheduler``: our schedules as one, and one of theirs as a schedule of ours."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from batchscope.errors import ScheduleError
from batchscope.schedules.learning_rate import Schedule


class ScheduledLR(LRScheduler):
    """A `Schedule` as a torch scheduler: every group's initial rate times the schedule's factor.

    The state holds the position only; the schedule is a value that the program states again.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, last_epoch: int = -1) -> None:
        """Begin at step 0, or go on from ``last_epoch`` as torch's own schedulers do."""
        self.schedule = schedule
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of every group at the present step."""
        factor = float(self.schedule.factor(self.last_epoch))
        return [rate * factor for rate in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The position, in plain numbers."""
        return {key: value for key, value in super().state_dict().items() if key != "schedule"}


@dataclass(frozen=True)
class Sampled(Schedule):
    """A schedule known at steps 0, 1, 2, ... only: each value until the next step, the last for ever."""

    values: tuple[float, ...]

    @property
    def knots(self) -> tuple[float, ...]:
        """Where a held value ends or begins; between two knots it is either held or changes at every step."""
        v = self.values
        held = [(i > 0 and v[i] == v[i - 1]) or (i + 1 < len(v) and v[i] == v[i + 1]) for i in range(len(v))]
        return tuple(float(i) for i in range(1, len(v)) if v[i] != v[i - 1] and (held[i] or held[i - 1]))

    def _at(self, t: Tensor) -> Tensor:
        step = torch.floor(t).long().clamp(0, len(self.values) - 1)
        return self._table.to(t)[step]

    @cached_property
    def _table(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float64)


def read_torch_scheduler(scheduler: LRScheduler, steps: int) -> tuple[float, Sampled]:
    """The base rate of a torch scheduler and its first ``steps`` values, read from a copy.

    The copy drives stand-in parameters, so that neither the scheduler nor its optimizer changes and no
    weight is copied. With several parameter groups the first one is read, and all must keep their
    proportions.

    Raises:
        ScheduleError: If the scheduler has been stepped, waits for a metric, moves the momentum too, or gives
            its groups different schedules.
    """
    name = type(scheduler).__name__
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ScheduleError(f"{name} follows a metric and has no schedule to compile: give a schedule of the step")
    if position := _position(scheduler):
        raise ScheduleError(
            f"a scheduler is compiled from its beginning, got {name} after {position} steps: make a new one"
        )
    stand_in = torch.optim.SGD(
        [
            {"params": [torch.zeros(())]}
            | {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
            for group in scheduler.optimizer.param_groups
        ]
    )
    twin = copy.deepcopy(scheduler, {id(scheduler.optimizer): stand_in})
    rates, momenta = [_rates(stand_in)], {_momentum(stand_in)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch asks for optimizer.step() first; nothing is trained here
        for _ in range(steps - 1):
            twin.step()
            rates.append(_rates(stand_in))
            momenta.add(_momentum(stand_in))
    if len(momenta) > 1:
        raise ScheduleError(
            f"{name} moves the momentum as well as the rate, which the noise scale cannot follow: "
            "pass cycle_momentum=False"
        )
    base = [group.get("initial_lr", group["lr"]) for group in stand_in.param_groups]
    factors = [[rate / float(start) for rate, start in zip(row, base, strict=True)] for row in rates]
    if any(not math.isclose(row[0], other, rel_tol=1e-9) for row in factors for other in row):
        raise ScheduleError(f"{name} gives its parameter groups different schedules: compile them one at a time")
    return float(base[0]), Sampled(tuple(row[0] for row in factors))


def _position(scheduler: LRScheduler) -> int:
    if hasattr(scheduler, "last_epoch"):
        return scheduler.last_epoch
    return max(_position(inner) for inner in vars(scheduler)["_schedulers"])  # a ChainedScheduler


def _rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def _momentum(optimizer: Optimizer) -> tuple[float, ...]:
    return tuple(
        float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0)) for group in optimizer.param_groups
    )
