"""Charts of the tuning: the best points against batch size, and the search space that they were found in."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from batchscope.amounts import number
from batchscope.analysis.outcomes import PREFIX
from batchscope.report import figures, hover
from batchscope.report.axes import Scale, batch_axis, short
from batchscope.report.marks import EXACT, finish, marker, whiskers
from batchscope.report.palette import LIGHT, Palette
from batchscope.report.wording import chart_text, name

SLOWEST = 3.0  # where the scale of colours for the steps of a trial ends, in multiples of the fastest


def best_point(points: pl.DataFrame, hyperparameter: str, palette: Palette = LIGHT) -> go.Figure:
    """One hyperparameter of the best points against batch size, with linear and square-root scaling.

    Args:
        points: As ``figures.best_points`` gives it.
        hyperparameter: Which, with its prefix.
        palette: The colours.
    """
    table = points.filter(pl.col("hyperparameter") == hyperparameter)
    bare = hyperparameter.removeprefix(PREFIX)
    scale = Scale.of(bare, [value for column in ("value", "near_low", "near_high") for value in table[column]])
    at = {column: [scale.place(value) for value in table[column]] for column in table.columns[2:]}
    sizes = table["batch_size"].to_list()
    figure = go.Figure()
    for rule, dash in (("linear", "dash"), ("square_root", "dot")):
        if table.height > 1 and table[rule].count():
            line = {"color": palette.muted, "width": 1.5, "dash": dash}
            figure.add_scatter(x=sizes, y=at[rule], mode="lines", name=name(rule), hoverinfo="skip", line=line)
    figure.add_scatter(
        x=sizes,
        y=at["value"],
        error_y=whiskers(at["value"], at["near_low"], at["near_high"], palette.series[0]),
        text=[hover.best_value(row, bare) for row in table.iter_rows(named=True)],
        hovertemplate=EXACT,
        mode="lines+markers",
        name="best",
        line={"color": palette.series[0], "width": 2},
        marker=marker(palette.series[0], size=8),
    )
    axes = {"xaxis": batch_axis(sizes, palette), "yaxis": scale.axis(chart_text(name(bare)), palette)}
    return finish(figure, palette, f"Best {chart_text(name(bare))}", height=340, **axes)


def search_space(
    space: pl.DataFrame, batch_size: int, x: str, y: str, metric: str, palette: Palette = LIGHT
) -> go.Figure:
    """The trials of one batch size in the search space, on axes that hold the trials of all (Sh19 figure 9).

    Args:
        space: As ``figures.search_space`` gives it, with all batch sizes.
        batch_size: Which to show.
        x: A column of ``space``: a hyperparameter with its prefix, or ``best_metric``.
        y: Another one.
        metric: What ``best_metric`` is called.
        palette: The colours.
    """
    across, up = (Scale.of(column.removeprefix(PREFIX), space[column].to_list()) for column in (x, y))
    table = space.filter(pl.col("batch_size") == batch_size)
    figure = go.Figure()
    if (x, y) == (figures.LEARNING_RATE, figures.MOMENTUM):
        _contours(figure, space, across, up, palette)
    ink = {"width": 1, "color": palette.ink}
    ratios = {"colorscale": [[0, palette.fast], [1, palette.slow]], "cmin": 1.0, "cmax": SLOWEST}
    evaluations = {
        "infeasible": marker(palette.infeasible, "x-thin", 6) | {"line": {"width": 1.4, "color": palette.infeasible}},
        "feasible": marker(palette.muted, "circle-open", 6) | {"line": {"width": 1.2, "color": palette.muted}},
        "reached": marker(palette.fast, "circle", 8) | ratios | {"line": ink | {"width": 0.5}},
        "best": marker(palette.best, "star", 15) | {"line": ink},
    }
    for evaluation, style in evaluations.items():
        chosen = table.filter(
            pl.col("best") if evaluation == "best" else (pl.col("outcome") == evaluation) & ~pl.col("best")
        )
        figure.add_scatter(
            x=[across.place(value) for value in chosen[x]],
            y=[up.place(value) for value in chosen[y]],
            text=[hover.trial(row, metric) for row in chosen.iter_rows(named=True)],
            hovertemplate=EXACT,
            mode="markers",
            name=evaluation,
            marker=style | ({"color": [short(ratio) for ratio in chosen["ratio"]]} if evaluation == "reached" else {}),
        )
    reached = (table["outcome"] == "reached").sum()
    titles = [f"best {metric}" if column == "best_metric" else name(column.removeprefix(PREFIX)) for column in (x, y)]
    heading = f"<b>B = {number(batch_size)}</b>, {reached} of {table.height} reached"
    return finish(
        figure,
        palette,
        heading,
        height=290,
        showlegend=False,
        margin={"l": 8, "r": 8, "t": 36, "b": 8},
        xaxis=across.axis(chart_text(titles[0]), palette),
        yaxis=up.axis(chart_text(titles[1]), palette),
    )


def _contours(figure: go.Figure, space: pl.DataFrame, across: Scale, up: Scale, palette: Palette) -> None:
    x: list[float | str | None] = []
    y: list[float | str | None] = []
    for line in figures.contours(space).partition_by("level", maintain_order=True):
        x += [*(across.place(rate) for rate in line["learning_rate"]), None]
        y += [*(up.place(momentum) for momentum in line["momentum"]), None]
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": palette.muted, "width": 1},
        opacity=0.4,
        hoverinfo="skip",
    )
