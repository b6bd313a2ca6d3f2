"""Successive halving: who goes on is a function of outcomes alone, and every rung costs about the same."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscope.plan.halving import places, survivors
from batchscope.plan.race import Outcome, Policy, Race, SearchRound, Unit
from batchscope.plan.rungs import Grid
from batchscope.spec.goal import Goal
from batchscope.spec.trial import Trial

ERROR = Goal("validation/error", "<", 0.1)
ACCURACY = Goal("validation/accuracy", ">", 0.8)
BUDGET = 1000
GRID = Grid(1.05, 1, BUDGET)
Curves = Mapping[Goal, Callable[[int], float]]


def decay(rate: float) -> Curves:
    """An error of exp(-rate step): it passes 0.1 after log(10) / rate steps."""
    return {ERROR: lambda step: math.exp(-rate * step)}


def seen(unit: Unit, curves: Curves, before: set[Goal]) -> Outcome:
    reached, best = {}, {}
    for goal, value in curves.items():
        values = [value(evaluation) for evaluation in unit.evaluations]
        best[goal] = min(values) if goal.side == "<" else max(values)
        first = next((evaluation for evaluation in unit.evaluations if goal.is_reached(value(evaluation))), None)
        if first is not None and goal not in before:
            reached[goal] = first
    return Outcome(unit.until, False, reached, best)


def play(
    trials: Sequence[Curves], policy: Policy = "halving", pack: int = 1, shuffle: random.Random | None = None
) -> tuple[Race, list[Unit]]:
    race = Race(
        (Trial(16, index, {}, 0) for index in range(len(trials))),
        search_round=SearchRound(16),
        wanted=len(trials),
        pack_size=pack,
        grid=GRID,
        goals=tuple(trials[0]),
        policy=policy,
    )
    waiting: list[Unit] = []
    done: list[Unit] = []
    reached: dict[int, set[Goal]] = {index: set() for index in range(len(trials))}
    while not race.finished:
        waiting += race.take()
        if shuffle:
            shuffle.shuffle(waiting)
        unit = waiting.pop(0)
        outcomes = {index: seen(unit, trials[index], reached[index]) for index in unit.members}
        for index, outcome in outcomes.items():
            reached[index] |= set(outcome.reached)
        race.record(unit, outcomes)
        done.append(unit)
    return race, done


rates = st.lists(st.floats(1e-4, 0.5), min_size=1, max_size=24)


@given(rates)
def test_curves_that_never_cross_give_the_steps_of_the_exact_race(found: list[float]) -> None:
    trials = [decay(rate) for rate in found]
    assert play(trials)[0].winner(ERROR) == play(trials, "race")[0].winner(ERROR)


def test_a_trial_that_starts_slowly_is_dropped_before_it_wins() -> None:
    late: Curves = {ERROR: lambda step: 1.0 if step < 250 else 0.01}
    trials = [*(decay(0.004 + index * 1e-5) for index in range(19)), late]
    exact, halved = play(trials, "race")[0], play(trials)[0]
    assert exact.winner(ERROR) == GRID.at_least(250)
    assert halved.winner(ERROR) == GRID.at_least(math.log(10) / 0.00418)
    assert halved.status(19) == "pruned" and halved.steps(19) < 250


@given(rates)
def test_a_rung_takes_no_more_trials_than_its_share_of_the_budget(found: list[float]) -> None:
    # The goal is out of reach, so that nothing but halving ends a trial.
    count = len(found)
    trials: list[Curves] = [{ERROR: lambda step, rate=rate: 0.2 + math.exp(-rate * step)} for rate in found]  # type: ignore[misc]
    race, units = play(trials)
    members: dict[int, int] = {}
    for unit in units:
        members[unit.until] = members.get(unit.until, 0) + len(unit.members)
    assert all(trained == min(count, places(BUDGET, until)) for until, trained in members.items() if until > 2)
    work = sum(race.steps(index) for index in range(count))
    assert work <= BUDGET * (2 + 0.4 * (1 + math.log(count, 1.5)))
    statuses = [race.status(index) for index in range(count)]
    assert statuses.count("complete") == 1 and statuses.count("pruned") == count - 1


@settings(max_examples=30)
@given(rates, st.integers(1, 8), st.randoms(use_true_random=False))
def test_neither_order_nor_packs_change_anything(found: list[float], pack: int, shuffle: random.Random) -> None:
    trials = [decay(rate) for rate in found]
    results = []
    for size, order in ((1, None), (pack, shuffle)):
        race, _ = play(trials, pack=size, shuffle=order)
        results.append([(race.status(index), race.steps(index)) for index in range(len(trials))])
    assert results[0] == results[1]


def test_a_trial_goes_on_if_it_ranks_high_for_any_goal() -> None:
    # The first half is the better the lower its index for the error, and the worse for the accuracy.
    trials: list[Curves] = [
        {
            ERROR: lambda step, index=index: 0.2 + 0.01 * index,  # type: ignore[misc]
            ACCURACY: lambda step, index=index: 0.5 + 0.01 * index,  # type: ignore[misc]
        }
        for index in range(12)
    ]
    race, _ = play(trials)
    kept = {index for index in range(12) if race.status(index) == "complete"}
    assert kept == {0, 11}


def test_trials_that_reached_rank_first_by_their_steps_and_ties_go_to_the_lower_index() -> None:
    standings = {0: ({}, {ERROR: 0.11}), 1: ({ERROR: 9}, {ERROR: 0.0}), 2: ({ERROR: 5}, {ERROR: 0.09}), 3: ({}, {})}
    ranking = [survivors(standings, (ERROR,), count) for count in range(5)]
    assert ranking == [set(), {2}, {1, 2}, {0, 1, 2}, {0, 1, 2, 3}]
    assert survivors({4: ({}, {ERROR: 0.5}), 3: ({}, {ERROR: 0.5})}, (ERROR,), 1) == {3}


@pytest.mark.parametrize("count", [1, 7, 50])
def test_it_never_takes_more_than_the_race(count: int) -> None:
    trials = [decay(0.001 * (1 + index)) for index in range(count)]
    halved, raced = play(trials)[0], play(trials, "race")[0]
    for index in range(count):
        assert halved.steps(index) <= raced.steps(index)


def test_shares_of_the_budget_fall_to_one() -> None:
    shares = [places(BUDGET, rung) for rung in GRID.rungs()]
    assert shares[-1] == 1 and all(later <= share for share, later in itertools.pairwise(shares))
