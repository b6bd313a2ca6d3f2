"""Numbers, sentences and estimates for a terminal; plain text where there is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from batchscope.amounts import counted, duration, memory, number, percent

if TYPE_CHECKING:
    from batchscope.runs import Estimate, Run
    from batchscope.spec.study import Study

# Where the output is no terminal there is no width to fit: lines are not folded.
PIPED_WIDTH = 200


def console(*, stderr: bool = False) -> Console:
    """A console that never folds the lines of a pipe and never interprets markup in data."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, indent=2, allow_nan=False))


def cell(value: object) -> str:
    """A value of a table, which may be a number, text of a file, or nothing."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return number(value)
    return printable(str(value))


def printable(text: str) -> str:
    """Text from data without control characters."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def say(text: str, *, stderr: bool = False) -> None:
    """A line that may quote files, on standard output or error: never folded, and nothing in it obeyed."""
    console(stderr=stderr).print(printable(text), soft_wrap=True)


def print_table(to: Console, table: Table) -> None:
    """A table; where the terminal is too narrow for it, a line for each cell of a row, so that nothing is cut."""
    needed = to.measure(table, options=to.options.update(width=1000))
    if (needed.maximum if any(column.no_wrap for column in table.columns) else needed.minimum) <= to.width:
        to.print(table)
        return
    if table.title:
        to.print(table.title)
    heads = [str(column.header).replace("\n", " ") for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        to.print()
        for head, shown in zip(heads, map(str, row), strict=True):
            if shown:
                to.print(f"{head}: {shown}".removeprefix(": ").replace("\n", ", "), soft_wrap=True)
    to.print()


def print_runs(documents: Mapping[str, str], comparison: Mapping[str, Any]) -> None:
    """One JSON document of many, given as JSON: a line for each run."""
    lines = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in documents.items())
    print(f'{{"schema": 1, "comparison": {json.dumps(comparison, allow_nan=False)}, "runs": {{\n{lines}\n}}}}')


def print_warnings(run: Run) -> None:
    """What was found damaged or lost, on standard error: it is missing from the curve."""
    for warning in run.warnings:
        say(f"warning: {warning}", stderr=True)


def print_notes(notes: Sequence[str]) -> None:
    """What is to be known of the workload, on standard error."""
    for note in notes:
        say(f"note: {note}", stderr=True)


def print_estimate(to: Console, study: Study, estimate: Estimate) -> None:
    """What a study would cost: a row for each batch size, then time and memory."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("batch size", "trials", "steps", "rungs", "evaluations", "program", "ms a step", "worst case"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in estimate.rows:
        program = f"{row.choice.program} x {row.choice.pack_size}"
        step = 1000 * row.train_seconds / (row.trainings * row.steps)
        worst = duration(row.train_seconds + row.evaluation_seconds)
        again = f" + {number(row.confirmations)}" if row.confirmations else ""
        counts = map(number, (row.steps, row.rungs, row.evaluations))
        table.add_row(number(row.batch_size), number(row.trials) + again, *counts, program, number(step, 3), worst)
    print_table(to, table)
    for size, reason in estimate.skipped.items():
        say(f"batch size {size} would be left out, because its updates fail: {reason}")
    evaluation = sum(row.evaluation_seconds for row in estimate.rows)
    share = evaluation / (evaluation + sum(row.train_seconds for row in estimate.rows))
    workers = f"{counted(estimate.workers, 'worker')} x {counted(estimate.threads, 'thread')}"
    longest = f"at most {duration(estimate.seconds)} on {workers}, {percent(share)} of it evaluation"
    again = ", and the best of them again with new seeds" if any(row.confirmations for row in estimate.rows) else ""
    longest += f", if all trials ran to the budget{again}"
    what = {"race": "; a race ends far earlier", "halving": "; halving drops most of them earlier"}.get(
        study.policy, ""
    )
    what += ", and most of its evaluations before all validation examples" if study.ends_evaluations_early else ""
    states = ", with states of waiting trials on disk" if estimate.on_disk else ""
    to.print(f"{longest}{what}. About {memory(estimate.memory_bytes)}{states}. Nothing was run.")
