"""``batchscope schedule``: a learning-rate schedule as a batch-size schedule."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from batchscope.cli.show import console, print_table
from batchscope.schedules import compile_batch_schedule, formats


def schedule(
    learning_rate: Annotated[
        str, typer.Option(help='"0.1, 0.02@60" (rate, then rate@epoch) or "cosine 0.1, warm_up=5".')
    ],
    epochs: Annotated[float, typer.Option(help="Length of the training.")],
    train_size: Annotated[int, typer.Option(help="Training examples.")],
    batch_size: Annotated[int, typer.Option(help="The batch size that the learning rate was made for.")],
    max_batch_size: Annotated[
        int | None, typer.Option(help="The largest batch size.", show_default="a tenth of the examples")
    ] = None,
    momentum: Annotated[float, typer.Option(help="Of the original schedule; Adam's beta1.")] = 0.9,
    variant: Annotated[
        str, typer.Option(help="increase: all drops become batch size; hybrid: the first; decay: none.")
    ] = "increase",
    granularity: Annotated[int, typer.Option(help="Batch sizes are multiples of it: micro batch x devices.")] = 1,
    learning_rate_factor: Annotated[float, typer.Option(help="Raise the rate, and the batch size with it.")] = 1.0,
    momentum_to: Annotated[
        float | None, typer.Option(help="Train with this momentum.", show_default="as it was")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Keep N/B - 1 (S18 equation 4) instead of N/B.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    output_format: Annotated[
        str | None, typer.Option("--format", help="For another program: megatron, olmo or lightning.")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option(help="Tokens of an example, for megatron and olmo.", show_default=False)
    ] = None,
) -> None:
    """Turn a falling learning rate into a rising batch size: the same learning curve in fewer updates."""
    if as_json and output_format:
        raise typer.BadParameter("give --json or --format, not both")
    if output_format not in (None, "megatron", "olmo", "lightning"):
        raise typer.BadParameter(f"--format is megatron, olmo or lightning, got {output_format!r}")
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "max_batch_size": max_batch_size,
        "train_size": train_size,
        "epochs": epochs,
        "momentum": momentum,
        "granularity": granularity,
        "variant": variant,
        "learning_rate_factor": learning_rate_factor,
        "momentum_to": momentum_to,
        "exact": exact,
        "whole_factors": output_format == "olmo",
    }
    compiled = compile_batch_schedule(learning_rate, **options)
    if as_json:
        typer.echo(compiled.to_json())
    elif output_format == "megatron":
        typer.echo(formats.megatron(compiled, sequence_length))
    elif output_format == "olmo":
        typer.echo(formats.olmo(compiled, sequence_length))
    elif output_format == "lightning":
        typer.echo(formats.lightning(compiled, formats.compile_call(learning_rate, **options)))
    else:
        to = console()
        print_table(to, formats.table(compiled))
        to.print(formats.summary(compiled), soft_wrap=True)
