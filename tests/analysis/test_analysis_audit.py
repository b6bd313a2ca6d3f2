"""Boundary check, smaller searches, and how many trials would do."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from analysis.hand_made import Trial, tables
from batchscope.analysis import expected_steps
from batchscope.analysis.audit import boundary, position
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal

GOAL = Goal.parse("validation/error < 0.5")


@pytest.mark.parametrize(
    ("value", "low", "high", "scale", "place"),
    [
        (0.5, 0.0, 2.0, "linear", 0.25),
        (1e-2, 1e-4, 1.0, "log", 0.5),
        (0.9, 0.0, 0.999, "reverse_log", 1 / 3),
        (0.99, 0.9, 0.999, "reverse_log", 0.5),
    ],
)
def test_the_place_in_a_range_is_in_its_scale(value: float, low: float, high: float, scale: str, place: float) -> None:
    assert position(value, low, high, scale) == pytest.approx(place)


def test_a_scale_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AnalysisError, match="linear, log or reverse_log, got 'exp'"):
        position(1, 0, 2, "exp")


def test_the_boundary_check_names_the_side() -> None:
    space = {"learning_rate": (1e-4, 1.0, "log"), "fixed": (1.0, 1.0, "linear"), "missing": (0.0, 1.0, "linear")}
    assert boundary({"learning_rate": 1e-2, "fixed": 1.0, "word": "a"}, space, 0.05) is None
    assert "lower side of its space, 0.0001" in str(boundary({"learning_rate": 1.1e-4}, space, 0.05))
    assert "upper side" in str(boundary({"learning_rate": 3.0}, space, 0.05))


def run(steps: list[int], stopped_at: int | None = None) -> tuple[Trial, ...]:
    evaluations = range(1, max(steps) + 1)
    return tuple(
        Trial(
            str(index),
            8,
            {at: 0.1 if at >= step else 0.9 for at in evaluations if stopped_at is None or at <= stopped_at},
            "complete" if stopped_at is None or step <= stopped_at else "stopped",
            index,
        )
        for index, step in enumerate(steps)
    )


STEPS = [31, 12, 55, 80, 21, 13, 44, 70, 25]


def test_the_expected_steps_of_fewer_trials_are_the_mean_minimum_over_subsets() -> None:
    found = expected_steps(*tables(*run(STEPS)), GOAL, counts=range(1, 10)).table
    subsets = [np.mean([min(chosen) for chosen in combinations(STEPS, m)]) for m in range(1, 10)]
    np.testing.assert_allclose(found.get_column("expected_steps"), subsets)
    assert found.get_column("trials").to_list() == list(range(1, 10))
    low, value, high = (found.get_column(name).to_numpy() for name in ("low", "expected_steps", "high"))
    assert (low <= value).all()
    assert (value <= high).all()


def test_what_hangs_on_trials_that_were_stopped_is_not_given() -> None:
    found = expected_steps(*tables(*run(STEPS, stopped_at=30)), GOAL, counts=[1, 2, 8, 9]).table
    assert found.get_column("expected_steps").is_null().to_list() == [True, True, False, False]
    assert found.get_column("expected_steps")[3] == 12


def test_without_any_trial_at_the_goal_there_is_nothing_to_expect() -> None:
    with pytest.raises(AnalysisError, match="no trial reached"):
        expected_steps(*tables(Trial("a", 8, {1: 0.9})), GOAL)


def test_intervals_of_a_small_search_hold_its_expected_steps() -> None:
    draw = np.random.default_rng(0)
    hits = []
    for _ in range(30):
        steps = np.round(30 * np.exp(draw.exponential(size=24))).astype(int)
        trials = tables(*run(np.minimum(steps, 150).tolist()))
        row = expected_steps(*trials, GOAL, counts=[4]).table.row(0, named=True)
        hits.append(row["low"] <= 30 * 4 / 3 <= row["high"])  # the mean minimum of 4 such trials
    assert 0.8 <= np.mean(hits) <= 1
