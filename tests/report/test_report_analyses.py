"""Charts of the other analyses against their tables, and the sections that hold them."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import plotly.graph_objects as go
import polars as pl
import pytest

from batchscope import analysis
from batchscope.analysis import (
    QUESTIONS,
    Answer,
    Answers,
    BudgetQuality,
    Contour,
    Curve,
    ExpectedSteps,
    Given,
    NormalisedCurves,
    Question,
    RuleCheck,
    Sensitivity,
    Speedup,
    StabilityMap,
    curve_comparison,
    plain_rows,
)
from batchscope.analysis.outcomes import Outcomes
from batchscope.report.analyses import chart
from batchscope.report.palette import NAMED
from batchscope.report.sections import section, sections
from report.report_study import GOAL, curve, measurements, trials

SIZES = [2, 8]
BUDGETS = BudgetQuality(
    metric="validation/error",
    better="lower",
    unit="steps",
    table=pl.DataFrame(
        {
            "batch_size": [2, 8, 2, 8],
            "budget": [64.0, 64.0, 128.0, 128.0],
            "value": [0.3, 0.2, 0.25, None],
            "step": [60, 61, 120, None],
            "trial": ["a", "b", "a", None],
        }
    ),
)
EXPECTED = ExpectedSteps(
    goal=GOAL,
    table=pl.DataFrame(
        {
            "batch_size": [2, 2, 8, 8],
            "trials": [1, 2, 1, 2],
            "expected_steps": [200.0, 150.0, None, 70.0],
            "low": [180.0, 140.0, None, 60.0],
            "high": [230.0, 160.0, None, 90.0],
        }
    ),
)
RULES = RuleCheck(
    goal=GOAL,
    rate="learning_rate",
    base_batch_size=2,
    within=1.5,
    table=pl.DataFrame(
        {
            "rule": ["constant", "constant", "linear", "linear"],
            "batch_size": [2, 8, 2, 8],
            "predicted": [0.1, 0.1, 0.1, 0.4],
            "tuned": [0.1, 0.5, 0.1, 0.5],
            "low": [0.05, 0.3, 0.05, 0.3],
            "high": [0.2, 0.6, 0.2, 0.6],
            "status": ["holds", "breaks", "holds", "open"],
        }
    ),
    breaks=pl.DataFrame({"rule": ["constant", "linear"], "holds_until": [2, 2], "breaks_at": [8, None]}),
)
NORMALISED = NormalisedCurves(
    reference=2,
    table=pl.DataFrame(
        {
            "run": ["one", "one", "two", "two"],
            "batch_size": [2, 8, 2, 8],
            "steps": [100.0, 40.0, 300.0, 90.0],
            "relative": [1.0, 0.4, 1.0, 0.3],
            "low": [1.0, 0.35, 1.0, None],
            "high": [1.0, 0.5, 1.0, None],
        }
    ),
)
SPEEDUP = Speedup(
    goal=GOAL,
    base_batch_size=2,
    table=pl.DataFrame(
        {
            "batch_size": SIZES,
            "steps": [100.0, 40.0],
            "speedup": [1.0, 2.5],
            "low": [1.0, 2.0],
            "high": [1.0, 3.0],
            "ideal": [1.0, 4.0],
        }
    ),
)
CONTOUR = Contour(
    metric="train/loss",
    better="lower",
    table=pl.DataFrame({"batch_size": [2, 2, 8, 8], "step": [1, 2, 1, 2], "value": [2.0, 1.0, 2.0, 3.0]}).with_columns(
        best=pl.Series([2.0, 1.0, 2.0, 2.0])
    ),
)
STABILITY = StabilityMap(
    metric="validation/error",
    better="lower",
    threshold=0.5,
    table=pl.DataFrame(
        {
            "batch_size": [2, 2, 8],
            "base_rate": [0.01, 0.5, 0.01],
            "learning_rate": [0.02, 1.0, 0.08],
            "value": [0.2, None, 0.3],
            "reliable": [True, False, True],
            "trial": ["a", "b", "c"],
        }
    ),
    bands=pl.DataFrame(
        {
            "batch_size": SIZES,
            "low": [0.01, 0.01],
            "high": [0.02, 0.04],
            "octaves": [1.0, 2.0],
            "best_rate": [0.01, 0.01],
            "best_value": [0.2, 0.3],
        }
    ),
)
SENSITIVITY = Sensitivity(
    goal=GOAL,
    table=pl.DataFrame(
        {
            "batch_size": [2, 8],
            "factor": [1.1, 1.1],
            "share": [0.1, None],
            "low": [0.05, None],
            "high": [0.2, None],
            "unknown": [0, 3],
        }
    ),
)
# A result for each row of the list of analyses, by the name of its question: a new analysis has a row here.
ANSWERS: dict[str, Any] = {
    "fewer trials": EXPECTED,
    "budgets of steps": BUDGETS,
    "budgets of epochs": replace(BUDGETS, unit="epochs"),
    "learning-rate rules": RULES,
    "sensitivity": SENSITIVITY,
    "stability": STABILITY,
    "speedup": SPEEDUP,
    "contour": CONTOUR,
}
# What is no answer to one goal of one run beside its curve: the curve, curves of several runs, and what all start from.
ELSEWHERE = {Curve, NormalisedCurves, Outcomes}


def test_every_analysis_is_in_the_list_and_has_a_row_here() -> None:
    assert set(ANSWERS) == {question.name for question in QUESTIONS}, (
        "give each question a row in ANSWERS, and no other"
    )
    listed = {type(result) for result in ANSWERS.values()} | ELSEWHERE
    modules = [import_module(f"batchscope.analysis.{found.name}") for found in iter_modules(analysis.__path__)]
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    results = {kind for kind in kinds if is_dataclass(kind) and "table" in {part.name for part in fields(kind)}}
    assert results == listed, "an analysis that gives a table has a row in batchscope.analysis.questions.QUESTIONS"


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_analysis_has_words_tables_and_a_chart_on_the_page(question: Question) -> None:
    result = ANSWERS[question.name]
    words, found = question.words(result), section(Answer(result, question.words(result)))
    assert all((words.title, words.explanation, words.found)) and "\n" not in words.found
    assert question.tables and all(plain_rows(getattr(result, table)) for table in question.tables.values())
    assert found.title == words.title and words.found in found.paragraphs[1]
    (shown,) = found.charts
    assert re.fullmatch(r"[\w-]+", shown.file)
    assert not re.findall(r'"#[0-9a-fA-F]{3,8}"|rgba?\(', chart(result, NAMED).to_json())


def test_no_two_analyses_share_a_name() -> None:
    names = [name for question in QUESTIONS for name in (question.name, *question.tables)]
    assert len(names) - len(set(names)) == sum(question.name in question.tables for question in QUESTIONS)


def lines(figure: go.Figure) -> dict[str, tuple[Any, ...]]:
    return {trace.name: tuple(zip(trace.x, trace.y, strict=True)) for trace in figure.data}


def test_budgets_have_a_line_each() -> None:
    assert lines(chart(BUDGETS)) == {"64 steps": ((2, 0.3), (8, 0.2)), "128 steps": ((2, 0.25),)}


def test_fewer_trials_have_a_line_for_every_batch_size() -> None:
    assert lines(chart(EXPECTED)) == {"B = 2": ((1, 200), (2, 150)), "B = 8": ((2, 70),)}


def test_rules_show_where_they_hold() -> None:
    figure = chart(RULES)
    shown = lines(figure)
    assert shown["tuned"] == ((2, 0.1), (8, 0.5))
    assert shown["linear"] == ((2, 0.1), (8, 0.4))
    assert [trace.marker.symbol for trace in figure.data[2:]] == [("circle", "x"), ("circle", "circle-open")]
    assert shown["within 1.5× the fewest steps"] == ((2, 0.05), (8, 0.3), (8, 0.6), (2, 0.2))


def test_normalised_runs_start_from_one() -> None:
    figure = chart(NORMALISED)
    assert lines(figure) == {
        "perfect scaling": ((2, 1), (8, 0.25)),
        "one": ((2, 1), (8, 0.4)),
        "two": ((2, 1), (8, 0.3)),
    }
    assert figure.data[1].error_y.array == pytest.approx((0, 0.1))
    assert figure.data[2].error_y.array == (0, 0)


def test_speedup_carries_its_caveat() -> None:
    figure = chart(SPEEDUP)
    assert lines(figure)["ideal"] == ((2, 1), (8, 4))
    assert "favours large batches" in figure.layout.annotations[0].text
    assert "favours large batches" in section(Answer(SPEEDUP, curve_comparison.speedup_words(SPEEDUP))).paragraphs[0]


def test_contour_draws_the_best_so_far() -> None:
    (surface,) = chart(CONTOUR).data
    assert surface.z == (2, 1, 2, 2)
    assert surface.colorscale[0][1] != surface.colorscale[1][1]


def test_stability_shows_every_trial_and_the_band() -> None:
    shown = lines(chart(STABILITY))
    assert shown["trained"] == ((2, 0.01), (8, 0.01))
    assert shown["diverged"] == ((2, 0.5),)
    assert shown["reliable"] == ((2, 0.01), (8, 0.01), (8, 0.04), (2, 0.02))


def test_sensitivity_leaves_out_what_is_not_known() -> None:
    figure = chart(SENSITIVITY)
    assert lines(figure) == {"within 1.1× the fewest steps": ((2, 0.1),)}
    assert figure.data[0].error_y.array == pytest.approx((0.1,))


def test_hostile_names_are_text() -> None:
    evil = "<script>alert(1)</script>"
    runs = NormalisedCurves(reference=2, table=NORMALISED.table.with_columns(pl.lit(evil).alias("run")))
    best = BudgetQuality(
        metric=evil, better="lower", unit="steps", table=BUDGETS.table.with_columns(trial=pl.lit(evil))
    )
    for result in (runs, best):
        assert "<script>" not in json.dumps(chart(result).to_dict(), default=str)


def test_an_unknown_result_has_no_chart() -> None:
    with pytest.raises(TypeError, match="no chart is known for dict"):
        chart({})


def test_sections_answer_what_they_can_and_say_what_they_cannot() -> None:
    evaluations = measurements().with_columns((pl.col("step") * pl.col("batch_size") / 100).alias("epoch"))
    stopped_later = trials().with_columns(steps=pl.when(pl.col("trial") == "d").then(120).otherwise("steps"))
    found = sections(Answers(Given(stopped_later, evaluations, GOAL), lambda given: curve()))
    titles = [part.title for part in found]
    assert "Learning-rate rules" in titles and titles[-1] == "What this run cannot answer"
    assert any(text.startswith("Contour: ") for text in found[-1].paragraphs)
