"""Charts of the other analyses: budgets, fewer trials, rules, scaling, contours, stability, sensitivity.

Each draws the tables of a frozen result and adds nothing to them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import plotly.graph_objects as go
import polars as pl

from batchscope.amounts import count, number
from batchscope.analysis import (
    BudgetQuality,
    Contour,
    ExpectedSteps,
    NormalisedCurves,
    RuleCheck,
    Sensitivity,
    Speedup,
    StabilityMap,
)
from batchscope.report import hover
from batchscope.report.axes import Scale, batch_axis, count_axis, short
from batchscope.report.marks import DASHES, EXACT, SYMBOLS, add_band, add_line, finish, marker, whiskers
from batchscope.report.palette import LIGHT, Palette
from batchscope.report.wording import chart_text

Row = dict[str, Any]


@singledispatch
def chart(result: object, palette: Palette = LIGHT) -> go.Figure:
    """The figure of a result of ``analysis``: one that has none is a ``TypeError``."""
    raise TypeError(f"no chart is known for {type(result).__name__}")


@chart.register
def _(result: BudgetQuality, palette: Palette = LIGHT) -> go.Figure:
    """Best metric against batch size, a line for every budget (Sh19 figure 11)."""
    figure = go.Figure()
    groups = result.table.drop_nulls("value").partition_by("budget", maintain_order=True)
    for index, group in enumerate(groups):
        label = f"{count(group.item(0, 'budget'))} {result.unit}"
        _add(figure, group, "value", label, index, len(groups), palette, lambda row: hover.under_budget(row, result))
    values = result.table["value"].to_list()
    up = Scale("linear", tuple(value for value in values if value is not None))
    axes = _axes(result.table, palette, yaxis=up.axis(f"best {chart_text(result.metric)}", palette))
    return finish(figure, palette, f"Best {chart_text(result.metric)} within a budget", height=420, **axes)


@chart.register
def _(result: ExpectedSteps, palette: Palette = LIGHT) -> go.Figure:
    """What a search of fewer trials would have found, a line for every batch size."""
    figure = go.Figure()
    table = result.table.drop_nulls("expected_steps")
    groups = table.partition_by("batch_size", maintain_order=True)
    for index, group in enumerate(groups):
        label = f"B = {number(group.item(0, 'batch_size'))}"
        _add(
            figure,
            group,
            "expected_steps",
            label,
            index,
            len(groups),
            palette,
            hover.fewer_trials,
            interval=True,
            x="trials",
        )
    steps = [value for column in ("expected_steps", "low", "high") for value in table[column]]
    across = batch_axis(table["trials"].to_list() or [1], palette) | {"title": {"text": "feasible trials"}}
    axes = {"xaxis": across, "yaxis": count_axis(f"expected steps to {chart_text(result.goal)}", steps, palette)}
    return finish(figure, palette, "What fewer trials would have found", height=460, **axes)


@chart.register
def _(result: RuleCheck, palette: Palette = LIGHT) -> go.Figure:
    """Rates that a rule predicts, beside the tuned ones and the band of good ones."""
    band = result.table.unique("batch_size").sort("batch_size")
    figure = go.Figure()
    add_band(figure, band, f"within {result.within:g}× the fewest steps", palette.bands[0])
    _add(
        figure,
        band,
        "tuned",
        "tuned",
        0,
        1,
        palette,
        lambda row: f"tuned at {number(row['batch_size'])}: {number(row['tuned'])}",
    )
    marks = {"holds": "circle", "open": "circle-open", "breaks": "x"}
    rules = result.table.partition_by("rule", maintain_order=True)
    for index, group in enumerate(rules, 1):
        rule = group.item(0, "rule")
        _add(figure, group, "predicted", rule, index, len(rules) + 1, palette, lambda row: hover.rule(row, result))
        figure.data[-1].marker.symbol = [marks[status] for status in group["status"]]
    rates = [rate for column in ("predicted", "tuned", "low", "high") for rate in result.table[column]]
    axes = _axes(result.table, palette, yaxis=Scale.of("learning_rate", rates).axis(chart_text(result.rate), palette))
    return finish(figure, palette, "Rules for the learning rate", height=440, **axes)


@chart.register
def _(result: NormalisedCurves, palette: Palette = LIGHT) -> go.Figure:
    """Steps of several runs relative to those at one batch size (Sh19 figures 3 to 6)."""
    figure = go.Figure()
    sizes = result.table.select(pl.col("batch_size").unique().sort())
    rule = sizes.with_columns(relative=result.reference / pl.col("batch_size"))
    add_line(figure, rule, "relative", "perfect scaling", palette.muted, "dash")
    groups = result.table.partition_by("run", maintain_order=True)
    for index, group in enumerate(groups):
        label = chart_text(group.item(0, "run"))
        _add(figure, group, "relative", label, index, len(groups), palette, hover.relative, interval=True)
    values = [value for column in ("relative", "low", "high") for value in result.table[column]]
    up = count_axis(f"steps relative to batch size {number(result.reference)}", values, palette)
    return finish(figure, palette, "Runs on one scale", height=440, **_axes(result.table, palette, yaxis=up))


@chart.register
def _(result: Speedup, palette: Palette = LIGHT) -> go.Figure:
    """Speedup at G18's threshold, with what that threshold favours."""
    figure = go.Figure()
    add_line(figure, result.table, "ideal", "ideal", palette.muted, "dash")
    _add(
        figure,
        result.table,
        "speedup",
        f"speedup to {chart_text(result.goal)}",
        0,
        1,
        palette,
        hover.speedup,
        interval=True,
    )
    values = [value for column in ("speedup", "low", "high") for value in result.table[column]]
    up = count_axis(f"speedup over batch size {number(result.base_batch_size)}", values, palette)
    finish(figure, palette, "Speedup", height=440, **_axes(result.table, palette, yaxis=up | {"ticksuffix": "×"}))
    words = result.caveat.split(": ", 1)
    figure.add_annotation(
        text="<br>".join(chart_text(line) for line in words),
        **{"x": 1, "y": 0.02, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom"},
        **{"showarrow": False, "align": "right", "font": {"size": 10, "color": palette.muted}},
    )
    return figure


@chart.register
def _(result: Contour, palette: Palette = LIGHT) -> go.Figure:
    """A metric over batch size x steps, log-log (G18 figures 1 and 5)."""
    better = result.better == "lower"
    scale = [[0, palette.fast if better else palette.slow], [1, palette.slow if better else palette.fast]]
    table = result.table
    figure = go.Figure()
    figure.add_contour(
        x=table["batch_size"].to_list(),
        y=table["step"].to_list(),
        z=[short(value) for value in table["best"]],
        connectgaps=True,
        colorscale=scale,
        ncontours=15,
        line={"width": 0.6, "color": palette.paper},
        colorbar={"title": {"text": f"best {chart_text(result.metric)}", "side": "right"}, "thickness": 12},
        hovertemplate="batch size %{x:,}, step %{y:,}: <b>%{z:.4g}</b><extra></extra>",
    )
    up = count_axis("steps", table["step"].to_list(), palette)
    title = f"Best {chart_text(result.metric)} by batch size and steps"
    return finish(figure, palette, title, height=440, **_axes(table, palette, yaxis=up))


@chart.register
def _(result: StabilityMap, palette: Palette = LIGHT) -> go.Figure:
    """Final quality over base rate x batch size, with the reliable band (ML18 figures 1-12 and 16)."""
    metric, falling = chart_text(result.metric), result.better == "lower"
    table, bands = result.table, result.bands.drop_nulls("low")
    trained, diverged = table.drop_nulls("value"), table.filter(pl.col("value").is_null())
    up = Scale.of("learning_rate", table["base_rate"].to_list())
    figure = go.Figure()
    add_band(figure, bands, "reliable", palette.bands[0])
    groups = {"trained": trained, "diverged": diverged}
    ends = [palette.fast, palette.slow] if falling else [palette.slow, palette.fast]
    bar = {"title": {"text": metric, "side": "right"}, "thickness": 12}
    colours = {"color": [short(value) for value in trained["value"]], "showscale": True, "colorbar": bar}
    styles = {
        "trained": marker(palette.fast, "square", 11) | colours | {"colorscale": [[0, ends[0]], [1, ends[1]]]},
        "diverged": marker(palette.infeasible, "x-thin", 8),
    }
    for name, group in groups.items():
        figure.add_scatter(
            x=group["batch_size"].to_list(),
            y=[up.place(rate) for rate in group["base_rate"]],
            text=[hover.base_rate(row, metric) for row in group.iter_rows(named=True)],
            hovertemplate=EXACT,
            mode="markers",
            name=name,
            marker=styles[name] | ({"line": {"width": 0}} if name == "trained" else {}),
        )
    best = bands.drop_nulls("best_rate")
    ink = {"line": {"width": 1, "color": palette.ink}}
    figure.add_scatter(
        x=best["batch_size"].to_list(),
        y=[up.place(rate) for rate in best["best_rate"]],
        text=[f"best: {number(rate)}" for rate in best["best_rate"]],
        hovertemplate=EXACT,
        mode="markers",
        name="best",
        marker=marker(palette.best, "star", 14) | ink,
    )
    axes = _axes(table, palette, yaxis=up.axis("base rate: learning rate / batch size", palette))
    return finish(figure, palette, "Stable base rates", height=460, **axes)


@chart.register
def _(result: Sensitivity, palette: Palette = LIGHT) -> go.Figure:
    """The share of the search space that is nearly as fast as the best point."""
    figure = go.Figure()
    groups = result.table.drop_nulls("share").partition_by("factor", maintain_order=True)
    for index, group in enumerate(groups):
        label = f"within {group.item(0, 'factor'):g}× the fewest steps"
        text = lambda row: hover.share(row, result.level)  # noqa: E731
        _add(figure, group, "share", label, index, len(groups), palette, text, interval=True)
    up = Scale("linear", (0.0, *(share for share in result.table["high"] if share is not None)))
    axis = up.axis("share of the search space", palette) | {"tickformat": ".0%", "rangemode": "tozero"}
    return finish(
        figure, palette, "How forgiving the search space is", height=400, **_axes(result.table, palette, yaxis=axis)
    )


def _axes(table: pl.DataFrame, palette: Palette, yaxis: Row) -> Row:
    return {"xaxis": batch_axis(table["batch_size"].unique().sort().to_list(), palette), "yaxis": yaxis}


def _add(
    figure: go.Figure,
    table: pl.DataFrame,
    column: str,
    label: str,
    index: int,
    lines: int,
    palette: Palette,
    text: Callable[[Row], str],
    interval: bool = False,
    x: str = "batch_size",
) -> None:
    colour = palette.lines(lines)[index]
    values = table[column].to_list()
    figure.add_scatter(
        x=table[x].to_list(),
        y=[None if value is None else short(value) for value in values],
        error_y=whiskers(values, table["low"].to_list(), table["high"].to_list(), colour) if interval else None,
        text=[text(row) for row in table.iter_rows(named=True)],
        hovertemplate=EXACT,
        mode="lines+markers",
        name=label,
        line={"color": colour, "width": 2, "dash": DASHES[index % len(DASHES)]},
        marker=marker(colour, SYMBOLS[index % len(SYMBOLS)], 8),
    )
