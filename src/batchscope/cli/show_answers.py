"""What the analyses of a run found, as tables and sentences for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchscope.amounts import batch_size, bounds, count, number, percent
from batchscope.analysis import Refused
from batchscope.analysis.held_out import by_batch_size, in_words
from batchscope.cli.show import cell, printable

if TYPE_CHECKING:
    from batchscope.analysis import Answers, Curve, Interval


def interval(found: Interval) -> str:
    """A value with its interval."""
    if found.value is None and found.low is None and found.high is None:
        return "not determined"
    return (
        f"{batch_size(found.value)}   ({percent(found.level, 3)} interval {bounds(found.low, found.high, batch_size)})"
    )


def curve_table(curve: Curve, *, width: int) -> Table:
    """One row for each batch size; hyperparameters only where they fit."""
    table = Table(title=Text(printable(str(curve.goal))), title_justify="left", title_style="bold")
    level = percent(curve.level, 3)
    promised = ["steps", f"{level} of trainings", "search"]
    titles = ["batch size", *(promised if curve.confirmed else ["at least", f"{level} interval"])]
    points = [name for name in curve.table.columns if name in ("learning_rate", "momentum")]
    extra = points if width >= 72 else []
    for title in (*titles, "reached", *(name.replace("_", " ") for name in extra)):
        table.add_column(title, justify="right", no_wrap=True)
    for row in curve.table.iter_rows(named=True):
        low, high = (row[f"tuned_{side}" if curve.confirmed else side] for side in ("low", "high"))
        cells = [number(row["batch_size"]), count(row[curve.quantity]), bounds(low, high, count)]
        cells += [count(row["steps"])] if curve.confirmed else []
        cells += [f"{row['reached']}/{row['feasible']}", *(cell(row[name]) for name in extra)]
        table.add_row(*map(Text, cells))
    return table


def print_curve(to: Console, curve: Curve) -> None:
    """The table, the regimes, and what there is to say about them."""
    to.print(curve_table(curve, width=to.width))
    if not curve.confirmed and curve.table.get_column("steps").count():
        to.print("  at least: the fewest of a search, which is lucky; confirm: {seeds: 5} in the study measures what a")
        to.print("  fresh training takes" + _behind(curve))
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


def _behind(curve: Curve) -> str:
    """How many times more the runners-up took, over all batch sizes."""
    both = curve.table.drop_nulls(["steps", "runners_up"])
    if both.is_empty():
        return ""
    ratio = float((both["runners_up"] / both["steps"]).log().mean())  # type: ignore[arg-type]
    return (
        f": up to about {number(math.exp(ratio), 2)} times as many, if only the seed is between it and its runners-up"
    )


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
        best = curve.table.drop_nulls(curve.quantity).sort(curve.quantity, "batch_size").head(1)
        fewest = best.select(curve.quantity, "batch_size").row(0) if best.height else (None, None)
        ends = (found.perfect_scaling_until, found.critical_batch_size, found.maximum_useful_batch_size)
        numbers = (count(fewest[0]), *map(batch_size, (fewest[1], *(end.value for end in ends))))
        table.add_row(*map(Text, (printable(run), printable(str(curve.goal)), *numbers)))
    return table
