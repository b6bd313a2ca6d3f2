"""What the page shows of each goal: its curve, its best points, its search space; and all goals together."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from batchscope.analysis import Curve
from batchscope.analysis.outcomes import PREFIX, Outcomes
from batchscope.report import charts, figures, page_tables, picture, tuning
from batchscope.report.markup import Chart, Section, chart, folded, section, table
from batchscope.report.palette import NAMED
from batchscope.report.wording import escape, name, plain

_CONTOURS = '<li><span class="line"></span>equal effective learning rate, ten times as large from line to line</li>'
_KEY = (
    '<ul class="key"><li><i style="color:var(--best)">★</i>best</li>'
    '<li>reached the goal, steps 1× <span class="scale"></span> 3× the fewest or more</li>'
    '<li><i style="color:var(--muted)">○</i>feasible, goal not reached</li>'
    '<li><i style="color:var(--infeasible)">×</i>infeasible: diverged</li>{}</ul>'
)


def panel(
    index: int,
    curve: Curve,
    trials: pl.DataFrame,
    measurements: pl.LazyFrame | pl.DataFrame,
    known: Outcomes | None = None,
) -> str:
    """Everything about one goal, the ``index``-th; ``known`` is what became of the trials, if that is known already."""
    goal = plain(curve.goal)
    space = figures.search_space(curve, trials, measurements, known)
    ends = not figures.regimes(curve).is_empty()
    shown = Chart(
        charts.steps_to_result(curve, NAMED),
        f"Steps to {goal} against batch size, both in logarithms. The table below has the numbers.",
        f"steps-to-result-{index}",
        "Hover for exact numbers, drag to zoom, double click to zoom out, click a name in the legend to hide it."
        + (
            " Below the curve: the ends of the regimes with their intervals; a triangle is an open side."
            if ends
            else ""
        ),
    )
    return (
        f'<div class="panel" data-of="goal-{index}"><section><h2>Steps to {escape(goal)}</h2>{chart(shown)}'
        f'<noscript><div class="still">{picture.steps_to_result([curve], title=f"Steps to {goal}")}</div></noscript>'
        f"{table(page_tables.curve(curve, figures.ordered(space)))}</section>"
        f"{_best(index, curve, space)}{_learning(index, curve, space, measurements)}{_space(index, curve, space)}</div>"
    )


def _best(index: int, curve: Curve, space: pl.DataFrame) -> str:
    points = figures.best_points(space)
    shown = [
        Chart(
            tuning.best_point(points, column, NAMED),
            f"The best {name(column.removeprefix(PREFIX))} for {plain(curve.goal)} against batch size",
            f"best-{index}-{position}",
        )
        for position, column in enumerate(points["hyperparameter"].unique(maintain_order=True), 1)
    ]
    text = (
        f"The setting {'that new seeds chose' if curve.confirmed else 'of the fewest steps'}, at every batch size. "
        "Whiskers span it and the trials of the search within 10% of the fewest steps. Dashed: in proportion to the "
        "batch size; dotted: to its square root; both from the smallest batch size."
    )
    if figures.EFFECTIVE in space.columns:
        text += (
            " The effective learning rate is learning rate / (1 − momentum); the momentum is laid out, and scaled, as "
            "1 / (1 − momentum)."
        )
    return section(Section("Best hyperparameters", [text], shown)) if shown else ""


def _learning(index: int, curve: Curve, space: pl.DataFrame, measurements: pl.LazyFrame | pl.DataFrame) -> str:
    table = figures.learning_curves(space, measurements, curve.goal.metric)
    if table.is_empty():
        return ""
    metric = plain(curve.goal.metric)
    shown = Chart(
        charts.learning_curves(table, curve.goal, NAMED),
        f"{metric} against steps at the setting of every batch size",
        f"learning-curves-{index}",
    )
    text = (
        f"How {metric} fell, or rose, at the setting of every batch size as it was trained in the search; the dashed "
        "line is the goal. Evaluations that ended early, because the goal was out of reach, are left out."
    )
    return section(Section("Learning curves", [text], [shown], folded=True))


def _space(index: int, curve: Curve, space: pl.DataFrame) -> str:
    columns = [column for column in figures.ordered(space) if column != figures.EFFECTIVE]
    if not columns or space.is_empty():
        return ""
    x, *others = columns
    metric = plain(curve.goal.metric)
    ups = [*others, *(["best_metric"] if space["best_metric"].count() else [])]
    views = []
    for column in ups:
        label = f"best {metric}" if column == "best_metric" else name(plain(column.removeprefix(PREFIX)))
        panels = "".join(
            chart(
                Chart(
                    tuning.search_space(space, size, x, column, metric, NAMED),
                    f"Trials at batch size {size}: {name(plain(x.removeprefix(PREFIX)))} and {label}",
                    f"search-space-{index}-batch-size-{size}",
                )
            )
            for size in sorted(set(space["batch_size"]))
        )
        views.append((label, panels))
    options = "".join(f'<option value="view-{i}">{escape(label)}</option>' for i, (label, _) in enumerate(views))
    grids = "".join(
        f'<div class="grid small view" data-of="view-{i}">{panels}</div>' for i, (_, panels) in enumerate(views)
    )
    choice = f'<p class="views"><label>Upward axis <select>{options}</select></label></p>' if len(views) > 1 else ""
    return folded(
        "<h2>Search space</h2>",
        "<p>Every trial of the search, at every batch size on the same axes. A best "
        "point near an edge, or near the trials that diverged, is worth checking.</p>"
        f"{_KEY.format(_CONTOURS if figures.MOMENTUM in ups else '')}{choice}{grids}",
    )


def all_goals(curves: Sequence[Curve]) -> str:
    """The curves of all goals that were reached in one chart, and their speedups in another."""
    curves = [curve for curve in curves if figures.reached(curve)]
    if len(curves) < 2:
        return ""
    shown = "".join(
        chart(Chart(charts.goals(curves, NAMED, speedup=speedup), label, file))
        for speedup, label, file in (
            (False, "Steps to every goal against batch size", "goals"),
            (True, "How many times fewer steps than at the smallest batch size, for every goal", "speedup"),
        )
    )
    return (
        "<section><h2>All goals</h2><p>The steps to every goal that was reached, and how many times fewer they are "
        f'than at the smallest batch size that reached it.</p><div class="grid wide">{shown}</div></section>'
    )
