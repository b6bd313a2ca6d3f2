"""Evaluations that ended early: which goals a run can still answer, and what it refuses."""

from __future__ import annotations

import polars as pl
import pytest

from analysis.hand_made import Trial, tables
from batchscope.analysis import best_under_budgets, contour, speedup, stability_map, steps_to_result
from batchscope.analysis.outcomes import ended_early, evaluation_grid, outcomes, require_metric, undecided
from batchscope.errors import AnalysisError
from batchscope.spec.goal import EXAMPLES, Goal, is_metric

TRIALS, PLAIN = tables(
    Trial("winner", 8, {10: None, 20: 0.4, 30: None, 40: 0.2}, index=0),
    Trial("loser", 8, {10: None, 20: None, 30: None, 40: 0.6}, index=1, status="complete"),
)
# The goals were 0.5 and 0.3: once 0.5 was reached, an evaluation told only that 0.3 was not.
BOUNDS = {("winner", 10): 0.5, ("winner", 30): 0.3, ("loser", 10): 0.5, ("loser", 20): 0.5, ("loser", 30): 0.5}
EVALUATIONS = PLAIN.with_columns(
    pl.Series("validation/error/at_least", [BOUNDS.get(key) for key in PLAIN.select("trial", "step").iter_rows()]),
    pl.when(pl.col("validation/error").is_null()).then(32.0).otherwise(1000.0).alias(EXAMPLES),
    pl.col("validation/error").alias("validation/loss"),
    pl.lit(1.0).alias("train/loss"),
)


def goal(threshold: float, side: str = "<", metric: str = "validation/error") -> Goal:
    return Goal.parse(f"{metric} {side} {threshold}")


@pytest.mark.parametrize(("threshold", "steps"), [(0.5, 20), (0.3, 40), (0.25, 40), (0.1, None)])
def test_goals_of_the_study_and_harder_ones_are_answered(threshold: float, steps: int | None) -> None:
    found = outcomes(TRIALS, EVALUATIONS, goal(threshold)).table
    assert found["goal_step"].to_list() == [steps, None]
    assert found["before"].to_list()[0] == (steps - 10 if steps else None)
    assert outcomes(TRIALS, EVALUATIONS, goal(threshold)).evaluations[8].tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("asked", "blind"),
    [
        (goal(0.55), 2),  # easier than any
        (goal(0.35), 1),  # between two: the winner was no longer watched for it
        (goal(0.5, metric="validation/loss"), 2),
        (goal(0.1, ">"), 2),
    ],
)
def test_other_goals_are_refused_with_what_to_type(asked: Goal, blind: int) -> None:
    assert undecided(EVALUATIONS, asked) == blind
    with pytest.raises(AnalysisError, match=r"Add the goal .* new folder, or run with evaluation.sequential=false"):
        steps_to_result(TRIALS, EVALUATIONS, asked)


def test_a_evaluation_that_ended_after_the_goal_was_reached_hides_nothing() -> None:
    winner = TRIALS.filter(pl.col("trial") == "winner"), EVALUATIONS.filter(pl.col("trial") == "winner")
    assert outcomes(*winner, goal(0.45)).table["goal_step"].to_list() == [20]


def test_steps_say_that_they_are_exact_but_for_evaluations_that_ended_early() -> None:
    early = steps_to_result(TRIALS, EVALUATIONS, goal(0.5)).notes
    assert any("overlooked less than once in 1,000" in note for note in early)
    full = steps_to_result(TRIALS, PLAIN.with_columns(pl.col("validation/error").fill_null(0.9)), goal(0.5)).notes
    assert not any("overlooked" in note for note in full)


def test_a_goal_on_the_training_loss_is_always_answered() -> None:
    assert outcomes(TRIALS, EVALUATIONS, goal(1.5, metric="train/loss")).table["goal_step"].to_list() == [10, 10]


def test_values_that_were_never_measured_are_no_evaluations_that_ended_early() -> None:
    assert not ended_early(PLAIN, "validation/error") and undecided(PLAIN, goal(0.55)) == 0
    assert evaluation_grid(PLAIN, "validation/error")["step"].to_list() == [20, 40]
    assert evaluation_grid(EVALUATIONS, "validation/error")["step"].to_list() == [10, 20, 30, 40]


def test_analyses_that_need_every_evaluation_say_so() -> None:
    trials = TRIALS.with_columns(pl.lit(0.1).alias("hyperparameter/learning_rate"))
    for question in (
        lambda: best_under_budgets(trials, EVALUATIONS, "validation/error"),
        lambda: stability_map(trials, EVALUATIONS, "validation/error"),
        lambda: speedup(trials, EVALUATIONS, "validation/error"),
        lambda: contour(trials, EVALUATIONS, "validation/error"),
    ):
        with pytest.raises(AnalysisError, match=r"at every evaluation.*evaluation.sequential=false"):
            question()
    assert contour(trials, EVALUATIONS, "train/loss").table.height == 4


def test_what_is_known_of_early_evaluations_is_no_metric() -> None:
    with pytest.raises(AnalysisError) as refused:
        require_metric(EVALUATIONS.lazy(), "validation/accuracy")
    assert str(refused.value).endswith("It measured validation/error, validation/loss, train/loss")
    assert not is_metric("step") and not is_metric(EXAMPLES)
