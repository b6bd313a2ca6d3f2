"""Points of a search: keyed by seed, stable under extension, uniform on their scale."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from batchscope.plan.sampling import first_trials, points
from batchscope.spec.space import Range
from batchscope.spec.study import Search

SPACE = {
    "learning_rate": {"min": 1e-4, "max": 10, "scale": "log"},
    "momentum": {"min": 0.5, "max": 0.999, "scale": "reverse_log"},
    "weight_decay": {"min": 0, "max": 0.1},
}


def search(method: str, **more: object) -> Search:
    return Search.model_validate({"method": method, "space": SPACE, **more})


def take(method: str, count: int, seed: int = 0) -> list[dict[str, float]]:
    found = list(itertools.islice(points(search(method), seed), count))
    return [{name: float(value) for name, value in point.items()} for point in found]


@pytest.mark.parametrize("method", ["sobol", "halton", "random"])
def test_more_points_leave_the_first_ones_as_they_were(method: str) -> None:
    assert take(method, 200)[:10] == take(method, 10)
    assert take(method, 10, seed=1) != take(method, 10)


@pytest.mark.parametrize("method", ["sobol", "halton", "random"])
def test_points_are_uniform_on_the_scale(method: str) -> None:
    found = take(method, 512)
    on_scale = {
        "learning_rate": [(math.log10(p["learning_rate"]) + 4) / 5 for p in found],
        # Momentum is sampled so that log(1 - momentum) is uniform between log 0.5 and log 0.001.
        "momentum": [math.log((1 - p["momentum"]) / 0.5) / math.log(0.001 / 0.5) for p in found],
        "weight_decay": [p["weight_decay"] / 0.1 for p in found],
    }
    for values in on_scale.values():
        assert stats.kstest(values, "uniform").pvalue > 0.01


def test_quasi_random_points_are_more_even_than_random_ones() -> None:
    def discrepancy(method: str) -> float:
        space = [Range.model_validate(entry) for entry in SPACE.values()]
        unit = [[d.to_unit(v) for d, v in zip(space, p.values(), strict=True)] for p in take(method, 128)]
        return float(stats.qmc.discrepancy(np.clip(unit, 0, 1)))

    assert discrepancy("sobol") < 0.3 * discrepancy("random")
    assert discrepancy("halton") < 0.3 * discrepancy("random")


def test_a_grid_is_every_combination_evenly_on_the_scale() -> None:
    found = search(
        "grid", space={"learning_rate": {"min": 1e-3, "max": 1, "scale": "log", "points": 4}, "momentum": [0, 0.9]}
    )
    assert found.count == 8
    listed = np.array([[float(value) for value in point.values()] for point in points(found, 0)])
    rates = [1e-3, 1e-2, 1e-1, 1.0]
    np.testing.assert_allclose(listed, [[rate, momentum] for rate in rates for momentum in (0.0, 0.9)], rtol=1e-12)


def test_batch_sizes_are_searched_independently_and_trials_have_their_own_seeds() -> None:
    found = search("sobol")
    at_16, at_32 = first_trials(found, 16, 0, 8), first_trials(found, 32, 0, 8)
    assert [t.hyperparameters for t in at_16] != [t.hyperparameters for t in at_32]
    assert len({trial.seed for trial in (*at_16, *at_32)}) == 16
    assert len({trial.id("context") for trial in (*at_16, *at_32)}) == 16
    assert at_16[0].id("context") == first_trials(found, 16, 0, 1)[0].id("context")
    assert at_16[0].id("context") != at_16[0].id("other")


def test_optimizers_take_turns_each_through_a_sequence_and_a_space_of_its_own() -> None:
    spaces: dict[str, dict[str, object]] = {
        "momentum": {**SPACE},
        "adam": {"learning_rate": {"min": 1e-5, "max": 1e-2, "scale": "log"}},
    }
    found = list(itertools.islice(points(Search.model_validate({"optimizers": spaces}), 0), 64))
    assert [point["optimizer"] for point in found] == ["momentum", "adam"] * 32
    assert all(point.keys() - {"optimizer"} == spaces[str(point["optimizer"])].keys() for point in found)
    exponents = [math.log10(float(point["learning_rate"])) for point in found if point["optimizer"] == "adam"]
    assert sorted(math.floor((exponent + 5) / 3 * 32) for exponent in exponents) == list(range(32)), (
        "as even as Sobol's"
    )
    alone = list(itertools.islice(points(Search.model_validate({"optimizers": {"adam": spaces["adam"]}}), 0), 32))
    assert alone == [point for point in found if point["optimizer"] == "adam"], "whoever else is searched"


def test_what_optimizers_share_is_given_to_those_that_have_it() -> None:
    search = Search.model_validate({"optimizers": ["momentum", "adam"], "space": {"learning_rate": 1, "momentum": 0.9}})
    assert {name: set(space) for name, space in search.optimizers.items()} == {
        "momentum": {"learning_rate", "momentum"},
        "adam": {"learning_rate"},
    }
    assert search.space == {} and Search.model_validate(search.model_dump()) == search


def test_a_grid_of_several_optimizers_is_the_grid_of_each() -> None:
    search = Search.model_validate(
        {"method": "grid", "optimizers": {"sgd": {"learning_rate": [1, 2, 3]}, "adam": {"learning_rate": [0.1]}}}
    )
    assert [tuple(point.values()) for point in points(search, 0)] == [("sgd", 1), ("adam", 0.1), ("sgd", 2), ("sgd", 3)]
    assert search.trials == 4
