"""As a torch scheduler, and from one."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim import lr_scheduler as theirs

from batchscope.errors import ScheduleError
from batchscope.schedules import (
    Cosine,
    Exponential,
    ExponentialPolynomial,
    Linear,
    PiecewiseConstant,
    Ramp,
    Schedule,
    ScheduledLR,
)
from batchscope.schedules.torch_scheduler import read_torch_scheduler


def optimizer() -> SGD:
    """Two groups with rates of their own."""
    first: dict[str, Any] = {"params": [torch.nn.Parameter(torch.ones(3))]}
    second: dict[str, Any] = {"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.5}
    return SGD([first, second], lr=0.1, momentum=0.9)


def rates(opt: Optimizer, scheduler: theirs.LRScheduler, steps: int) -> list[list[float]]:
    seen = []
    for _ in range(steps):
        seen.append([float(group["lr"]) for group in opt.param_groups])
        opt.step()
        scheduler.step()
    return seen


TWINS: list[tuple[Schedule, Callable[[Optimizer], theirs.LRScheduler], int]] = [
    (Cosine(30), lambda o: theirs.CosineAnnealingLR(o, 30), 31),
    (Linear(30, 0.25), lambda o: theirs.LinearLR(o, 1.0, 0.25, 30), 40),
    (ExponentialPolynomial(30, 0.0, 2.0), lambda o: theirs.PolynomialLR(o, 30, 2.0), 40),
    (Exponential(30, 0.9**30), lambda o: theirs.ExponentialLR(o, 0.9), 31),
    (PiecewiseConstant((5, 20), (0.1, 0.01)), lambda o: theirs.MultiStepLR(o, [5, 20]), 40),
]


@pytest.mark.parametrize(("schedule", "make", "steps"), TWINS)
def test_equals_torch_where_torch_has_it(
    schedule: Schedule, make: Callable[[Optimizer], theirs.LRScheduler], steps: int
) -> None:
    ours, other = optimizer(), optimizer()
    got = torch.tensor(rates(ours, ScheduledLR(ours, schedule), steps), dtype=torch.float64)
    expected = torch.tensor(rates(other, make(other), steps), dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_a_checkpoint_in_the_middle_changes_nothing() -> None:
    schedule = Ramp(7) * Cosine(40, 0.1)
    opt = optimizer()
    whole = rates(opt, ScheduledLR(opt, schedule), 30)
    opt = optimizer()
    scheduler = ScheduledLR(opt, schedule)
    rates(opt, scheduler, 11)
    file = io.BytesIO()
    torch.save({"scheduler": scheduler.state_dict(), "optimizer": opt.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)  # nothing but plain values
    opt = optimizer()
    scheduler = ScheduledLR(opt, schedule)
    opt.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    assert rates(opt, scheduler, 19) == whole[11:]
    assert scheduler.schedule is schedule


SCHEDULERS: dict[str, Callable[[Optimizer], theirs.LRScheduler]] = {
    "cosine": lambda o: theirs.CosineAnnealingLR(o, 30),
    "restarts": lambda o: theirs.CosineAnnealingWarmRestarts(o, 10, 2),
    "multi step": lambda o: theirs.MultiStepLR(o, [5, 20]),
    "step": lambda o: theirs.StepLR(o, 4),
    "lambda": lambda o: theirs.LambdaLR(o, lambda step: 1 / (1 + step)),
    "one cycle": lambda o: theirs.OneCycleLR(o, [0.1, 0.5], 40, cycle_momentum=False),
    "cyclic": lambda o: theirs.CyclicLR(o, [0.01, 0.05], [0.1, 0.5], 5, cycle_momentum=False),
    "sequential": lambda o: theirs.SequentialLR(
        o, [theirs.LinearLR(o, 0.1, 1.0, 5), theirs.CosineAnnealingLR(o, 35)], [5]
    ),
    "chained": lambda o: theirs.ChainedScheduler([theirs.ConstantLR(o, 0.5, 4), theirs.ExponentialLR(o, 0.9)]),
    "ours": lambda o: ScheduledLR(o, Ramp(7) * Cosine(40, 0.1)),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_reads_what_the_scheduler_would_do_and_leaves_it_alone(name: str) -> None:
    opt = optimizer()
    scheduler = SCHEDULERS[name](opt)
    before: Any = copy.deepcopy([opt.state_dict(), opt.param_groups])
    position = str(scheduler.state_dict())
    base, sampled = read_torch_scheduler(scheduler, 40)
    assert str([opt.state_dict(), opt.param_groups]) == str(before)
    assert str(scheduler.state_dict()) == position
    expected = rates(opt, scheduler, 40)  # the original still runs from its beginning
    got = base * sampled.factor(torch.arange(40))
    torch.testing.assert_close(got, torch.tensor([row[0] for row in expected], dtype=torch.float64))


def test_no_weight_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = theirs.CosineAnnealingLR(optimizer(), 30)

    def refuse(self: object, memo: object) -> None:
        raise AssertionError("copied a parameter")

    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", refuse)
    read_torch_scheduler(scheduler, 5)


def test_held_values_are_told_from_moving_ones() -> None:
    opt = optimizer()
    warm = theirs.LinearLR(opt, 0.1, 1.0, 5)
    _, sampled = read_torch_scheduler(theirs.SequentialLR(opt, [warm, theirs.MultiStepLR(opt, [7])], [5]), 20)
    assert sampled.knots == (5.0, 12.0)  # the warm-up moves until 5, a held rate drops at 5 + 7


def test_what_has_no_schedule_is_refused() -> None:
    with pytest.raises(ScheduleError, match="follows a metric"):
        read_torch_scheduler(theirs.ReduceLROnPlateau(optimizer()), 5)
    with pytest.raises(ScheduleError, match="cycle_momentum=False"):
        read_torch_scheduler(theirs.OneCycleLR(optimizer(), 0.1, 40), 40)
    adam = Adam([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(ScheduleError, match="cycle_momentum=False"):
        read_torch_scheduler(theirs.OneCycleLR(adam, 0.1, 40), 40)
    opt = optimizer()
    with pytest.raises(ScheduleError, match="different schedules"):
        read_torch_scheduler(theirs.LambdaLR(opt, [lambda step: 1.0, lambda step: 0.9**step]), 5)
    scheduler = theirs.StepLR(opt, 4)
    opt.step()
    scheduler.step()
    with pytest.raises(ScheduleError, match="after 1 steps"):
        read_torch_scheduler(scheduler, 5)
