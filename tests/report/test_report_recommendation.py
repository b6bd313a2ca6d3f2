"""The recommendation on the page: the tables of its figures, charts of nothing but them, and text that is text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import polars as pl
import pytest

from advice.exact_recommendations import curve, probe
from batchscope.advice.recommendation import Recommendation, recommend
from batchscope.report import Section
from batchscope.report.markup import section as markup
from batchscope.report.palette import NAMED
from batchscope.report.recommendation import (
    recommendation_section,
    refused_section,
    strong_scaling,
    strong_scaling_chart,
    time_cost,
    time_cost_chart,
    time_unit,
)

EVIL = "<script>alert(1)</script>"


def timed(**options: Any) -> Recommendation:
    hardware: dict[str, Any] = {"devices": [1, 2, 4], "price": 2.0}
    return recommend(curve(spread=0.1), probe(spread=0.1), **(hardware | options))


def points(figure: go.Figure) -> dict[str, set[tuple[float, ...]]]:
    return {trace.name: set(zip(trace.x, trace.y, strict=True)) for trace in figure.data}


def rounded(rows: Iterable[tuple[float, ...]]) -> set[tuple[float, ...]]:
    """To the six digits that a chart keeps."""
    return {tuple(float(f"{value:.6g}") for value in row) for row in rows}


def test_the_time_cost_figure_shows_every_option_and_the_pareto_front() -> None:
    found = timed()
    table, shown = time_cost(found), points(time_cost_chart(found))
    assert time_unit(found) == ("seconds", 1.0)
    assert table.height == found.options.height and table.filter("pareto_front").height == len(found)
    for count, name in ((1, "1 device"), (2, "2 devices"), (4, "4 devices")):
        own = table.filter(pl.col("devices") == count).select("time", "cost").rows()
        assert shown[name] == rounded(own)
    pareto_front = shown["Pareto front: none is both faster and cheaper"]
    assert pareto_front == rounded([(option.time.value or 0, option.cost.value or 0) for option in found])


def test_the_strong_scaling_figure_shows_the_best_of_each_number_beside_the_ideal() -> None:
    found = timed()
    table, shown = strong_scaling(found), points(strong_scaling_chart(found))
    assert table["ideal"].to_list() == pytest.approx([table["time"][0] / count for count in (1, 2, 4)])
    assert shown["best batch size at each"] == rounded(table.select("devices", "time").rows())
    assert shown["perfect scaling"] == rounded(table.select("devices", "ideal").rows())


def test_long_times_are_in_hours() -> None:
    found = timed()
    long = replace(found, options=found.options.with_columns(pl.col("^time.*$") * 10_000))
    assert time_unit(long)[0] == "days"
    assert time_cost(long)["time"].to_list() == pytest.approx([t * 10_000 / 86400 for t in time_cost(found)["time"]])


def test_the_section_says_what_to_choose_why_and_what_it_rests_on() -> None:
    found = timed(deadline="1h", budget=9.0)
    part = recommendation_section(found)
    assert [chart.file for chart in part.charts] == ["time-cost", "strong-scaling"]
    assert [len(table.rows) for table in part.tables] == [6, 3, found.options.height]
    assert all(row[-1].note for row in part.tables[0].rows)
    text = " ".join(part.paragraphs)
    for expected in (*found.assumptions, found.deadline.sentence if found.deadline else "", "More devices help"):
        assert expected in text


def test_without_a_probe_it_is_in_steps_and_examples() -> None:
    part = recommendation_section(recommend(curve()))
    assert len(part.charts) == 1 and "examples" in part.tables[0].columns
    assert any("idealised" in text for text in part.paragraphs)
    assert isinstance(part, Section) and "There is none: nothing" in refused_section("nothing").paragraphs[0]


def test_extrapolated_options_are_open_marks() -> None:
    figure = time_cost_chart(recommend(curve(), extrapolate=True))
    symbols = figure.data[1].marker.symbol
    assert [symbol.endswith("-open") for symbol in symbols] == [False] * 11 + [True] * 2


def test_the_colours_are_those_of_the_page_and_names_from_data_are_text() -> None:
    measured = probe(device_name=EVIL, workload=EVIL)
    evil = curve(spread=0.1, reason=pl.Series([EVIL] * 11), validated=[False] * 11)
    evil = replace(evil, table=evil.table.with_columns(pl.lit(EVIL).alias(EVIL)))
    found = recommend(evil, measured, devices=[1, 2], optimizer=EVIL, schedule=EVIL)
    page = markup(recommendation_section(found))
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    for figure in (time_cost_chart(found, NAMED), strong_scaling_chart(found, NAMED)):
        text = json.dumps(figure.to_dict(), default=str)
        assert "<script>" not in text and "#" not in text
