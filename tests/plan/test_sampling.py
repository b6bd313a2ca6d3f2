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
