"""``batchscope predict``: what one training to its goal says of other batch sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

import batchscope
from batchscope.amounts import batch_size as shown_size
from batchscope.amounts import bounds, duration, number
from batchscope.cli.shared_options import AsJson, DataDir
from batchscope.cli.show import cell, console, print_table, printable, say
from batchscope.cli.training_options import (
    BatchSize,
    Device,
    Momentum,
    Optimizer,
    Output,
    Seed,
    Steps,
    Threads,
    TrainingSource,
    check_output,
    write,
)

if TYPE_CHECKING:
    from rich.console import Console

    from batchscope.spec.prediction import Prediction

# A training that tries four rates, the noise at eight checkpoints, and branches are seldom more.
TOLD = "one training to the goal, or four rates of it, then measurements along it and branches from it"


def predict(
    source: TrainingSource,
    goal: Annotated[
        str | None, typer.Option("--goal", help="To be reached.", show_default="of a study or a run, its first")
    ] = None,
    batch_size: BatchSize = None,
    optimizer: Optimizer = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the training.", show_default="the best of four")
    ] = None,
    momentum: Momentum = None,
    epochs: Annotated[float | None, typer.Option(help="The most to train for.", show_default="20")] = None,
    steps: Steps = None,
    branches: Annotated[bool, typer.Option("--branches/--no-branches", help="Branch from the training too.")] = True,
    seed: Seed = None,
    device: Device = "auto",
    threads: Threads = None,
    data_dir: DataDir = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Predict the critical batch size and the steps of other batch sizes from one training, with its track record."""
    check_output(output)
    beside = console(stderr=True)
    beside.print(f"it takes {TOLD if branches else TOLD.removesuffix(' and branches from it')}")
    with beside.status("loading the workload") as status:
        found = batchscope.predict(
            source,
            goal=goal,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            epochs=epochs,
            steps=steps,
            branches=branches,
            seed=seed,
            device=device,
            threads=threads,
            data_dir=data_dir,
            on_progress=status.update,
        )
    if output is not None:
        write(output, found.to_json())
    if as_json:
        print(found.to_json())
    else:
        print_prediction(console(), found)
        if output is not None:
            say(f"wrote {output}")


def print_prediction(to: Console, found: Prediction) -> None:
    """The critical batch size with its record, every method's answer, the curve, and what it cost."""
    setting = ", ".join(f"{name} {cell(value)}" for name, value in found.hyperparameters.items())
    to.print(
        f"{printable(found.workload)}, {printable(found.goal)}: {number(found.steps)} steps at batch size "
        f"{number(found.batch_size)} with {found.optimizer}, {setting}",
        soft_wrap=True,
    )
    to.print(sentence(found), soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("method", "as measured", "90% interval"):
        table.add_column(title, justify="left" if title == "method" else "right")
    for name, answer in found.by.items():
        one = answer.critical_batch_size
        words = ("-", printable(answer.reason)) if one is None else (shown_size(one.value), _bounds(one.low, one.high))
        table.add_row(name.replace("_", " "), *words)
    print_table(to, table)
    curve = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("batch size", "steps", "90% interval"):
        curve.add_column(title, justify="right", no_wrap=True)
    for point in found.curve:
        curve.add_row(number(point.batch_size), number(point.steps.value, 3), _steps(point.steps.low, point.steps.high))
    print_table(to, curve)
    to.print(f"It cost {number(found.cost.trainings, 3)} trainings to the goal, {duration(found.cost.seconds)}.")


def sentence(found: Prediction) -> str:
    """The critical batch size, and how good such predictions have been."""
    critical, record = found.critical_batch_size, found.record
    return (
        f"Predicted critical batch size {shown_size(critical.value)} ({_bounds(critical.low, critical.high)}), by "
        f"{found.method.replace('_', ' ')}. Where it was scored, on {record.trainings} trainings, such intervals held "
        f"the measured one {record.held} times; they are widened {number(record.widened, 2)} times for that, and "
        f"values multiplied by {number(record.ratio, 2)}."
    )


def _bounds(low: float | None, high: float | None) -> str:
    return bounds(low, high, shown_size)


def _steps(low: float | None, high: float | None) -> str:
    return bounds(low, high, lambda value: number(value, 3))
