"""Who reached the goal, when, and who was only watched for so long."""

from __future__ import annotations

import math

import polars as pl
import pytest

from analysis.hand_made import Trial, tables
from batchscope.analysis.outcomes import outcomes, require_full_training
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal

GOAL = Goal.parse("validation/error < 0.5")
RUN = tables(
    Trial("fast", 8, {10: 0.9, 20: 0.5, 30: 0.4, 40: 0.6}, index=0),
    Trial("first evaluation", 8, {10: 0.1}, index=1),
    Trial("late", 8, {10: 0.9, 20: 0.8}, status="stopped", index=2),
    Trial("blew up", 8, {10: 0.9, 20: math.nan}, status="diverged", index=3),
    Trial("blew up after", 8, {10: 0.9, 20: 0.3, 30: math.nan}, status="diverged", index=4),
    Trial("unmeasured", 8, {10: None, 20: None, 30: 0.2}, index=5),
    Trial("again", 8, {10: 0.1}, index=1, replicate=1),
)


def by_trial(goal: Goal = GOAL) -> dict[str, dict[str, object]]:
    table = outcomes(*RUN, goal).table
    return {row["trial"]: row for row in table.iter_rows(named=True)}


def test_the_goal_is_reached_at_the_first_evaluation_strictly_beyond_it() -> None:
    found = {name: (row["goal_step"], row["before"]) for name, row in by_trial().items()}
    assert found["fast"] == (30, 20)
    assert found["first evaluation"] == (10, 0)
    assert found["late"] == (None, None)
    assert found["unmeasured"] == (30, 20)


def test_a_trial_that_diverged_counts_only_if_it_had_reached_the_goal() -> None:
    found = by_trial()
    assert found["blew up after"]["goal_step"] == 20
    assert [name for name, row in found.items() if not row["feasible"]] == ["blew up"]


def test_a_trial_is_known_not_to_have_reached_the_goal_up_to_the_evaluation_before_or_its_end() -> None:
    found = by_trial()
    assert (found["fast"]["watched"], found["first evaluation"]["watched"], found["late"]["watched"]) == (20, 0, 20)


def test_a_metric_that_should_rise_is_beyond_the_goal_above_it_and_never_when_not_a_number() -> None:
    found = by_trial(Goal.parse("validation/error > 0.85"))
    assert found["fast"]["goal_step"] == 10
    assert found["blew up after"]["goal_step"] == 10
    assert found["first evaluation"]["goal_step"] is None
    assert not outcomes(*RUN, Goal.parse("validation/error > 1")).table.get_column("goal_step").count()


def test_lazy_measurements_give_the_same_table() -> None:
    trials, measurements = RUN
    assert outcomes(trials.lazy(), measurements.lazy(), GOAL).table.equals(outcomes(*RUN, GOAL).table)


def test_the_search_takes_the_first_feasible_trials_in_order_and_no_confirmations() -> None:
    found = outcomes(*RUN, GOAL)
    names = {count: group.get_column("trial").to_list() for count in (2, 4) for _, group in found.search(count)}
    assert names == {
        2: ["fast", "first evaluation"],
        4: ["fast", "first evaluation", "late", "blew up", "blew up after"],
    }
    assert found.fewest_feasible() == 5
    with pytest.raises(AnalysisError, match="at least 1"):
        list(found.search(0))


def test_what_cannot_be_analysed_is_refused_in_words() -> None:
    trials, measurements = RUN
    with pytest.raises(AnalysisError, match="measured validation/error"):
        outcomes(trials, measurements, Goal.parse("test/error < 0.1"))
    with pytest.raises(AnalysisError, match="no trials yet"):
        outcomes(trials.clear(), measurements, GOAL)
    with pytest.raises(AnalysisError, match="holds before any: choose a harder goal"):
        outcomes(*tables(Trial("untrained", 8, {0: 0.1, 10: 0.1})), GOAL)
    with pytest.raises(AnalysisError, match="twice"):
        outcomes(pl.concat([trials, trials]), measurements, GOAL)


def test_a_run_that_stopped_trials_early_has_no_full_training() -> None:
    whole = tables(Trial("a", 8, {10: 0.9, 20: 0.5}), Trial("b", 8, {10: 0.1}, status="diverged"))[0]
    require_full_training(whole, "this")
    for early in ("stopped", "pruned", "running", "complete"):
        raced = tables(Trial("a", 8, {10: 0.9, 20: 0.5}), Trial("b", 8, {10: 0.1}, status=early))[0]
        with pytest.raises(AnalysisError, match="at batch size 8 some were stopped early.*policy: full"):
            require_full_training(raced, "this")
