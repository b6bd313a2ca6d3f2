"""The nearest curve with three regimes, against its defining properties and a general optimiser."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from batchscope.analysis.shape import Array, three_regimes

X = np.log(2.0) * np.array([0, 1, 2, 4, 5, 6, 7.5])
EVEN = np.ones(len(X))


def law(critical: float) -> Array:
    return np.asarray(np.log1p(np.exp(critical - X)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-3, 8), min_size=len(X), max_size=len(X)))
def test_slopes_rise_from_no_less_than_minus_one_to_no_more_than_zero(values: list[float]) -> None:
    curve = three_regimes(X, np.array([values]), EVEN)[0]
    slopes = np.diff(curve) / np.diff(X)
    assert slopes[0] >= -1 - 1e-4
    assert slopes[-1] <= 1e-4
    assert (np.diff(slopes) >= -1e-4).all()


def test_a_curve_that_has_the_shape_stays_as_it_is() -> None:
    curves = np.stack([law(2.0), law(-50.0), law(50.0), np.maximum(3 - X, 1.0)])
    np.testing.assert_allclose(three_regimes(X, curves, EVEN)[:3], curves[:3], atol=1e-5)


def test_it_is_the_nearest_by_weighted_least_squares() -> None:
    draw = np.random.default_rng(0)
    deviation = draw.uniform(0.1, 0.5, len(X))
    noisy = law(2.0) + deviation * draw.standard_normal(len(X))

    def distance(curve: Array) -> float:
        return float((((curve - noisy) / deviation) ** 2).sum())

    def slopes(curve: Array) -> Array:
        return np.asarray(np.diff(curve) / np.diff(X))

    rules = [
        {"type": "ineq", "fun": lambda curve: slopes(curve)[0] + 1},
        {"type": "ineq", "fun": lambda curve: -slopes(curve)[-1]},
        {"type": "ineq", "fun": lambda curve: np.diff(slopes(curve))},
    ]
    general = minimize(distance, law(1.0), constraints=rules, method="SLSQP", options={"ftol": 1e-12, "maxiter": 500})
    found = three_regimes(X, noisy[None], deviation)[0]
    assert distance(found) <= general.fun * (1 + 1e-4)
    np.testing.assert_allclose(found, general.x, atol=0.01)


def test_it_takes_noise_away() -> None:
    noise = 0.2 * np.random.default_rng(0).standard_normal((200, len(X)))
    smooth = three_regimes(X, law(2.0) + noise, EVEN)
    assert ((smooth - law(2.0)) ** 2).mean() < 0.7 * (noise**2).mean()
