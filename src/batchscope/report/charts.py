"""Plotly charts of curves and costs, from the tables of ``figures``: drawing adds nothing to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import polars as pl

from batchscope.amounts import number, percent
from batchscope.analysis import Curve
from batchscope.report import figures, hover
from batchscope.report.axes import bare_axis, batch_axis, count_axis, short
from batchscope.report.marks import DASHES, EXACT, SYMBOLS, add_band, add_line, finish, marker, whiskers
from batchscope.report.palette import LIGHT, Palette
from batchscope.report.wording import chart_text
from batchscope.spec.goal import Goal

_ENDS = {
    "perfect_scaling_until": "perfect until",
    "critical_batch_size": "critical",
    "maximum_useful_batch_size": "maximum useful",
}


def steps_to_result(curve: Curve, palette: Palette = LIGHT) -> go.Figure:
    """Steps to the goal against batch size, log-log, with interval, perfect scaling, law and regimes."""
    table, colour = figures.steps_to_result(curve), palette.series[0]
    reached = table.drop_nulls("shown")
    figure = go.Figure()
    if reached.is_empty():
        return _nowhere(figure, table, curve, palette)
    if reached.height > 1:
        add_line(figure, table, "perfect_scaling", "perfect scaling", palette.muted, "dash")
    if curve.regimes.law is not None:
        sharpness = curve.regimes.law.law.sharpness
        label = "fitted law" if sharpness == 1 else f"fitted law, sharpness {number(sharpness, 2)}"
        add_line(figure, figures.law(curve), "steps", label, palette.series[1], "dot")
    ends = table.select("batch_size", low="shown_low", high="shown_high")
    lone = _lone(table, add_band(figure, ends, _interval_name(curve), palette.bands[0]), colour)
    figure.add_scatter(
        x=table["batch_size"].to_list(),
        y=table["shown"].to_list(),
        error_y=lone,
        text=[hover.curve_point(row, curve.level) for row in table.iter_rows(named=True)],
        hovertemplate=EXACT,
        mode="lines+markers",
        name="a fresh training" if curve.confirmed else "at least: fewest of a search",
        line={"color": colour, "width": 2.5},
        marker=marker(colour, ["circle-open" if valid is False else "circle" for valid in table["validated"]]),
    )
    if (reached["validated"] == False).any():  # noqa: E712
        open_marker = marker(colour, "circle-open")
        figure.add_scatter(x=[None], y=[None], mode="markers", name="not validated", marker=open_marker)
    if curve.has_fewest:
        steps, low, high = (reached[part].to_list() for part in ("steps", "low", "high"))
        figure.add_scatter(
            x=reached["batch_size"].to_list(),
            y=steps,
            error_y=whiskers(steps, low, high, palette.series[2]),
            text=[hover.fewest_point(row, curve.level) for row in reached.iter_rows(named=True)],
            hovertemplate=EXACT,
            mode="lines+markers",
            name="fewest of the search",
            visible="legendonly",  # what nobody trains must not crowd what is promised; a click shows it
            line={"color": palette.series[2], "width": 1.5, "dash": "dot"},
            marker=marker(palette.series[2], "diamond", 7),
        )
    counts = [count for column in ("steps", "shown", "shown_low", "shown_high") for count in table[column]]
    finish(
        figure,
        palette,
        "",
        height=560,
        xaxis=batch_axis(table["batch_size"].to_list(), palette),
        yaxis=count_axis(f"steps to {chart_text(curve.goal)}", counts, palette),
    )
    _missed(figure, table.filter(pl.col("shown").is_null()), curve, palette)
    _regimes(figure, curve, palette)
    return figure


def goals(
    curves: Sequence[Curve],
    palette: Palette = LIGHT,
    *,
    speedup: bool = False,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Several curves in one chart (Sh19 figure 2): steps, or how many times fewer than at the smallest size.

    Args:
        curves: Of several goals, or of several runs.
        palette: The colours.
        speedup: Whether to show how many times fewer.
        labels: What each is called; by default its goal.
        title: Above it; by default what is shown of every goal.
    """
    tables = [figures.steps_to_result(curve) for curve in curves]
    sizes = sorted({size for table in tables for size in table["batch_size"]})
    column = "speedup" if speedup else "shown"
    figure = go.Figure()
    if speedup:
        rule = pl.DataFrame({"batch_size": sizes}).with_columns(speedup=pl.col("batch_size") / sizes[0])
        add_line(figure, rule, "speedup", "perfect scaling", palette.muted, "dash")
    for index, (curve, table) in enumerate(zip(curves, tables, strict=True)):
        colour = palette.lines(len(curves))[index]
        places, low, high = (table[part].to_list() for part in ("shown", "shown_low", "shown_high"))
        figure.add_scatter(
            x=table["batch_size"].to_list(),
            y=[None if value is None else short(value) for value in table[column]],
            text=[hover.goal_point(row, curve.goal) for row in table.iter_rows(named=True)],
            hovertemplate=EXACT,
            mode="lines+markers",
            error_y=None if labels is None or speedup else whiskers(places, low, high, colour),
            name=chart_text(curve.goal if labels is None else labels[index]),
            line={"color": colour, "width": 2, "dash": DASHES[index % len(DASHES)]},
            marker=marker(colour, SYMBOLS[index % len(SYMBOLS)], 8),
        )
    counts = [count for table in tables for count in table[column]]
    up = "times fewer steps" if speedup else "steps to the goal"
    above = "Speedup" if speedup else "Steps to every goal"
    return finish(
        figure,
        palette,
        above if title is None else title,
        height=420,
        xaxis=batch_axis(sizes, palette),
        yaxis=count_axis(up, counts, palette) | ({"ticksuffix": "×"} if speedup else {}),
    )


