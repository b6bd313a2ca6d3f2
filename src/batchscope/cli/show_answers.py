"""What the analyses of a run found, as tables and sentences for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchscope.amounts import NOTHING, batch_size, bounds, count, number, percent
from batchscope.analysis import Headline, Refused, headline
from batchscope.analysis.curve import point_names
from batchscope.analysis.headline import LEADING
from batchscope.analysis.held_out import by_batch_size, in_words
from batchscope.analysis.regimes import OVERHEAD
from batchscope.cli.show import cell, print_table, printable

ALWAYS = 2  # hyperparameters that are shown however narrow the terminal

if TYPE_CHECKING:
    from batchscope.analysis import Answers, Curve, Interval


def interval(found: Interval) -> str:
    """A batch size with its interval; where only one side is known, that side."""
    ends = bounds(found.low, found.high, batch_size)
    if found.value is not None:
        return f"{batch_size(found.value)} ({ends})"
    return "not determined" if ends == NOTHING else ends


def curve_table(curve: Curve, *, width: int) -> Table:
    """One row for each batch size: within 60 columns what matters, behind it what fits."""
    rows = list(curve.table.iter_rows(named=True))
    low, high = ("tuned_low", "tuned_high") if curve.confirmed else ("low", "high")
    of = "trainings" if curve.confirmed else "interval"
    names = point_names(curve.table)
    names = [*(name for name in LEADING if name in names), *(name for name in names if name not in LEADING)]
    points = [(name.replace("_", "\n"), [cell(row[name]) for row in rows]) for name in names]
    # A verdict is on the fewest of the search: it does not speak against what was trained again.
    against = ("reason",) if curve.confirmed else ("reason", "verdict")
    marks = ["!" if row["steps"] is not None and any(map(row.get, against)) else "" for row in rows]
    columns = [
        ("batch\nsize", [number(row["batch_size"]) for row in rows]),
        ("steps" if curve.confirmed else "at least", [count(row[curve.quantity]) for row in rows]),
        (f"{percent(curve.level, 3)} of\n{of}", [bounds(row[low], row[high], count) for row in rows]),
        *points[:ALWAYS],
        *([("", marks)] if any(marks) else []),
    ]
    always = len(columns)
    columns += points[ALWAYS:]
    columns += [("fewest of\nthe search", [number(row["steps"]) for row in rows])] if curve.has_fewest else []
    columns.append(("reached", [f"{row['reached']}/{row['feasible']}" for row in rows]))
    table, room = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True), width
    shown: list[list[str]] = []
    for title, cells in columns:
        room -= max(map(len, (*title.split("\n"), *cells))) + 2
        if len(shown) < always or room >= 0:
            table.add_column(Text("\n".join(map(printable, title.split("\n")))), justify="right", no_wrap=True)
            shown.append(cells)
    for row in zip(*shown, strict=True):
        table.add_row(*map(Text, row))
    return table


def print_headline(to: Console, found: Headline, *, everything: bool = False) -> None:
    """The goal, what to do about it, why that can be believed, and the reservations that matter most, or all."""
    to.print(Text(printable(found.goal), style="bold"))
    to.print(Text(printable(found.sentence)))
    if found.trust:
        to.print(Text(printable(found.trust)))
    for caveat in (*found.caveats, *(found.further if everything else ())):
        to.print(Text(f"! {printable(caveat)}"))


def print_curve(to: Console, curve: Curve, *, everything: bool = False, overhead: float = OVERHEAD) -> int:
    """The answer, the table and the regimes; returns how many reservations were left out."""
    found = headline(curve)
    print_headline(to, found, everything=everything)
    if curve.table.get_column("steps").count():
        print_table(to, curve_table(curve, width=to.width))
        regimes = curve.regimes
        for title, end in (
            ("perfect scaling until", regimes.perfect_scaling_until),
            ("critical batch size", regimes.critical_batch_size),
            ("maximum useful batch size", regimes.maximum_useful_batch_size),
        ):
            to.print(f"{title:<27}{interval(end)}")
        if regimes.law is not None and (at := regimes.at_overhead(overhead)) is not None:
            law = regimes.law.law
            to.print(f"{f'{percent(overhead)} over linear scaling':<27}{interval(at)}")
            to.print(f"  of batch size {number(law.measured[0])}, by the law with sharpness {number(law.sharpness)}")
    return 0 if everything else len(found.further)


def print_answers(to: Console, answers: Answers, *, folded: str = "", overhead: float = OVERHEAD) -> None:
    """The answer of a goal with its curve; then what the other analyses found, or that they failed.

    Args:
        to: Where.
        answers: Of the goal.
        folded: The command that shows all; then only what matters most is shown here, and it is named.
        overhead: Of the critical batch size that is shown beside that of the two asymptotes.
    """
    if isinstance(refusal := answers.curve_or_refusal, Refused):
        to.print(f"{printable(str(answers.goal))} has no answer: {printable(refusal.reason)}")
        return
    left_out = print_curve(to, answers.curve, everything=not folded, overhead=overhead)
    if folded:
        reservations = f"{left_out} further reservation{'s' * (left_out != 1)} and " if left_out else ""
        for question, found in answers:
            if isinstance(found, Refused) and found.is_fault:
                to.print(Text(f"{question.name}: {printable(found.reason)}"))
        to.print(Text(f"{reservations}what else was analysed: {printable(folded)}"), soft_wrap=True)
        return
    for size, values in by_batch_size(answers.curve.test).items():
        to.print(Text(f"test examples, batch size {number(size)}: {printable(in_words(values, number))}"))
    refused = []
    for question, answer in answers:
        if not isinstance(answer, Refused):
            to.print(Text(f"{printable(answer.words.title)}: {printable(answer.words.found)}"))
        elif answer.is_fault:
            to.print(Text(f"{question.name}: {printable(answer.reason)}"))
        else:
            refused.append(question.name)
    if refused:
        to.print(f"not answered by this run (analyze --json says why): {', '.join(refused)}")


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
