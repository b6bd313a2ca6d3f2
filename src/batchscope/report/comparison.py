"""Several runs in one page: their curves laid over each other, and the answer of each."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
import polars as pl

from batchscope.amounts import bounds, count, number
from batchscope.analysis import Curve, compare, headline
from batchscope.report import analyses, charts, figures
from batchscope.report.markup import Cell, Chart, Section, Table, section
from batchscope.report.page import document
from batchscope.report.palette import NAMED
from batchscope.report.wording import escape, plain


def render(curves: Mapping[str, Curve], *, normalised: bool = False, first: str = "") -> str:
    """The page, as text to be written in UTF-8.

    Args:
        curves: By the name of a run its curve, all for one goal.
        normalised: Whether to show them relative to one batch size too.
        first: What to do, in a sentence, if that is known.

    With ``normalised``, runs without a batch size in common are an ``AnalysisError``.
    """
    goal = plain(next(iter(curves.values())).goal)
    shown: list[Chart] = [Chart(figure(curves), f"Steps to {goal} against batch size, of every run", "runs")]
    if normalised:
        both = analyses.chart(compare(dict(curves)), NAMED)
        shown.append(Chart(both, "The same relative to one batch size", "runs-normalised"))
    titles = ("Curves", "Relative to one batch size")[: len(shown)]
    cards = "".join(
        f'<article class="answer"><h2>{escape(name)}</h2><p class="do">{escape(found.sentence)}</p>'
        f'<p class="trust">{escape(found.trust)}</p></article>'
        for name, found in ((name, headline(curve)) for name, curve in curves.items())
    )
    lead = f'<p class="do">{escape(first)}</p>' if first else ""
    body = (
        f'<header><p class="eyebrow">Batchscope report</p><h1>{escape(" and ".join(curves))}</h1>'
        f'<p class="lead">{escape(goal)}</p>{lead}</header><main id="main"><div class="answers">{cards}</div>'
        f"{''.join(section(Section(title, [], [one])) for title, one in zip(titles, shown, strict=True))}"
        f"{section(Section('In numbers', [], [], [table(curves)]))}</main>"
        "<footer>Written by Batchscope. This file holds its own data and code and loads nothing.</footer>"
    )
    return document(" and ".join(curves), body, {"goal": goal, "runs": list(curves)}, False)


def figure(curves: Mapping[str, Curve]) -> go.Figure:
    """The curves laid over each other."""
    return charts.goals(list(curves.values()), NAMED, labels=list(curves), title="")


def table(curves: Mapping[str, Curve]) -> Table:
    """A row for every batch size that any run reached the goal at: steps and interval of each run."""
    tables = {name: figures.steps_to_result(curve) for name, curve in curves.items()}
    sizes = sorted({size for one in tables.values() for size in one["batch_size"]})
    rows = []
    for size in sizes:
        cells = [Cell(number(size), size)]
        for one in tables.values():
            row = next(iter(one.filter(pl.col("batch_size") == size).iter_rows(named=True)), {})
            value, low, high = (row.get(name) for name in ("shown", "shown_low", "shown_high"))
            cells += [Cell(count(value), value), Cell(bounds(low, high, count), low)]
        rows.append(cells)
    heads = [head for name in curves for head in (name, "interval")]
    return Table("Steps of every run", ["batch size", *heads], rows)
