"""A small batch and rate at the start of a training that goes on with large ones (GZ20 section 3.2)."""

from __future__ import annotations

import math

from batchscope.errors import ScheduleError
from batchscope.schedules.batch_schedule import BatchSchedule
from batchscope.schedules.whole_updates import Stretch, lay_out


def with_first_epochs(
    schedule: BatchSchedule, *, batch_size: int, learning_rate: float, epochs: float = 1.0
) -> BatchSchedule:
    """``schedule`` with another batch size and learning rate for its first ``epochs``, then as it was.

    GZ20 section 3.2 trains one epoch at batch 512 and rate 0.005, then goes on at 8192 and 0.05, so that
    the first steps search a broader space. The noise scale of these epochs is meant to differ, and
    ``largest_noise_scale_departure`` tells by how much.

    Args:
        schedule: Any; ``compile_batch_schedule("0.05", 8192, ..., variant="decay")`` is a constant one.
        batch_size: Of the first epochs.
        learning_rate: Of the first epochs, held; in the unit of ``schedule.base_learning_rate``.
        epochs: How many.

    Raises:
        ScheduleError: If the batch size, rate or number of epochs does not fit the schedule.
    """
    if not 1 <= batch_size <= schedule.train_size:
        raise ScheduleError(f"batch_size must be between 1 and {schedule.train_size}, got {batch_size}")
    if not 0 < learning_rate < math.inf:
        raise ScheduleError(f"learning_rate must be > 0, got {learning_rate}")
    if not 0 < epochs < schedule.epochs:
        raise ScheduleError(f"the first epochs must be > 0 and fewer than the {schedule.epochs:g} of all, got {epochs}")
    rest = [
        Stretch(
            max(phase.epoch_start, epochs),
            phase.batch_size,
            phase.rate_ratio,
            phase.learning_rate if phase.constant else None,
        )
        for phase in schedule.phases
        if phase.epoch_end > epochs
    ]
    first = Stretch(0.0, batch_size, math.nan, learning_rate)
    return lay_out(schedule, [first, *rest], schedule.phases[0].momentum)
