"""Which points are trained again with new seeds, and for how long."""

from __future__ import annotations

from batchscope.plan.confirmation import HORIZON, candidates, horizon
from batchscope.plan.rungs import Grid
from batchscope.spec.trial import Trial


def found(*steps: int, rates: tuple[float, ...] = ()) -> list[tuple[int, Trial]]:
    points = rates or tuple(0.1 * (index + 1) for index in range(len(steps)))
    return [(step, Trial(8, index, {"learning_rate": points[index]}, 0)) for index, step in enumerate(steps)]


def indices(chosen: list[tuple[int, Trial]]) -> list[int]:
    return [trial.index for _, trial in chosen]


def test_the_best_few_that_one_training_cannot_tell_apart_are_candidates() -> None:
    assert indices(candidates(found(20, 31, 25, 20, 30, 100), 4)) == [0, 3, 2, 4]
    assert indices(candidates(found(20, 31, 25, 20, 30, 100), 2)) == [0, 3]
    assert indices(candidates(found(20, 31), 4)) == [0]  # more than 1.5 times the fewest
    assert candidates([], 4) == []


def test_a_point_that_was_drawn_twice_is_one_candidate() -> None:
    assert indices(candidates(found(22, 20, 21, rates=(0.1, 0.1, 0.2)), 4)) == [1, 2]


def test_a_training_may_take_a_multiple_of_what_the_search_took_and_no_more_than_the_budget() -> None:
    grid = Grid(1.05, 1, 1000)
    assert HORIZON * 40 <= horizon(grid, [10, 40]).last <= 1.05 * HORIZON * 40
    assert horizon(grid, [900]).last == 1000
