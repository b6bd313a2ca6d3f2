"""``batchscope branch``: the critical batch size over one training, and the batch-size warm-up that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import batchscope
from batchscope.amounts import number, percent
from batchscope.cli.shared_options import AsJson, DataDir
from batchscope.cli.show import console, say
from batchscope.cli.show_branches import in_words_of, print_branches
from batchscope.cli.training_options import (
    BatchSize,
    Device,
    Epochs,
    GoalText,
    LearningRate,
    Momentum,
    Optimizer,
    Output,
    Seed,
    Steps,
    Threads,
    TrainingSource,
    check_output,
    shares,
    write,
)

if TYPE_CHECKING:
    from batchscope.prediction.branching import Branching

FORMATS = ("megatron", "olmo", "lightning")


def branch(
    source: TrainingSource,
    at: Annotated[
        str, typer.Option("--at", metavar="LIST", help="Shares of the training to branch from.")
    ] = "0.05,0.1,0.3,0.6",
    batch_size: BatchSize = None,
    optimizer: Optimizer = None,
    learning_rate: LearningRate = None,
    momentum: Momentum = None,
    epochs: Epochs = None,
    steps: Steps = None,
    goal: GoalText = None,
    window: Annotated[
        float | None,
        typer.Option(help="Share of the training that a branch is trained for.", show_default="0.04, or more"),
    ] = None,
    largest_factor: Annotated[int, typer.Option(help="The most to multiply the batch size by.")] = 32,
    replicates: Annotated[int, typer.Option(help="Trainings, each with branches of its own.")] = 3,
    tolerance: Annotated[
        float, typer.Option(help="By which share of the loss a branch may end above the training.")
    ] = 0.01,
    rule: Annotated[
        str | None,
        typer.Option(
            help="How the rate moves with the batch size: linear, square_root or constant.",
            show_default="linear for SGD and momentum, square_root otherwise",
        ),
    ] = None,
    seed: Seed = None,
    device: Device = "auto",
    threads: Threads = None,
    data_dir: DataDir = None,
    output: Output = None,
    as_json: AsJson = False,
    output_format: Annotated[
        str | None, typer.Option("--format", help="The warm-up for another program: megatron, olmo or lightning.")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option(help="Tokens of an example, for megatron and olmo.", show_default=False)
    ] = None,
) -> None:
    """Find the critical batch size over one training, by branches, and the batch-size warm-up that follows from it."""
    if output_format not in (None, *FORMATS):
        raise typer.BadParameter(f"--format is {', '.join(FORMATS)}, got {output_format!r}")
    if as_json and output_format:
        raise typer.BadParameter("give --json or --format, not both")
    check_output(output)
    beside, told = console(stderr=True), False
    with beside.status("loading the workload") as status:

        def show(progress: Branching) -> None:
            nonlocal told
            if not told:
                beside.print(f"at most {number(progress.at_most, 2)} trainings")
                told = True
            status.update(
                f"at {percent(progress.at)} of the training, {number(progress.factor)} times the batch size; "
                f"{number(progress.trainings, 2)} trainings done"
            )

        found = batchscope.branch(
            source,
            at=shares(at),
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            epochs=epochs,
            steps=steps,
            goal=goal,
            window=window,
            largest_factor=largest_factor,
            replicates=replicates,
            tolerance=tolerance,
            rule=rule,
            seed=seed,
            device=device,
            threads=threads,
            data_dir=data_dir,
            on_progress=show,
        )
    if output is not None:
        write(output, found.to_json())
    if as_json:
        print(found.to_json())
    elif output_format is not None:
        print(in_words_of(found, output_format, sequence_length))
    else:
        print_branches(console(), found)
        if output is not None:
            say(f"wrote {output}")
