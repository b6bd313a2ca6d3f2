"""What several charts draw with: bands, whiskers, markers, and the layout that all have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import plotly.graph_objects as go
import polars as pl

from batchscope.report.axes import short
from batchscope.report.palette import Palette

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
EXACT = "%{text}<extra></extra>"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "pentagon")  # told apart without colours too
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
Places = Sequence[float | str | None]


def add_line(
    figure: go.Figure,
    table: pl.DataFrame,
    column: str,
    label: str,
    colour: str,
    dash: str,
    width: float = 1.5,
) -> None:
    """A line without points, that says nothing when it is pointed at: a law or a rule."""
    figure.add_scatter(
        x=[short(size) for size in table["batch_size"]],
        y=[None if value is None else short(value) for value in table[column]],
        mode="lines",
        name=label,
        hoverinfo="skip",
        line={"color": colour, "width": width, "dash": dash},
    )


def add_band(figure: go.Figure, table: pl.DataFrame, label: str, colour: str) -> list[bool]:
    """The area between ``low`` and ``high``, one polygon for each run of neighbours that have both.

    Returns:
        For every row, whether it has both and no neighbour to span an area with.
    """
    x: list[float | None] = []
    y: list[float | None] = []
    alone = []
    for known, group in groupby(table.select("batch_size", "low", "high").rows(), key=lambda row: None not in row):
        run = list(group)
        alone += [known and len(run) == 1] * len(run)
        if known and len(run) > 1:
            x += [row[0] for row in run + run[::-1]] + [None]
            y += [short(row[1]) for row in run] + [short(row[2]) for row in run[::-1]] + [None]
    line = {"width": 0, "color": colour}
    if x:
        figure.add_scatter(
            x=x[:-1],
            y=y[:-1],
            fill="toself",
            fillcolor=colour,
            line=line,
            mode="lines",
            name=label,
            hoverinfo="skip",
        )
    return alone


def whiskers(places: Places, low: Places, high: Places, colour: str) -> dict[str, Any]:
    """Error bars from ``low`` to ``high`` around ``places``; none where one is missing."""
    arms: dict[str, list[float]] = {"array": [], "arrayminus": []}
    for place, bottom, top in zip(places, low, high, strict=True):
        numbers = isinstance(place, float | int) and isinstance(bottom, float | int) and isinstance(top, float | int)
        arms["array"].append(short(top - place) if numbers else 0.0)  # type: ignore[operator]
        arms["arrayminus"].append(short(place - bottom) if numbers else 0.0)  # type: ignore[operator]
    return {"type": "data", "symmetric": False, **arms, "color": colour, "thickness": 1.3, "width": 3}


def marker(colour: str, symbol: str | list[str] = "circle", size: float = 9) -> dict[str, Any]:
    """A marker whose outline, where it is open, is thick enough to see."""
    return {"color": colour, "symbol": symbol, "size": size, "line": {"width": 2, "color": colour}}


def finish(figure: go.Figure, palette: Palette, title: str, **layout: Any) -> go.Figure:
    """The common layout, ``layout`` over it. The row of the title is also that of Plotly's buttons."""
    common = {
        "template": {},
        "font": {"family": FONT, "size": 13, "color": palette.ink},
        "paper_bgcolor": palette.paper,
        "plot_bgcolor": palette.paper,
        "hoverlabel": {
            "bgcolor": palette.paper,
            "bordercolor": palette.muted,
            "font": {"color": palette.ink, "family": FONT},
            "align": "left",
        },
        "hovermode": "closest",
        "modebar": {"bgcolor": palette.paper, "color": palette.muted, "activecolor": palette.ink},
        "margin": {"l": 8, "r": 12, "t": 62, "b": 8},
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "font": {"size": 12}},
        "title": {
            "text": title,
            "font": {"size": 14},
            **{"x": 0, "xref": "container", "y": 1, "yref": "container", "yanchor": "top"},
            "pad": {"t": 8, "l": 8},
        },
    }
    figure.layout = common | layout  # much faster than an update
    return figure
