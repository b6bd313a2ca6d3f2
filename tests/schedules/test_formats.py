"""The forms of other programs, run by their own rules."""

from __future__ import annotations

import io
import math
import re
import shlex
import sys
import types
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.utils.data import TensorDataset

from batchscope.errors import ScheduleError
from batchscope.schedules import BatchSchedule, compile_batch_schedule, formats

CIFAR = "0.1, 0.02@60, 0.004@120, 0.0008@160"


def cifar(**options: Any) -> BatchSchedule:
    return compile_batch_schedule(CIFAR, 128, 5120, train_size=50_000, epochs=200, **options)


def arguments(text: str) -> list[str]:
    return shlex.split(text, comments=True)


def run(batch_size_at: Any, total: int) -> list[tuple[int, int]]:
    """A program that asks for the batch size of every update by the examples consumed."""
    updates, consumed = [], 0
    while consumed < total:
        updates.append((consumed, batch_size_at(consumed)))
        consumed += updates[-1][1]
    return updates


@pytest.mark.parametrize("length", [None, 2048])
def test_megatron_runs_the_same_updates(length: int | None) -> None:
    schedule = cifar()
    given = arguments(formats.megatron(schedule, length))
    assert given[0] == "--step-batch-size-schedule"
    steps = [tuple(map(int, entry.split(":"))) for entry in given[1].split()]
    assert steps[0][0] == 0

    def batch_size_at(consumed: int) -> int:  # of the last threshold, in samples, that is not above
        return [size for threshold, size in steps if threshold // (length or 1) <= consumed][-1]

    assert given[2] == "--train-samples"
    assert run(batch_size_at, int(given[3])) == list(schedule.updates())


def test_megatron_ramp_where_the_batches_are_evenly_spaced() -> None:
    schedule = compile_batch_schedule("0.6, 0.3@10, 0.2@20, 0.15@30", 100, train_size=6000, epochs=60)
    text = formats.megatron(schedule)
    ramp = re.search(r"--rampup-batch-size (\d+) (\d+) (\d+) --global-batch-size (\d+)", text)
    assert ramp is not None
    start, increment, samples, last = map(int, ramp.groups())
    assert (start, increment, samples, last) == (100, 100, 180_000, 400)

    def batch_size_at(consumed: int) -> int:  # Megatron's rule: equal shares of the samples for each increment
        share = samples / ((last - start) // increment)
        return last if consumed > samples else start + int(consumed / share) * increment

    assert run(batch_size_at, schedule.total_examples) == list(schedule.updates())
    assert "--rampup" not in formats.megatron(cifar())


def test_olmo_gets_whole_factors_tokens_and_what_its_square_root_leaves() -> None:
    schedule = cifar(whole_factors=True)
    made: dict[str, Any] = {}
    callback = types.ModuleType("olmo_core.train.callbacks")
    train = types.ModuleType("olmo_core.train")
    callback.BatchSizeSchedulerCallback = lambda **given: made.update(given)  # type: ignore[attr-defined]
    train.Duration = types.SimpleNamespace(tokens=int)  # type: ignore[attr-defined]
    text = formats.olmo(schedule, 1024)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "olmo_core", types.ModuleType("olmo_core"))
        patch.setitem(sys.modules, "olmo_core.train", train)
        patch.setitem(sys.modules, "olmo_core.train.callbacks", callback)
        exec(text, {})
    sizes: list[int] = made["batch_sizes"]
    starts: list[int] = made["schedule"]
    assert sizes == [128 * 1024, 640 * 1024, 3200 * 1024]
    assert all(b % a == 0 for a, b in zip(sizes, sizes[1:], strict=False))

    def batch_size_at(consumed: int) -> int:
        return [size for size, start in zip(sizes, starts, strict=True) if start <= consumed * 1024][-1] // 1024

    assert run(batch_size_at, schedule.total_examples) == list(schedule.updates())
    left = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("#   from")]
    for rate, phase in zip(left, schedule.phases, strict=True):
        assert rate * math.sqrt(phase.batch_size / 128) == pytest.approx(phase.learning_rate)
    with pytest.raises(ScheduleError, match="3200 to 5120: compile with whole_factors=True"):
        formats.olmo(cifar())


def test_lightning_code_serves_the_schedule() -> None:
    """The generated code, run by a stand-in for Lightning's trainer loop."""
    options: dict[str, Any] = {"batch_size": 32, "max_batch_size": 300, "train_size": 1000, "epochs": 6}
    schedule = compile_batch_schedule("0.1, 0.02@2, 0.004@4", **options)
    code = formats.lightning(schedule, formats.compile_call("0.1, 0.02@2, 0.004@4", **options, growth=2.0))
    assert "growth" not in code  # a default need not be said
    lightning = types.ModuleType("lightning")
    made: dict[str, Any] = {}
    lightning.LightningDataModule = lightning.Callback = object  # type: ignore[attr-defined]
    lightning.Trainer = lambda **given: made.update(given)  # type: ignore[attr-defined]
    scope: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "lightning", lightning)
        exec(code, scope)
    assert made["max_epochs"] == 6
    assert made["use_distributed_sampler"] is False
    assert made["reload_dataloaders_every_n_epochs"] == 1
    optimizer = torch.optim.SGD([torch.ones(1)], lr=9.0)
    module = scope["ScheduledBatches"](TensorDataset(torch.arange(1000)))
    trainer = types.SimpleNamespace(global_rank=0, world_size=1, datamodule=module, optimizers=[optimizer])
    module.trainer = trainer
    seen = []
    for trainer.current_epoch in range(made["max_epochs"]):
        for index, batch in enumerate(module.train_dataloader()):
            made["callbacks"][0].on_train_batch_start(trainer, None, batch, index)
            seen.append((len(batch[0]), optimizer.param_groups[0]["lr"]))
    assert seen == [(size, schedule.learning_rate_at(examples)) for examples, size in schedule.updates()]


def test_the_table_says_what_the_phases_say() -> None:
    schedule = cifar()
    rows = formats.rows(schedule)
    assert rows[1] == ("60-120", "23,437", "4,687", "640", "0.1", "78.125", "78.125", "0.128")
    assert rows[3] == ("160-200", "28,749", "390", "5,120", "0.032", "3.125", "3.125", "1.02")
    shown = Console(file=io.StringIO(), width=200)
    shown.print(formats.table(schedule))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    for cell in (*" ".join(formats.COLUMNS).split(), *sum(rows, ())):
        assert cell in text
    assert "29,139 updates instead of 78,125" in formats.summary(schedule)