def learning_curves(table: pl.DataFrame, goal: Goal, palette: Palette = LIGHT) -> go.Figure:
    """How the setting of every batch size learnt, against steps, with the goal; ``table`` is that of ``figures``."""
    figure = go.Figure()
    groups = table.partition_by("batch_size", maintain_order=True)
    for index, (group, colour) in enumerate(zip(groups, palette.lines(len(groups)), strict=True)):
        figure.add_scatter(
            x=group["step"].to_list(),
            y=[short(value) for value in group["value"]],
            text=[hover.learning(row, goal.metric) for row in group.iter_rows(named=True)],
            hovertemplate=EXACT,
            mode="lines",
            name=number(group.item(0, "batch_size")),
            line={"color": colour, "width": 2, "dash": DASHES[index % len(DASHES)]},
        )
    values = [*table["value"], goal.threshold]
    spread = min(values) > 0 and max(values) > 10 * min(values)
    up = count_axis("", values, palette) if spread else bare_axis("", palette)
    finish(
        figure,
        palette,
        "",
        height=420,
        xaxis=count_axis("steps", table["step"].to_list(), palette),
        yaxis=up | {"title": {"text": chart_text(goal.metric), "standoff": 10}},
    )
    figure.add_hline(y=goal.threshold, line={"color": palette.muted, "width": 1.2, "dash": "dash"})
    return figure


def trial_counts(costs: pl.DataFrame, palette: Palette = LIGHT) -> go.Figure:
    """How many trials of every batch size ended how."""
    colours = (palette.series[0], palette.slow, palette.series[4], palette.infeasible, palette.muted)
    figure = go.Figure()
    for status, colour in zip(figures.STATUSES, colours, strict=True):
        if costs[status].sum():
            figure.add_bar(
                x=[number(size) for size in costs["batch_size"]],
                y=costs[status].to_list(),
                name=status,
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate="batch size %{x}: <b>%{y}</b> " + status + "<extra></extra>",
            )
    return finish(
        figure,
        palette,
        "How the trials ended",
        height=340,
        barmode="stack",
        bargap=0.25,
        xaxis=bare_axis("batch size (examples)", palette) | {"type": "category"},
        yaxis=bare_axis("trials", palette) | {"rangemode": "tozero"},
    )


