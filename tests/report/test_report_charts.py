"""Charts against the tables that they draw."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import plotly.graph_objects as go
import polars as pl
import pytest

from batchscope.analysis import Regimes
from batchscope.report import charts, figures, tuning
from batchscope.report.axes import Scale, batch_axis, count_axis
from batchscope.report.figures import EFFECTIVE, LEARNING_RATE, MOMENTUM
from batchscope.report.palette import DARK, LIGHT, NAMED
from report.report_study import curve, interval, measurements, table, trials


@pytest.fixture
def space() -> pl.DataFrame:
    return figures.search_space(curve(), trials(), measurements())


def trace(figure: go.Figure, name: str) -> Any:
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


def every_chart(space: pl.DataFrame, palette: Any) -> list[go.Figure]:
    confirmed = table().with_columns(tuned=110.0, tuned_low=100.0, tuned_high=120.0, tuned_seeds=5)
    return [
        charts.steps_to_result(curve(table=confirmed, confirmed=True), palette),
        charts.goals([curve(), curve()], palette),
        charts.goals([curve()], palette, speedup=True),
        tuning.best_point(figures.best_points(space), MOMENTUM, palette),
        tuning.search_space(space, 2, LEARNING_RATE, MOMENTUM, "validation/error", palette),
        charts.trial_counts(figures.costs(trials()), palette),
    ]


def test_curve_draws_its_table() -> None:
    figure = charts.steps_to_result(curve())
    winners = trace(figure, "at least: fewest of a search")
    assert winners.x == (2, 8, 32)
    assert winners.y == (100, 40, None)
    assert winners.marker.symbol == ("circle", "circle-open", "circle-open")
    assert trace(figure, "perfect scaling").y == (100, 25, 6.25)
    band = trace(figure, "90% interval")
    assert list(zip(band.x, band.y, strict=True)) == [(2, 90.5), (8, 31), (8, 40), (2, 104)]
    assert trace(figure, "goal not reached").x == (32,)
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(2, 3), (3, 6), (6, 8)]


def test_ends_of_regimes_have_whiskers_and_open_sides_point() -> None:
    ends = [trace for trace in charts.steps_to_result(curve()).data if trace.yaxis == "y2"]
    assert [trace.x for trace in ends] == [(2.5, 3, 4.2), (3, 4, 8), (2, 6, 7)]
    assert [trace.marker.symbol[0] for trace in ends] == ["line-ns-open", "line-ns-open", "triangle-left"]
    assert [trace.marker.symbol[2] for trace in ends] == ["line-ns-open", "triangle-right", "line-ns-open"]


def test_an_end_beyond_the_measured_points_there_and_nowhere_else() -> None:
    figure = charts.steps_to_result(curve(useful=interval(None)))
    useful = [trace for trace in figure.data if trace.yaxis == "y2"][-1]
    assert useful.x == (8, 8, 8)
    assert useful.marker.symbol == ("circle-open", "circle-open", "triangle-right")


def test_an_interval_without_neighbours_is_a_whisker() -> None:
    gap = table().with_columns(low=pl.Series([90.5, None, None]))
    figure = charts.steps_to_result(curve(table=gap))
    assert "90% interval" not in [trace.name for trace in figure.data]
    whisker = trace(figure, "at least: fewest of a search").error_y
    assert (whisker.array[0], whisker.arrayminus[0]) == (4, 9.5)
    assert (whisker.array[1], whisker.arrayminus[1]) == (0, 0)


def test_a_confirmed_curve_is_of_fresh_trainings_and_the_search_stands_beside_it() -> None:
    confirmed = table().with_columns(
        tuned=pl.Series([110.0, 50.0, None]),
        tuned_low=pl.Series([95.0, 45.0, None]),
        tuned_high=pl.Series([130.0, None, None]),
        tuned_seeds=pl.Series([5, 5, None]),
    )
    figure = charts.steps_to_result(curve(table=confirmed, confirmed=True))
    again = trace(figure, "a fresh training")
    assert again.y == (110, 50, None)
    assert (again.error_y.array[0], again.error_y.arrayminus[0]) == (20, 15)
    assert "5 trainings with new seeds; the search had 100" in again.text[0]
    search = trace(figure, "fewest of the search")
    assert search.y == (100, 40)
    assert (search.error_y.array, search.error_y.arrayminus) == ((4, 0), (9.5, 9))


def test_a_goal_never_reached_has_a_chart_that_says_so() -> None:
    unknown = interval(None)
    nothing = table().with_columns(steps=pl.lit(None, pl.Int64))
    figure = charts.steps_to_result(curve(table=nothing, regimes=Regimes(unknown, unknown, unknown)))
    assert [(trace.name, trace.x) for trace in figure.data] == [("goal not reached", (2, 8, 32))]


def test_speedup_of_several_goals() -> None:
    figure = charts.goals([curve(), curve()], speedup=True)
    assert figure.data[0].y == (1, 4, 16)
    assert figure.data[1].y == (1, 2.5, None)
    assert len({trace.line.dash for trace in figure.data[1:]}) == 2  # told apart without colours too


def test_search_space_shows_every_trial_once(space: pl.DataFrame) -> None:
    figure = tuning.search_space(space, 2, LEARNING_RATE, MOMENTUM, "validation/error")
    shown = {trace.name: trace.x for trace in figure.data if trace.name}
    assert shown == {"infeasible": (1.0,), "feasible": (0.01,), "reached": (0.2,), "best": (0.1,)}
    assert trace(figure, "reached").marker.color == (1.09,)
    assert figure.layout.title.text == "<b>B = 2</b>, 2 of 4 reached"


def test_search_space_has_the_same_axes_at_every_batch_size(space: pl.DataFrame) -> None:
    panels = [tuning.search_space(space, size, LEARNING_RATE, "best_metric", "error") for size in (2, 8, 32)]
    assert len({(panel.layout.xaxis.range, panel.layout.yaxis.range) for panel in panels}) == 1


def test_contours_are_straight_on_these_axes(space: pl.DataFrame) -> None:
    figure = tuning.search_space(space, 2, LEARNING_RATE, MOMENTUM, "error")
    lines = figure.data[0]
    assert lines.mode == "lines" and lines.x.count(None) == 2
    x, y = lines.x[: lines.x.index(None)], lines.y[: lines.y.index(None)]
    products = [rate * memory for rate, memory in zip(x, y, strict=True)]
    assert products == pytest.approx([0.1] * len(x), rel=1e-4)


def test_best_point_draws_its_rules_and_whiskers(space: pl.DataFrame) -> None:
    figure = tuning.best_point(figures.best_points(space), EFFECTIVE)
    assert trace(figure, "linear").y == (1, 4)
    assert trace(figure, "square root").y == (1, 2)
    best = trace(figure, "best")
    assert best.y == (1, 4)
    assert best.error_y.arrayminus == pytest.approx((0.6, 3.8))


def test_trial_counts_stack_to_all_trials() -> None:
    figure = charts.trial_counts(figures.costs(trials()))
    assert [sum(counts) for counts in zip(*(bar.y for bar in figure.data), strict=True)] == [4, 3, 1]


def test_colours_come_from_the_palette_alone(space: pl.DataFrame) -> None:
    for figure in every_chart(space, NAMED):
        assert not re.findall(r'"#[0-9a-fA-F]{3,8}"|rgba?\(', figure.to_json())
    for palette in (LIGHT, DARK):
        for figure in every_chart(space, palette):
            assert "var(" not in figure.to_json()


def test_names_of_colours_are_those_that_the_stylesheet_sets(space: pl.DataFrame) -> None:
    used = {name for figure in every_chart(space, NAMED) for name in re.findall(r"var\(--([\w-]+)\)", figure.to_json())}
    assert used <= {name for name, _ in LIGHT}
    assert [name for name, _ in LIGHT] == [name for name, _ in DARK]


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_colours_stand_out_from_the_paper(palette: Any) -> None:
    lines = [(colour, 3) for colour in (*palette.series, *palette.ramp)]
    for colour, least in [(palette.ink, 7), (palette.muted, 4.5), *lines]:
        high, low = sorted([luminance(colour), luminance(palette.paper)], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= least, colour


def test_no_colour_comes_twice_among_as_many_lines_as_a_study_has_batch_sizes() -> None:
    for palette in (LIGHT, DARK):
        for count in range(1, 17):
            assert len(set(palette.lines(count))) == count


def test_learning_curves_are_those_of_the_setting_of_every_batch_size() -> None:
    space = figures.search_space(curve(), trials(), measurements())
    table = figures.learning_curves(space, measurements().lazy(), "validation/error")
    assert table.rows() == [(2, 5, 0.9), (2, 100, 0.19), (8, 5, 0.9), (8, 40, 0.19)]
    figure = charts.learning_curves(table, curve().goal)
    assert [(line.name, line.x, line.y) for line in figure.data] == [
        ("2", (5, 100), (0.9, 0.19)),
        ("8", (5, 40), (0.9, 0.19)),
    ]
    assert figure.layout.shapes[0].y0 == 0.2


def test_hostile_names_are_text_in_every_label(space: pl.DataFrame) -> None:
    name = "hyperparameter/<b>%{x}</b><script>"
    hostile = space.rename({MOMENTUM: name}).with_columns(pl.lit("</script><img src=x>").alias(name))
    figure = tuning.search_space(hostile, 2, LEARNING_RATE, name, "<i>error</i>")
    text = json.dumps(figure.to_dict(), default=str)
    assert not re.findall(r"<(?!/?b>|br>|extra>|/extra>)", text)
    assert "&lt;script&gt;" in figure.layout.yaxis.title.text


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("learning_rate", [0.1, 0.2], "log"),
        ("momentum", [0.0, 0.9], "reverse_log"),
        ("momentum", [0.5, 1.0], "linear"),
        ("weight_decay", [1e-5, 1e-2], "log"),
        ("weight_decay", [0.0, 1e-2], "linear"),
        ("label_smoothing", [0.0, 0.1], "linear"),
        ("schedule", ["cosine", "constant", None], "choice"),
        ("schedule", [None], "choice"),
    ],
)
def test_scale_fits_the_values(name: str, values: list[float | str | None], kind: str) -> None:
    scale = Scale.of(name, values)
    assert scale.kind == kind
    scale.axis(name, LIGHT)


def test_reverse_log_is_logarithmic_in_one_minus_momentum() -> None:
    scale = Scale.of("momentum", [0.9, 0.99, 0.999])
    places = [scale.place(momentum) for momentum in (0.9, 0.99, 0.999)]
    assert places == [10, 100, 1000]
    assert scale.place(1.0) is None


@pytest.mark.parametrize("sizes", [[64], [1, 1024], [10, 30, 100], [3, 5000]])
def test_batch_axis_has_powers_of_two_and_room_for_every_size(sizes: list[int]) -> None:
    axis = batch_axis(sizes, LIGHT)
    assert all(math.log2(tick).is_integer() for tick in axis["tickvals"])
    assert axis["tickvals"]
    low, high = (10**end for end in axis["range"])
    assert low < sizes[0] and sizes[-1] < high


@pytest.mark.parametrize("counts", [[470.0], [100.0, 104.0], [3.0, 2e7], [None, 5.0]])
def test_count_axis_shows_at_least_two_ticks(counts: list[float | None]) -> None:
    axis = count_axis("steps", counts, LIGHT)
    low, high = (10**end for end in axis["range"])
    assert len([tick for tick in axis["tickvals"] if low <= tick <= high]) >= 2
