"""``batchscope probe``: what a workload's updates cost on a device, at each batch size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import batchscope
from batchscope.amounts import memory, number, parse_size, percent
from batchscope.cli.predict import sentence
from batchscope.cli.shared_options import AsJson, DataDir
from batchscope.cli.show import console, print_table, printable, say
from batchscope.errors import ProbeError, StudyError
from batchscope.spec.faults import explain
from batchscope.spec.prediction import Prediction
from batchscope.spec.study import Span, Study

if TYPE_CHECKING:
    from rich.console import Console

    from batchscope.probing.probe import Probing
    from batchscope.spec.probe import Probe, ProbedBatch, Spread


def probe(
    workload: Annotated[
        str,
        typer.Argument(
            metavar="WORKLOAD",
            help="A built-in name, path/to/file.py:function, or a study.yaml to update as in its trials.",
        ),
    ],
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="1,8,64 or from:to:factor.",
            show_default="of the study, or powers of two to 8192 or the training data",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seconds: Annotated[float, typer.Option(help="For timing each batch size.")] = 2.0,
    optimizer: Annotated[
        str | None, typer.Option(help="Whose update, as in a study.", show_default="of the study, or nesterov")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, or bfloat16 for autocast to it.", show_default="of the study, or float32"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU.", show_default="torch's choice")] = None,
    max_micro_batch: Annotated[
        int | None, typer.Option(min=1, help="The largest micro-batch to try.", show_default="what memory holds")
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="That updates may take, such as 2GiB.", show_default="what is available"),
    ] = None,
    prediction: Annotated[
        Path | None,
        typer.Option(help="What batchscope predict wrote: its critical batch size is shown too.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file for the JSON document.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure time per step, memory and the largest micro-batch of a workload at each batch size on this device."""
    sizes = None if batch_sizes is None else batch_sizes_of(batch_sizes)
    predicted = None if prediction is None else Prediction.from_json(prediction)
    most = None if max_memory is None else parse_size(max_memory)
    if output is not None and output.is_dir():
        raise typer.BadParameter(f"--output: {output} is a folder; name a file, such as {output / 'probe.json'}")
    if output is not None and not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"--output: there is no folder {output.absolute().parent}; make it, or name another")
    beside = console(stderr=True)
    with beside.status("loading the workload") as status:

        def show(progress: Probing) -> None:
            status.update(f"{progress.doing} batch size {number(progress.batch_size)}, {percent(progress.share)} done")

        found = batchscope.probe(
            Study.from_yaml(workload) if Path(workload).suffix in (".yaml", ".yml") else workload,
            batch_sizes=sizes,
            device=device,
            seconds=seconds,
            optimizer=optimizer,
            dtype=dtype,
            threads=threads,
            max_micro_batch=max_micro_batch,
            max_memory=most,
            data_dir=data_dir,
            on_progress=show,
        )
    if output is not None:
        try:
            output.write_text(found.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise ProbeError(
                f"cannot write {output}: {error.strerror}; what was measured:\n{found.to_json()}"
            ) from None
    if as_json:
        print(found.to_json())
    else:
        print_probe(console(), found)
        if predicted is not None:
            say(f"{predicted.workload}, {predicted.goal}: {sentence(predicted)}")
        if output is not None:
            say(f"wrote {output}")


def batch_sizes_of(text: str) -> list[int]:
    """``1,8,64`` or ``from:to:factor``, where the factor is 2 if it is left out.

    Raises:
        StudyError: If the text is neither.
    """
    try:
        if ":" not in text:
            return [int(part) for part in text.split(",")]
        start, stop, *factor = text.split(":")
        span = {"from": int(start), "to": int(stop), "factor": float(factor[0]) if factor else 2.0}
        if len(factor) > 1:
            raise ValueError
        return Span.model_validate(span).sizes()
    except ValidationError as error:
        raise StudyError(explain(error, Span, f"--batch-sizes {text}")) from None
    except ValueError:
        raise StudyError(f"--batch-sizes is a list as 1,8,64 or from:to:factor as 1:4096:2, got {text!r}") from None


def print_probe(to: Console, found: Probe) -> None:
    """The table, the fitted law, and where more batch no longer helps."""
    ranks = f" on each of {found.world_size} ranks" if found.world_size > 1 else ""
    to.print(
        f"{printable(found.workload)}: {number(found.parameters)} parameters, {found.optimizer}, {found.dtype}, "
        f"{found.device} ({printable(found.device_name)}), {found.threads} threads{ranks}"
    )
    if found.clip_gradient_norm is not None:
        to.print(f"  gradients clipped to a norm of {number(found.clip_gradient_norm)}")
    if found.average_weights is not None:
        to.print(f"  weights averaged, by {number(found.average_weights)}")
    print_table(to, _table(found))
    for batch in found.batches:
        for remark in (batch.reason, batch.note):
            if remark:
                to.print(Text(f"  batch size {batch.batch_size}: {printable(remark)}"))
    if found.saturation_batch_size is not None:
        to.print(f"  from batch size {number(found.saturation_batch_size)} on, more batch no longer helps this device")
    elif sum(batch.step is not None for batch in found.batches) > 1:
        to.print("  the largest batch size is the fastest per example: a larger one may help this device more")
    model = found.time_model
    if model is not None:
        to.print(
            f"  seconds of a step at batch size B: ({number(model.fixed, 3)}^s + ({number(model.per_example, 3)} B)^s)"
            f"^(1/s), s = {number(model.sharpness, 3)}, wrong by at most {percent(model.error)} where it was checked"
        )


def _table(found: Probe) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    titles = (
        "batch size",
        "micro batch",
        "accumulation",
        "ms a step",
        "quartiles",
        "with data",
        "examples/s",
        "peak memory",
    )
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for batch in found.batches:
        table.add_row(*_cells(batch))
    return table


def _cells(batch: ProbedBatch) -> list[str]:
    def milliseconds(spread: Spread | None) -> str:
        return "-" if spread is None else number(1000 * spread.median)

    quartiles = "-" if batch.step is None else f"{number(1000 * batch.step.low)} to {number(1000 * batch.step.high)}"
    return [
        number(batch.batch_size),
        number(batch.micro_batch_size),
        number(batch.accumulation_steps),
        milliseconds(batch.step),
        quartiles,
        milliseconds(batch.step_with_data),
        number(batch.examples_per_second),
        memory(batch.peak_bytes),
    ]
