"""Best metric under a budget: only what every trial was trained for."""

from __future__ import annotations

import pytest

from analysis.hand_made import TRAIN_SIZE, Trial, tables
from batchscope.analysis import best_under_budgets
from batchscope.errors import AnalysisError

ERROR = "validation/error"
FULL = tables(
    Trial("a", 10, {10: 0.9, 20: 0.5, 40: 0.6}, index=0),
    Trial("b", 10, {10: 0.8, 20: 0.7, 40: 0.2}, index=1),
    Trial("c", 10, {10: 0.1, 20: float("nan")}, "diverged", index=2),
    Trial("d", 100, {10: 0.4, 20: 0.35, 40: 0.3}),
    Trial("again", 100, {10: 0.0, 20: 0.0, 40: 0.0}, replicate=1),
)


def test_the_best_value_within_each_budget_of_steps() -> None:
    found = best_under_budgets(*FULL, ERROR, [10, 30, 40, 41.5, 100])
    rows = {(row["batch_size"], row["budget"]): row for row in found.table.iter_rows(named=True)}
    assert [rows[10, budget]["value"] for budget in (10, 30, 40, 41.5, 100)] == [0.1, 0.1, 0.1, 0.1, None]
    assert [rows[100, budget]["value"] for budget in (10, 30, 40)] == [0.4, 0.35, 0.3]
    assert (rows[100, 30]["trial"], rows[100, 30]["step"]) == ("d", 20)


def test_a_metric_that_should_rise() -> None:
    found = best_under_budgets(*FULL, ERROR, [40], better="higher").table
    assert found.get_column("value").to_list() == [0.9, 0.4]


def test_budgets_of_epochs() -> None:
    epochs = 20 * 100 / TRAIN_SIZE
    table = best_under_budgets(*FULL, ERROR, [0.2, epochs], unit="epochs").table
    assert table.filter(batch_size=100).get_column("value").to_list() == [None, 0.35]
    assert table.filter(batch_size=10).get_column("value").to_list() == [0.1, None]


def test_the_default_budgets_are_powers_of_two_that_can_be_answered() -> None:
    assert best_under_budgets(*FULL, ERROR).table.get_column("budget").unique().to_list() == [1, 2, 4, 8, 16, 32]


def test_a_trial_that_was_stopped_early_ends_what_is_known() -> None:
    raced = tables(
        Trial("a", 10, {10: 0.9, 20: 0.5, 40: 0.1}),
        Trial("b", 10, {10: 0.8, 20: 0.7}, "stopped", index=1),
    )
    found = best_under_budgets(*raced, ERROR, [20, 40]).table
    assert found.get_column("value").to_list() == [0.5, None]
    with pytest.raises(AnalysisError, match=r"\[40\] steps.*policy: full"):
        best_under_budgets(*raced, ERROR, [40])
    with pytest.raises(AnalysisError, match="It measured validation/error"):
        best_under_budgets(*raced, "test/error")
