"""Branches for a terminal, and their warm-up in the words of other programs."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from batchscope.amounts import batch_size as shown_size
from batchscope.amounts import bounds, duration, number, percent
from batchscope.cli.show import cell, print_table, printable
from batchscope.prediction.branches import Branches, BranchPoint
from batchscope.schedules import formats


def in_words_of(found: Branches, program: str, sequence_length: int | None) -> str:
    """The warm-up for Megatron-LM, OLMo-core or Lightning."""
    if program == "lightning":
        return formats.lightning(found.warm_up, found.warm_up_call)
    writer = formats.megatron if program == "megatron" else formats.olmo
    return writer(found.warm_up, sequence_length)


def print_branches(to: Console, found: Branches) -> None:
    """What was branched from, a row for each point, the warm-up, and what it cost."""
    setting = ", ".join(f"{name} {cell(value)}" for name, value in found.hyperparameters.items())
    to.print(
        f"{printable(found.workload)}: {found.optimizer}, {setting}, batch size {number(found.batch_size)}, "
        f"{number(found.examples)} examples"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("at", "examples", "loss", "critical batch size", "90% interval", "excess loss by batch size"):
        table.add_column(title, justify="right" if title != "excess loss by batch size" else "left")
    for point in found.points:
        table.add_row(*_cells(point, found.batch_size))
    print_table(to, table)
    plan = found.warm_up
    to.print("Batch-size warm-up:" if len(plan.phases) > 1 else "No larger batch size is as good: no warm-up follows.")
    if len(plan.phases) > 1:
        print_table(to, formats.table(plan))
    to.print(
        f"{number(plan.total_updates)} updates instead of {number(plan.original_updates)}. It cost "
        f"{number(found.cost.trainings, 2)} trainings (at most {number(found.cost.at_most, 2)}), "
        f"{duration(found.cost.seconds)}; {found.replicates} replicates, rate by the {found.rule} rule, a branch may "
        f"end {percent(found.tolerance)} above.",
        soft_wrap=True,
    )


def _cells(point: BranchPoint, batch_size: int) -> list[str]:
    critical, largest = point.critical_batch_size, batch_size * point.branches[-1].factor
    value = f"above {number(largest)}" if critical.value is None else shown_size(critical.value)
    excess = ", ".join(f"{number(batch_size * one.factor)}: {_signed(one.excess.value or 0)}" for one in point.branches)
    interval = bounds(critical.low, critical.high, shown_size)
    return [percent(point.at), number(point.examples), number(point.loss), value, interval, excess]


def _signed(share: float) -> str:
    return f"{'+' if share >= 0 else ''}{percent(share)}"
