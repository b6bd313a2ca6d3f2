"""A batch-size schedule that says itself where the batch size changes, as a batch-size warm-up does."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch.optim.lr_scheduler import LRScheduler

from batchscope.errors import ScheduleError
from batchscope.schedules.batch_schedule import BatchSchedule, factor_after
from batchscope.schedules.learning_rate import Schedule
from batchscope.schedules.original import Unit, in_epochs, pieces
from batchscope.schedules.table import SCALING_RULES, ScalingRule
from batchscope.schedules.whole_updates import Stretch, lay_out


def staged_batch_schedule(
    lr_schedule: str | Schedule | LRScheduler,
    batch_sizes: Mapping[float, int],
    *,
    train_size: int,
    epochs: float,
    rule: ScalingRule = "linear",
    learning_rate: float | None = None,
    momentum: float = 0.9,
    unit: Unit | None = None,
) -> BatchSchedule:
    """A training whose batch size changes at given epochs, and whose learning rate moves with it by a scaling rule.

    The "batch size warm-up" of Merrill et al. (2025), for instance: ``{0: 16, 0.5: 32, 2: 64}`` doubles it after half
    an epoch and again after two. Only the rate moves: momentum, Adam's averages and their state stay what they are.

    Args:
        lr_schedule: Of the first batch size: a text, a `Schedule`, or a torch scheduler at its beginning.
        batch_sizes: Epoch -> batch size from there on; epoch 0 is needed.
        train_size: N, in examples.
        epochs: Length of the training.
        rule: What multiplies the rate, by the factor k to the first batch size: k, sqrt(k), or nothing.
        learning_rate: The base rate of a `Schedule`; 1 unless given. Texts and torch schedulers bring their own.
        momentum: gamma throughout; Adam's beta1.
        unit: Of `lr_schedule`, "epoch" or "step" of the first batch size; as `compile_batch_schedule` takes it.

    Raises:
        ScheduleError: If an epoch or a batch size is out of range, or the schedule cannot be read.
    """
    if rule not in SCALING_RULES:
        raise ScheduleError(f"a scaling rule is one of {', '.join(SCALING_RULES)}, got {rule!r}")
    if 0 not in batch_sizes:
        raise ScheduleError(
            f"batch_sizes must say the batch size at epoch 0, got {dict(batch_sizes)}: {{0: 16, 2: 32}}"
        )
    if train_size < 1 or not 0 < epochs < math.inf:
        raise ScheduleError(f"train_size must be at least 1 and epochs > 0, got {train_size} and {epochs}")
    for epoch, size in batch_sizes.items():
        if not 0 <= epoch < epochs:
            raise ScheduleError(f"the batch size changes at an epoch from 0 to below {epochs:g}, got {epoch:g}")
        if not 1 <= size <= train_size:
            raise ScheduleError(f"a batch size must be between 1 and {train_size}, got {size}")
    first = batch_sizes[0]
    base, rate = in_epochs(lr_schedule, first, train_size, epochs, learning_rate, unit)
    changes, held = sorted(batch_sizes), pieces(rate, epochs)
    stretches = []
    for epoch in sorted({*changes, *(piece.start for piece in held)}):
        size = batch_sizes[max(change for change in changes if change <= epoch)]
        ratio = (size / first) ** SCALING_RULES[rule]
        constant = next(piece.constant for piece in reversed(held) if piece.start <= epoch)
        stretches.append(Stretch(epoch, size, ratio, base * factor_after(rate, epoch) * ratio if constant else None))
    plan = BatchSchedule(train_size, epochs, first, base, momentum, rate, ())
    return lay_out(plan, stretches, momentum)
