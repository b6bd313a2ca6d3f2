"""What is written must read back as the same study: every value of every key, alone and together."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import StudyError
from batchscope.spec.study import Study
from spec.key_values import BASE, ROWS, Row, explained, missing, wanted


def assert_reads_back(study: Study) -> None:
    written = study.to_yaml()
    again = Study.from_text(written)
    assert again == study and again.to_yaml() == written
    assert again.context("f") == study.context("f") and again.search.count == study.search.count


def test_every_value_of_every_key_has_a_row() -> None:
    assert not missing(ROWS), explained(missing(ROWS))


def test_a_key_without_a_row_is_noticed_and_told() -> None:
    rows = [row for row in ROWS if row.key != "margin" and row.name != "search.method=grid"]
    assert missing(rows) == {("margin", "*"), ("search.method", "grid")}
    assert "row(\"search.method\", 'grid')" in explained(missing(rows))
    assert {("algorithm.optimizer", "lars"), ("search.space.scale", "reverse_log"), ("seed", "*")} <= wanted()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_study_of_each_reads_back(row: Row) -> None:
    assert_reads_back(Study.from_text(BASE, row.overrides))


@given(st.lists(st.sampled_from(ROWS), min_size=2, max_size=6))
def test_a_study_of_several_reads_back(rows: list[Row]) -> None:
    try:
        study = Study.from_text(BASE, [override for row in rows for override in row.overrides])
    except StudyError:
        return  # they do not go together
    assert_reads_back(study)


@given(st.text(min_size=1, max_size=200), st.floats(allow_nan=False, allow_infinity=False))
def test_a_study_with_any_text_and_number_reads_back(text: str, number: float) -> None:
    document = yaml.safe_load(BASE) | {"workload": text, "goals": [f"validation/error < {number!r}"]}
    document["search"] = {"space": {"learning_rate": [abs(number), 0.1], "weight_decay": {"min": 1e-300, "max": 2e300}}}
    assert_reads_back(Study.from_mapping(document))


def test_a_grid_is_written_with_the_trials_that_it_has() -> None:
    grid = Study.from_text(
        BASE, ["search={method: grid, space: {learning_rate: [0.1, 0.2], weight_decay: [0, 0.1, 1]}}"]
    )
    assert grid.search.trials == grid.search.count == 6
    assert_reads_back(grid)
    with pytest.raises(StudyError, match="a grid runs each of its points, here 2, got trials: 3; remove trials"):
        Study.from_text(BASE, ["search.method=grid", "search.trials=3"])


def test_what_is_given_twice_is_told_by_its_value() -> None:
    space = "search.space.label_smoothing=[0, 0.1]"
    with pytest.raises(StudyError, match="search.space.label_smoothing: given under algorithm too"):
        Study.from_text(BASE, [space, "algorithm.label_smoothing=0.1"])
    with pytest.raises(StudyError, match="search.space.weight_decay: given under algorithm too"):
        Study.from_text(BASE, ["search.space.weight_decay=[0, 0.1]", "algorithm.weight_decay=0"])


def test_a_span_of_too_many_batch_sizes_is_refused_where_it_is_read() -> None:
    with pytest.raises(StudyError, match="batch_sizes: at most 1,000 batch sizes, got 1,308; write a larger factor"):
        Study.from_text(BASE, ["batch_sizes={from: 1, to: 16777216, factor: 1.01}"])


def test_a_rate_in_words_is_that_of_the_schedule_command() -> None:
    study = Study.from_text(BASE, ["search.space={weight_decay: 0}", _words("0.1, 0.02@60, 0.004@120")])
    schedule = study.algorithm.learning_rate_schedule
    assert (schedule.name, schedule.unit) == ("piecewise_constant", "epochs")
    assert schedule.parameters == {"steps": (60, 120), "factors": pytest.approx((0.2, 0.04))}
    assert study.search.space["learning_rate"].from_unit(0.5) == 0.1
    searched = Study.from_text(BASE, [_words("0.1, 0.02@60")])
    assert searched.search.space["learning_rate"] == Study.from_text(BASE).search.space["learning_rate"]


def test_a_named_rate_in_words_has_its_warm_up_and_the_budget_for_its_length() -> None:
    study = Study.from_text(BASE, ["budget={epochs: 7}", _words("cosine 0.1, decay_factor=0.01, warm_up=2")])
    assert study.algorithm.learning_rate_schedule.parameters == {"decay_steps": 7, "decay_factor": 0.01}
    assert study.algorithm.warm_up is not None and study.algorithm.warm_up.settled == (2.0, "epochs", 0.0)
    with pytest.raises(StudyError, match="has a warm-up already"):
        Study.from_text(BASE, ["budget={epochs: 7}", "algorithm.warm_up=goyal", _words("cosine 0.1, warm_up=2")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1, 0.02", "after the first rate comes @epoch"),
        ("0.1, 0.02@", "'' is no number"),
        ("cosine 0.1", "cosine needs decay_steps"),
        ("-1, 0.02@3", "a learning rate must be > 0"),
        ("cosin", "did you mean cosine?"),
    ],
)
def test_words_that_are_no_rate_are_told_apart(text: str, expected: str) -> None:
    with pytest.raises(StudyError, match=expected):
        Study.from_text(BASE, [_words(text)])


def _words(text: str) -> str:
    return f"algorithm.learning_rate_schedule='{text}'"
