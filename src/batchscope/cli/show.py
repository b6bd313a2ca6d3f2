"""Tables and sentences for a terminal; plain text where there is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchscope.analysis import Refused
from batchscope.analysis.held_out import by_batch_size, in_words

if TYPE_CHECKING:
    from batchscope.analysis import Answers, Curve, Interval
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


def number(value: object) -> str:
    """Four significant digits, whole numbers as they are, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return printable(str(value))


def printable(text: str) -> str:
    """Text from data without control characters."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def say(text: str, *, stderr: bool = False) -> None:
    """A line that may quote files, on standard output or error: never folded, and nothing in it obeyed."""
    console(stderr=stderr).print(printable(text), soft_wrap=True)


def interval(found: Interval) -> str:
    """A value with its interval."""
    if found.value is None and found.low is None and found.high is None:
        return "not determined"
    bounds = f"{number(found.low)} to {number(found.high)}"
    return f"{number(found.value)}   ({found.level:.0%} interval {bounds})"


def curve_table(curve: Curve, *, width: int) -> Table:
    """One row for each batch size; hyperparameters only where they fit."""
    table = Table(title=Text(printable(str(curve.goal))), title_justify="left", title_style="bold")
    columns = [("batch size", "batch_size"), ("steps", "steps"), ("90% interval", None), ("reached", None)]
    fixed = {"batch_size", "steps", "low", "high", "reached", "feasible", "trials"}
    points = [name for name in curve.table.columns if name in ("learning_rate", "momentum")]
    extra = [name for name in points if name not in fixed] if width >= 72 else []
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for name in extra:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for row in curve.table.iter_rows(named=True):
        bounds = f"{number(row['low'])} to {number(row['high'])}" if row["low"] is not None else "-"
        cells = [number(row["batch_size"]), number(row["steps"]), bounds, f"{row['reached']}/{row['feasible']}"]
        table.add_row(*map(Text, [*cells, *(number(row[name]) for name in extra)]))
    return table


def print_curve(to: Console, curve: Curve) -> None:
    """The table, the regimes, and what there is to say about them."""
    to.print(curve_table(curve, width=to.width))
    regimes = curve.regimes
    for title, found in (
        ("perfect scaling until", regimes.perfect_scaling_until),
        ("critical batch size", regimes.critical_batch_size),
        ("maximum useful batch size", regimes.maximum_useful_batch_size),
    ):
        to.print(f"  {title:<26}{interval(found)}")
    for row in curve.table.iter_rows(named=True):
        for remark in (row.get("reason"), row.get("verdict")):
            if remark and row["steps"] is not None:
                to.print(f"  batch size {row['batch_size']}: {printable(remark)}")
    for size, values in by_batch_size(curve.test).items():
        to.print(f"  test examples, batch size {number(size)}: {printable(in_words(values, number))}")
    for note in dict.fromkeys((*curve.notes, *regimes.notes)):
        if not note.endswith((": see reason", ": see verdict")):  # said above, at the point itself
            to.print(f"  note: {printable(note)}")


def print_answers(to: Console, answers: Answers) -> None:
    """The curve of a goal, and in a line each what the other analyses found, or that they failed."""
    if isinstance(refusal := answers.curve_or_refusal, Refused):
        to.print(f"{printable(str(answers.goal))} has no answer: {printable(refusal.reason)}")
        return
    print_curve(to, answers.curve)
    refused = []
    for question, answer in answers:
        if not isinstance(answer, Refused):
            to.print(f"  {printable(answer.words.title)}: {printable(answer.words.found)}")
        elif answer.is_fault:
            to.print(f"  {question.name}: {printable(answer.reason)}")
        else:
            refused.append(question.name)
    if refused:
        to.print(f"  not answered by this run (analyze --json says why): {', '.join(refused)}")


def lacking(answers: Sequence[Answers]) -> bool:
    """Whether a goal has no curve, or an analysis that was asked has failed, each of which has been shown."""
    return any(isinstance(one.curve_or_refusal, Refused) or one.faults for one in answers)


def overview(curves: Mapping[str, Sequence[Curve]]) -> Table:
    """One row for every goal of every run: the fewest steps, and where the regimes end."""
    table = Table()
    for title in ("run", "goal"):
        table.add_column(title, overflow="fold")
    for title in ("fewest steps", "at batch size", "perfect until", "critical", "useful until"):
        table.add_column(title, justify="right", no_wrap=True)
    for run, curve in ((run, curve) for run, some in curves.items() for curve in some):
        found = curve.regimes
        best = curve.table.drop_nulls("steps").sort("steps", "batch_size").head(1)
        fewest = best.select("steps", "batch_size").row(0) if best.height else (None, None)
        ends = (found.perfect_scaling_until, found.critical_batch_size, found.maximum_useful_batch_size)
        numbers = (*fewest, *(None if end.value is None else round(end.value) for end in ends))
        table.add_row(*map(Text, (printable(run), printable(str(curve.goal)), *map(number, numbers))))
    return table


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
        console(stderr=True).print(f"note: {printable(note)}")


def print_estimate(to: Console, study: Study, estimate: Estimate) -> None:
    """What a study would cost: a row for each batch size, then time and memory."""
    table = Table()
    for title in ("batch size", "trials", "steps", "rungs", "evaluations", "program", "ms a step", "worst case"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in estimate.rows:
        program = f"{row.choice.program} x {row.choice.pack_size}"
        step = 1000 * row.train_seconds / (row.trials * row.steps)
        worst = duration(row.train_seconds + row.evaluation_seconds)
        counts = (row.batch_size, row.trials, row.steps, row.rungs, row.evaluations)
        table.add_row(*map(number, counts), program, f"{step:.3f}", worst)
    to.print(table)
    for size, reason in estimate.skipped.items():
        to.print(printable(f"batch size {size} would be left out, because its updates fail: {reason}"))
    evaluation = sum(row.evaluation_seconds for row in estimate.rows)
    share = evaluation / (evaluation + sum(row.train_seconds for row in estimate.rows))
    workers = f"{estimate.workers} worker" + ("s" if estimate.workers != 1 else "") + f" x {estimate.threads} threads"
    to.print(
        f"at most {duration(estimate.seconds)} on {workers}, {share:.0%} of it evaluation, if all trials ran to the"
    )
    what = {"race": "; a race ends far earlier", "halving": "; halving drops most of them earlier"}.get(
        study.policy, ""
    )
    what += ", and most of its evaluations before all validation examples" if study.ends_evaluations_early else ""
    states = ", with states of waiting trials on disk" if estimate.on_disk else ""
    to.print(f"budget{what}. About {estimate.memory_bytes / 2**20:,.0f} MiB{states}. Nothing was run.")


def duration(seconds: float) -> str:
    """Two units at the most: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
