"""A batch-size schedule in the words of other programs, and as a table.

Each form gives what its program can be told, and in comments what it cannot.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable

from rich import box
from rich.table import Table

from batchscope.amounts import number
from batchscope.errors import ScheduleError
from batchscope.schedules.batch_schedule import BatchSchedule, Phase
from batchscope.schedules.compiler import compile_batch_schedule

COLUMNS = ("epochs", "from\nupdate", "updates", "batch", "learning\nrate", "noise\nscale", "was", "epochs\nlost")


def rows(schedule: BatchSchedule) -> list[tuple[str, ...]]:
    """One row for each phase, under `COLUMNS`: what is trained, its noise scale and the original's there."""
    return [
        (
            f"{phase.epoch_start:g}-{phase.epoch_end:g}",
            number(phase.step_start),
            number(phase.updates),
            number(phase.batch_size),
            _rate(phase),
            number(phase.noise_scale, 5),
            number(phase.original_noise_scale, 5),
            number(phase.lost_epochs, 3),
        )
        for phase in schedule.phases
    ]


def table(schedule: BatchSchedule) -> Table:
    """`rows` for a terminal."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in COLUMNS:
        grid.add_column(column, justify="right", vertical="bottom", no_wrap=True)
    for row in rows(schedule):
        grid.add_row(*row)
    return grid


def summary(schedule: BatchSchedule) -> str:
    """The totals in a sentence each."""
    form = "eta (N/B - 1) / (1 - momentum)" if schedule.exact else "eta N / (B (1 - momentum))"
    return (
        f"{number(schedule.total_updates)} updates instead of {number(schedule.original_updates)}, "
        f"momentum {schedule.phases[0].momentum:g} (was {schedule.base_momentum:g}).\n"
        f"Noise scale {form}: off by {number(schedule.largest_noise_scale_departure, 2)} at most; "
        f"by {number(schedule.largest_exact_noise_scale_departure, 2)} with N/B - 1 for N/B."
    )


def megatron(schedule: BatchSchedule, sequence_length: int | None = None) -> str:
    """Megatron-LM's ``--step-batch-size-schedule``, and ``--rampup-batch-size`` where that can say it.

    Args:
        schedule: Any.
        sequence_length: Tokens of an example. Megatron-LM reads thresholds as tokens and divides by its
            ``--seq-length``; without it they are given in examples.
    """
    thresholds = " ".join(
        f"{phase.example_start * (sequence_length or 1)}:{phase.batch_size}" for phase in _batch_phases(schedule)
    )
    lines = [
        f'--step-batch-size-schedule "{thresholds}"',
        f"--train-samples {schedule.total_examples}",
    ]
    if sequence_length is None:
        lines.append("# thresholds are examples; Megatron-LM reads tokens: multiply by --seq-length")
    if ramp := _ramp(schedule):
        lines.append(f"# before --step-batch-size-schedule existed: {ramp}")
    return "\n".join([*lines, *_rate_comments(schedule, lambda phase: phase.learning_rate, "learning rate")])


def olmo(schedule: BatchSchedule, sequence_length: int | None = None) -> str:
    """OLMo-core's ``BatchSizeSchedulerCallback``, whose batch sizes are in tokens.

    Args:
        schedule: Batch sizes that are whole multiples or parts of each other, which the callback demands
            (``compile_batch_schedule(..., whole_factors=True)``).
        sequence_length: Tokens of an example; 1 unless given.

    Raises:
        ScheduleError: If a batch size is no whole multiple or part of the one before.
    """
    phases = _batch_phases(schedule)
    for before, after in itertools.pairwise(phases):
        if max(before.batch_size, after.batch_size) % min(before.batch_size, after.batch_size):
            raise ScheduleError(
                f"OLMo-core changes the batch size by whole factors only, got {before.batch_size} to "
                f"{after.batch_size}: compile with whole_factors=True"
            )
    tokens = sequence_length or 1
    sizes = ", ".join(str(phase.batch_size * tokens) for phase in phases)
    starts = ", ".join(f"Duration.tokens({phase.example_start * tokens})" for phase in phases)
    lines = [
        "from olmo_core.train import Duration",
        "from olmo_core.train.callbacks import BatchSizeSchedulerCallback",
        "",
        "batch_size_scheduler = BatchSizeSchedulerCallback(",
        f"    batch_sizes=[{sizes}],",
        f"    schedule=[{starts}],",
        ")",
    ]
    if sequence_length is None:
        lines.append("# counted in examples; OLMo-core counts tokens: multiply by the sequence length")
    first = schedule.phases[0]
    lines.append("# the callback multiplies the rate by sqrt(B / first B) itself; the scheduler must supply the rest")
    return "\n".join(
        lines
        + _rate_comments(
            schedule,
            lambda phase: phase.learning_rate / math.sqrt(phase.batch_size / first.batch_size),
            "rate before the callback's factor",
        )
    )


def lightning(schedule: BatchSchedule, call: str) -> str:
    """Code for Lightning: the data loader, the learning rate and the trainer's options.

    Args:
        schedule: Any.
        call: The Python expression that makes it, by a function of ``batchscope.schedules``.
    """
    momentum, function = schedule.phases[0].momentum, call.partition("(")[0]
    names = ", ".join(sorted(["ScheduledBatchSampler", function]))
    return _LIGHTNING.format(names=names, call=call, epochs=math.ceil(schedule.epochs), momentum=f"{momentum:g}")


def compile_call(lr_schedule: str, **options: object) -> str:
    """The Python expression of a compilation, for generated code."""
    defaults = {name: p.default for name, p in inspect.signature(compile_batch_schedule).parameters.items()}
    given = {name: value for name, value in options.items() if value != defaults[name]}
    arguments = [repr(lr_schedule), *(f"{name}={value!r}" for name, value in given.items())]
    return "\n".join(["compile_batch_schedule(", *(f"    {argument}," for argument in arguments), ")"])


_LIGHTNING = '''\
import lightning
from torch.utils.data import DataLoader

from batchscope.schedules import {names}

schedule = {call}


class ScheduledBatches(lightning.LightningDataModule):
    """Serves the training data at the batch sizes of the schedule."""

    def __init__(self, dataset, seed=0, **loader_options):
        super().__init__()
        self.dataset, self.seed, self.loader_options = dataset, seed, loader_options
        self.sampler = None

    def train_dataloader(self):
        if self.sampler is None:
            self.sampler = ScheduledBatchSampler(
                schedule, seed=self.seed, rank=self.trainer.global_rank, world_size=self.trainer.world_size
            )
        self.sampler.set_epoch(self.trainer.current_epoch)
        return DataLoader(self.dataset, batch_sampler=self.sampler, **self.loader_options)


class ScheduledLearningRate(lightning.Callback):
    """Sets the learning rate of every batch; leave out other schedulers."""

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        rate = schedule.learning_rate_at(trainer.datamodule.sampler.examples_before(batch_index))
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate


trainer = lightning.Trainer(
    max_epochs={epochs},
    callbacks=[ScheduledLearningRate()],
    use_distributed_sampler=False,  # the sampler gives every rank its share
    reload_dataloaders_every_n_epochs=1,  # epochs differ in length
)
# trainer.fit(module, datamodule=ScheduledBatches(dataset)), the optimizer with momentum {momentum}'''


def _rate(phase: Phase) -> str:
    if phase.learning_rate == phase.learning_rate_end:
        return f"{phase.learning_rate:g}"
    return f"{number(phase.learning_rate)} to {number(phase.learning_rate_end)}"


def _batch_phases(schedule: BatchSchedule) -> list[Phase]:
    """The first phase of every run of equal batch sizes."""
    phases = list(schedule.phases)
    return phases[:1] + [b for a, b in itertools.pairwise(phases) if a.batch_size != b.batch_size]


def _ramp(schedule: BatchSchedule) -> str | None:
    """Megatron's linear ramp: equal increments, each for the same number of examples."""
    phases = _batch_phases(schedule)
    increments = {b.batch_size - a.batch_size for a, b in itertools.pairwise(phases)}
    lengths = {b.example_start - a.example_start for a, b in itertools.pairwise(phases)}
    if len(increments) != 1 or len(lengths) != 1 or min(increments) < 0:
        return None
    first, last = phases[0], phases[-1]
    return (
        f"--rampup-batch-size {first.batch_size} {increments.pop()} {last.example_start} "
        f"--global-batch-size {last.batch_size}"
    )


def _rate_comments(schedule: BatchSchedule, rate: Callable[[Phase], float], name: str) -> list[str]:
    """The learning rates that the program's own scheduler has to give."""
    return [f"# momentum {schedule.phases[0].momentum:g}; {name} by update:"] + [
        f"#   from {phase.step_start} (example {phase.example_start}): {rate(phase):.12g}"
        + ("" if phase.constant else f", moving on to {number(phase.learning_rate_end)}")
        for phase in schedule.phases
    ]
