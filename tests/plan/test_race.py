"""The race: the same answer as running everything, bounded work, and decisions that depend on outcomes alone."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscope.plan.race import LARGEST_DRAW, Outcome, Race, SearchRound, Unit
from batchscope.plan.rungs import Grid
from batchscope.spec.goal import Goal
from batchscope.spec.trial import Trial

GOAL = Goal("validation/error", "<", 0.1)
HARDER = Goal("validation/error", "<", 0.05)
BUDGET = 1000


@dataclass(frozen=True)
class Course:
    """A simulated trial: where it first passes each goal, and where it diverges."""

    passes: float
    passes_harder: float = math.inf
    diverges: float = math.inf


def source(count: int | None = None) -> Iterator[Trial]:
    indices = itertools.count() if count is None else range(count)
    return (Trial(16, index, {}, 0) for index in indices)


def play(race: Race, courses: list[Course], grid: Grid, shuffle: random.Random | None = None) -> list[Unit]:
    """Run a race on simulated trials; returns the units in the order in which they were done."""
    done: list[Unit] = []
    waiting: list[Unit] = []
    while not race.finished:
        waiting += race.take()
        if shuffle:
            shuffle.shuffle(waiting)
        unit = waiting.pop(0)
        race.record(unit, {index: outcome(unit, courses[index], grid) for index in unit.members})
        done.append(unit)
    assert not waiting
    return done


def outcome(unit: Unit, course: Course, grid: Grid) -> Outcome:
    evaluations = grid.between(unit.start, unit.until)
    end = next((evaluation for evaluation in evaluations if evaluation >= course.diverges), None)
    seen = [evaluation for evaluation in evaluations if end is None or evaluation < end]
    reached = {}
    for goal, passes in ((GOAL, course.passes), (HARDER, course.passes_harder)):
        first = next((evaluation for evaluation in seen if evaluation >= passes), None)
        if first is not None and not any(evaluation >= passes for evaluation in grid.between(0, unit.start)):
            reached[goal] = first
    return Outcome(unit.until if end is None else end, end is not None, reached)


Policy = Literal["race", "full"]


def make(
    courses: list[Course], wanted: int, policy: Policy = "race", pack: int = 3, margin: float = 1.5
) -> tuple[Race, Grid]:
    grid = Grid(1.05, 1, BUDGET)
    race = Race(
        source(len(courses)),
        search_round=SearchRound(16),
        wanted=wanted,
        pack_size=pack,
        grid=grid,
        goals=(GOAL,),
        policy=policy,
        margin=margin,
    )
    return race, grid


steps = st.one_of(st.integers(1, 2 * BUDGET).map(float), st.just(math.inf))
courses_without_divergence = st.lists(steps.map(Course), min_size=1, max_size=12)
courses_with_divergence = st.lists(st.builds(Course, passes=steps, diverges=steps), min_size=30, max_size=30)


@given(courses_without_divergence)
def test_race_and_full_find_the_same_fewest_steps(courses: list[Course]) -> None:
    found = []
    policies: tuple[Policy, ...] = ("race", "full")
    for policy in policies:
        race, grid = make(courses, len(courses), policy)
        play(race, courses, grid)
        found.append(race.winner(GOAL))
    assert found[0] == found[1]


@given(
    st.lists(st.builds(Course, passes=steps, passes_harder=steps), min_size=1, max_size=12),
    st.sampled_from([1.01, 1.05, 1.2, 1.3, 1.42, 1.6, 1.99, 2.0, 3.0, 4.0]),
    st.sampled_from([1, 2, 3, 5, 37, 100]),
    st.sampled_from([1.0, 1.5, 1.9, 2.0]),
    st.sampled_from([(GOAL,), (GOAL, HARDER)]),
    st.sampled_from([{}, {GOAL: 700}, {GOAL: 700, HARDER: 900}]),
)
def test_work_is_at_most_twice_trials_times_winner(
    courses: list[Course], ratio: float, first: int, margin: float, goals: tuple[Goal, ...], known: dict[Goal, int]
) -> None:
    """On any grid, from the first step on, for the goal that takes the most, also where earlier search rounds know a
    winner.
    """
    grid = Grid(ratio, first, BUDGET)
    known = {goal: grid.at_least(step) for goal, step in known.items() if goal in goals}
    race = Race(
        source(len(courses)),
        search_round=SearchRound(16, revision=len(known)),
        wanted=len(courses),
        pack_size=3,
        grid=grid,
        goals=goals,
        margin=margin,
        known=known,
    )
    play(race, courses, grid)
    winners = [min(race.winner(goal) or BUDGET, known.get(goal, BUDGET)) for goal in goals]
    work = sum(race.steps(index) for index in range(len(courses)))
    assert work <= 2 * len(courses) * max(winners)


def test_a_replacement_costs_the_others_nothing_more() -> None:
    """Trials that are drawn late may win early; what the others were trained until then is all that they are."""
    courses = [Course(900), Course(math.inf, diverges=100), Course(900), Course(5)]
    race, grid = make(courses, 3)
    units = play(race, courses, grid)
    drawn = next(unit for unit in units if 3 in unit.members).until
    assert drawn == next(rung for rung in grid.rungs() if rung >= 100)
    assert race.winner(GOAL) == 5
    assert [race.steps(index) for index in (0, 2, 3)] == [drawn, drawn, drawn]


@given(courses_without_divergence)
def test_every_trial_within_the_margin_is_seen_exactly(courses: list[Course]) -> None:
    race, grid = make(courses, len(courses))
    play(race, courses, grid)
    winner = race.winner(GOAL)
    if winner is None:
        assert all(race.steps(index) == BUDGET for index in range(len(courses)))
        return
    for index, course in enumerate(courses):
        first = next((evaluation for evaluation in grid.evaluations() if evaluation >= course.passes), math.inf)
        if first <= 1.5 * winner:
            assert race.steps(index) >= first
            assert race.status(index) == "complete"
        elif race.status(index) == "stopped":
            assert race.steps(index) >= min(1.5 * winner, BUDGET)


@given(courses_with_divergence, st.integers(1, 8), st.randoms(use_true_random=False))
@pytest.mark.slow
def test_the_order_of_outcomes_changes_nothing(courses: list[Course], pack: int, shuffle: random.Random) -> None:
    results = []
    for order in (None, shuffle):
        race, grid = make(courses, 6, pack=pack)
        units = play(race, courses, grid, order)
        results.append((set(units), [(race.status(i), race.steps(i)) for i in range(len(race.trials))]))
    assert results[0] == results[1]


@given(courses_with_divergence)
def test_infeasible_trials_are_replaced_up_to_a_bound(courses: list[Course]) -> None:
    wanted = 6
    race, grid = make(courses, wanted)
    play(race, courses, grid)
    feasible = sum(race.status(index) != "diverged" for index in range(len(race.trials)))
    assert feasible == wanted or len(race.trials) == min(len(courses), LARGEST_DRAW * wanted)
    assert feasible <= wanted


@given(courses_with_divergence, st.integers(1, 8))
def test_pack_size_changes_no_trial(courses: list[Course], pack: int) -> None:
    results = []
    for size in (1, pack):
        race, grid = make(courses, 6, pack=size)
        play(race, courses, grid)
        results.append([(race.status(i), race.steps(i)) for i in range(len(race.trials))])
    assert results[0] == results[1]


def test_the_margin_waits_for_the_hardest_goal() -> None:
    courses = [Course(10, 100), Course(20, 400), Course(900)]
    grid = Grid(1.05, 1, BUDGET)
    race = Race(
        source(3), search_round=SearchRound(16), wanted=3, pack_size=8, grid=grid, goals=(GOAL, HARDER), margin=1.5
    )
    play(race, courses, grid)
    hardest = race.winner(HARDER)
    assert hardest == grid.at_least(100)
    assert race.steps(1) == race.steps(2) == grid.at_least(1.5 * hardest)
    assert [race.status(index) for index in range(3)] == ["complete", "stopped", "stopped"]


def test_a_trial_that_diverges_after_its_goal_counts_as_reached() -> None:
    race, grid = make([Course(9, diverges=12)], 1)
    play(race, [Course(9, diverges=12)], grid)
    assert race.winner(GOAL) == 9
    assert len(race.trials) == 1


@pytest.mark.parametrize("pack", [1, 4])
def test_groups_keep_their_members_and_name_every_step_range(pack: int) -> None:
    courses = [Course(200), Course(math.inf, diverges=30), Course(300), Course(400), Course(math.inf)]
    race, grid = make(courses, 4, pack=pack)
    for unit in play(race, courses, grid):
        untils = [step_range.until for step_range in unit.step_ranges]
        assert untils == sorted(set(untils))
        assert all(
            set(later.members) <= set(step_range.members) for step_range, later in itertools.pairwise(unit.step_ranges)
        )


@settings(max_examples=20)
@given(st.integers(1, 4000), st.floats(1.01, 2.0), st.integers(1, 50))
def test_grid_is_ascending_geometric_and_ends_at_the_budget(last: int, ratio: float, first: int) -> None:
    grid = Grid(ratio, first, last)
    evaluations = grid.evaluations()
    assert evaluations[-1] == last
    assert all(later > evaluation for evaluation, later in itertools.pairwise(evaluations))
    for evaluation, later in itertools.pairwise(evaluations):
        assert later - evaluation <= max(1, math.ceil((ratio - 1) * evaluation + 1))
    assert set(grid.rungs()) <= set(evaluations) and grid.rungs()[-1] == last
    assert grid.between(0, last) == evaluations
