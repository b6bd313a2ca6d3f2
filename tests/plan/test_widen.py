"""Widening: only the sides that are near move, and what is added is filled as densely as what was there."""

from __future__ import annotations

import itertools

import pytest

from batchscope.plan.sampling import contains, further_trials
from batchscope.plan.widen import further_count, widened
from batchscope.spec.space import Choice, Range, Space
from batchscope.spec.study import Search

SPACE: Space = {
    "learning_rate": Range(min=1e-3, max=1e-1, scale="log"),
    "momentum": Range(min=0.5, max=0.99, scale="reverse_log"),
    "weight_decay": Range(min=0, max=0.1),
    "beta1": Choice(values=(0.9,)),
}
ONE = {"": SPACE}


def point(rate: float = 1e-2, momentum: float = 0.9, decay: float = 0.05) -> dict[str, float]:
    return {"learning_rate": rate, "momentum": momentum, "weight_decay": decay, "beta1": 0.9}


def test_a_point_inside_moves_nothing() -> None:
    assert widened(ONE, point(), 0.05) == ONE


def test_a_near_side_moves_out_by_half_the_width_on_its_scale() -> None:
    found = widened(ONE, point(rate=0.095), 0.05)[""]
    rate = found["learning_rate"]
    assert isinstance(rate, Range)
    assert rate.min == 1e-3 and rate.max == pytest.approx(1.0)  # two decades wide: one decade more
    assert {name for name in SPACE if found[name] != SPACE[name]} == {"learning_rate"}
    momentum = widened(ONE, point(momentum=0.9895), 0.05)[""]["momentum"]
    assert isinstance(momentum, Range)
    assert 1 - momentum.max == pytest.approx(0.01 * (0.01 / 0.5) ** 0.5)


def test_what_begins_at_zero_stays_there() -> None:
    assert widened(ONE, point(decay=0.0), 0.05) == ONE


def test_what_is_added_is_filled_as_densely() -> None:
    after = widened(ONE, point(rate=0.095), 0.05)
    assert further_count(ONE, after, 20) == 10  # half the width more
    search = Search(trials=20, space=after[""])
    trials = list(itertools.islice(further_trials(search, ONE, 16, 0, 1, 20), 10))
    assert [trial.index for trial in trials] == list(range(20, 30))
    assert all(trial.revision == 1 and not contains(SPACE, trial.hyperparameters) for trial in trials)
    assert all(contains(after[""], trial.hyperparameters) for trial in trials)


def test_of_several_optimizers_only_that_of_the_point_is_widened_and_filled() -> None:
    before: dict[str, Space] = {"momentum": SPACE, "adam": {"learning_rate": Range(min=1e-4, max=1e-2, scale="log")}}
    after = widened(before, {"optimizer": "adam", "learning_rate": 9e-3}, 0.05)
    assert after["momentum"] == SPACE and after["adam"] != before["adam"]
    assert further_count(before, after, 20) == 5  # half as much more, of the half of the trials that it has
    found = further_trials(Search(trials=20, optimizers=after), before, 16, 0, 1, 20)
    for trial in itertools.islice(found, 5):
        assert trial.hyperparameters["optimizer"] == "adam" and float(trial.hyperparameters["learning_rate"]) > 1e-2
