"""Laying a batch-size schedule out in whole updates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from batchscope.errors import ScheduleError
from batchscope.schedules.batch_schedule import (
    BatchSchedule,
    Phase,
    factor_after,
    factor_before,
    lost_epochs,
    noise_scale,
)


@dataclass(frozen=True)
class Stretch:
    """A phase before it is laid out in updates; its rate is ``rate``, else ``ratio`` times the original."""

    epoch_start: float
    batch_size: int
    ratio: float
    rate: float | None = None


def lay_out(schedule: BatchSchedule, stretches: list[Stretch], momentum: float) -> BatchSchedule:
    """The schedule with its phases laid out in whole updates.

    Args:
        schedule: All but the phases.
        stretches: The first begins at epoch 0; ascending.
        momentum: Of every phase.

    Raises:
        ScheduleError: If not one batch fits.
    """
    size, end = schedule.train_size, schedule.epochs
    phases: list[Phase] = []
    examples = steps = 0
    for stretch, after in zip(stretches, [s.epoch_start for s in stretches[1:]] + [end], strict=True):
        epoch, batch = stretch.epoch_start, stretch.batch_size
        updates = math.floor((after * size - examples) / batch + 1e-9)
        if updates < 1:
            continue  # shorter than what is left of the batch before it: the next one begins here
        original = schedule.base_learning_rate * factor_after(schedule.rate, epoch)
        original_end = schedule.base_learning_rate * factor_before(schedule.rate, after)
        rate = original * stretch.ratio if stretch.rate is None else stretch.rate
        phases.append(
            Phase(
                epoch_start=epoch,
                epoch_end=after,
                example_start=examples,
                step_start=steps,
                updates=updates,
                batch_size=batch,
                learning_rate=rate,
                learning_rate_end=original_end * stretch.ratio if stretch.rate is None else rate,
                momentum=momentum,
                noise_scale=noise_scale(rate, batch, size, momentum, exact=schedule.exact),
                original_noise_scale=schedule.original_noise_scale(original),
                lost_epochs=lost_epochs(batch, size, momentum),
                rate_ratio=stretch.ratio,
                constant=stretch.rate is not None,
            )
        )
        examples, steps = examples + updates * batch, steps + updates
    if not phases:
        raise ScheduleError(
            f"{end:g} epochs of {size} examples hold no batch of {stretches[0].batch_size}: "
            "take a smaller batch or train longer"
        )
    # Where the last stretches are too short for a batch of theirs, the one before goes on to the end.
    last = phases[-1]
    phases[-1] = replace(last, updates=math.floor((end * size - last.example_start) / last.batch_size + 1e-9))
    ends = [phase.epoch_start for phase in phases[1:]] + [end]
    return replace(schedule, phases=tuple(replace(phase, epoch_end=e) for phase, e in zip(phases, ends, strict=True)))