def _nowhere(figure: go.Figure, table: pl.DataFrame, curve: Curve, palette: Palette) -> go.Figure:
    """A curve without any point: which batch sizes were tried in vain."""
    axes = {"xaxis": batch_axis(table["batch_size"].to_list(), palette), "yaxis": {"visible": False}}
    finish(figure, palette, "", height=200, **axes)
    _missed(figure, table, curve, palette)
    return figure.update_layout(yaxis3={"range": [-1, 1]}, showlegend=True)


def _interval_name(curve: Curve) -> str:
    return f"{percent(curve.level, 3)} of fresh trainings" if curve.confirmed else f"{percent(curve.level, 3)} interval"


def _lone(table: pl.DataFrame, alone: list[bool], colour: str) -> dict[str, Any] | None:
    places, low, high = (
        [value if single else None for value, single in zip(table[column], alone, strict=True)]
        for column in ("shown", "shown_low", "shown_high")
    )
    return whiskers(places, low, high, colour) if any(alone) else None


def _missed(figure: go.Figure, missed: pl.DataFrame, curve: Curve, palette: Palette) -> None:
    if missed.height:
        figure.add_scatter(
            x=missed["batch_size"].to_list(),
            y=[0.04] * missed.height,
            yaxis="y3",
            text=[hover.curve_point(row, curve.level) for row in missed.iter_rows(named=True)],
            hovertemplate=EXACT,
            mode="markers",
            name="goal not reached",
            marker=marker(palette.infeasible, "x"),
        )
        figure.update_layout(yaxis3={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True})


def _regimes(figure: go.Figure, curve: Curve, palette: Palette) -> None:
    """Shades the regimes, and lays their ends with intervals under the curve."""
    colours = (palette.perfect, palette.diminishing, palette.maximal)
    names = ("perfect scaling", "diminishing returns", "beyond the maximum useful")
    for regime, start, end in figures.regimes(curve).iter_rows():
        figure.add_shape(
            type="rect",
            **{
                "x0": start,
                "x1": end,
                "y0": 0,
                "y1": 1,
                "yref": "y domain",
                "layer": "below",
                "line_width": 0,
            },
            fillcolor=dict(zip(names, colours, strict=True))[regime],
            name=regime,
        )
        figure.add_annotation(
            **{"x": short(math.log10(start * end) / 2), "y": 0.985, "yref": "y domain", "yanchor": "top"},
            showarrow=False,
            text=regime.replace(" ", "<br>", 1),
            name=regime,
            font={"size": 12, "color": palette.muted},
        )
    ends = figures.boundaries(curve).filter(pl.col("place") != "unknown")
    if ends.is_empty():
        return
    first, *_, last = figures.reached(curve)
    for row in ends.iter_rows(named=True):
        text = hover.boundary(row, curve.level)
        whole = {"below": first, "beyond": last}.get(row["place"], row["value"])
        below, beyond = row["place"] == "below", row["place"] == "beyond"
        bounds = [row["low"] or (last if beyond else first), row["high"] or (first if below else last)]
        figure.add_scatter(
            x=[bounds[0], whole, bounds[1]],
            y=[_ENDS[row["boundary"]]] * 3,
            yaxis="y2",
            text=[text] * 3,
            hovertemplate=EXACT,
            mode="lines+markers",
            showlegend=False,
            line={"color": palette.ink, "width": 1.6},
            marker={
                "color": palette.ink,
                "size": [7, 9, 7],
                "opacity": 1,
                "symbol": [
                    "line-ns-open" if row["low"] else "circle-open" if beyond else "triangle-left",
                    "circle" if row["value"] else "circle-open",
                    "line-ns-open" if row["high"] else "circle-open" if below else "triangle-right",
                ],
                "line": {"width": 1.6, "color": palette.ink},
            },
        )
    figure.update_layout(
        xaxis={"anchor": "y2"},
        yaxis={"domain": [0.25, 1]},
        yaxis2=bare_axis("", palette)
        | {"domain": [0, 0.2], "type": "category", "fixedrange": True, "ticks": "", "showgrid": False}
        | {"categoryorder": "array", "categoryarray": list(_ENDS.values())[::-1], "range": [-0.6, 2.6]},
    )
