"""The law for the time of an update: closed forms come back, noise is bounded, and its error is honest."""

from __future__ import annotations

import numpy as np
import pytest

from batchscope.probing.time_model import fit_time_model, law
from batchscope.spec.probe import TimeModel

SIZES = [2**i for i in range(14)]
CURVES = {
    "line": (1e-3, 1e-6, 1.0),
    "soft": (3e-4, 2e-5, 1.5),
    "bend": (1e-3, 1e-6, 3.0),
    "corner": (2e-3, 5e-6, 12.0),
}


def times(fixed: float, per_example: float, sharpness: float, noise: float = 0.0, seed: int = 0) -> list[float]:
    exact = law(np.array(SIZES, dtype=np.float64), fixed, per_example, sharpness)
    drawn = exact * np.exp(noise * np.random.default_rng(seed).standard_normal(len(SIZES)))
    return [float(value) for value in drawn]


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_an_exact_curve_comes_back(curve: tuple[float, float, float]) -> None:
    fit = fit_time_model(SIZES, times(*curve))
    assert (fit.fixed, fit.per_example, fit.sharpness) == pytest.approx(curve, rel=1e-3)
    assert fit.error < 1e-3


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_a_noisy_curve_is_known_better_than_its_points(curve: tuple[float, float, float]) -> None:
    exact = np.array(times(*curve))
    departures = []
    for seed in range(5):
        fit = fit_time_model(SIZES, times(*curve, noise=0.03, seed=seed))
        fitted = law(np.array(SIZES, dtype=np.float64), fit.fixed, fit.per_example, fit.sharpness)
        departures.append(np.sqrt(np.mean((fitted / exact - 1) ** 2)))
        assert fit.fixed == pytest.approx(curve[0], rel=0.1) and fit.per_example == pytest.approx(curve[1], rel=0.1)
    # Three parameters through 14 points with 3% noise: sqrt(3 / 14) of it, on average.
    assert np.mean(departures) < 0.03 * 0.75


def test_scale_and_units_do_not_matter() -> None:
    seconds = times(*CURVES["bend"], noise=0.05)
    one = fit_time_model(SIZES, seconds)
    other = fit_time_model([8 * size for size in SIZES], [1000 * value for value in seconds])
    assert other.fixed == pytest.approx(1000 * one.fixed, rel=1e-4)
    assert other.per_example == pytest.approx(125 * one.per_example, rel=1e-4)
    assert other.error == pytest.approx(one.error, rel=1e-3)


@pytest.mark.parametrize("power", [0, 1])
def test_the_limits_of_the_law(power: int) -> None:
    fit = fit_time_model(SIZES, [1e-3 * size**power for size in SIZES])
    assert law(np.array([100.0]), fit.fixed, fit.per_example, fit.sharpness)[0] == pytest.approx(
        1e-3 * 100**power, rel=1e-3
    )


def test_the_error_is_that_of_the_point_left_out() -> None:
    """By hand: lines through two of (1, 1), (10, 2), (100, 11), all exact on 0.9 + 0.1 B but the middle one."""
    fit = fit_time_model([1, 10, 100], [1.0, 2.5, 10.9])
    assert fit.sharpness == 1
    line_through_the_ends = 1 + 9 * (10.9 - 1) / 99
    line_through_the_last = 10.9 - 99 * (10.9 - 2.5) / 90
    line_through_the_first = 1 + 99 * (2.5 - 1) / 9
    errors = [
        abs(line_through_the_ends / 2.5 - 1),
        abs(line_through_the_last / 1.0 - 1),
        abs(line_through_the_first / 10.9 - 1),
    ]
    assert fit.error == pytest.approx(max(errors), rel=1e-4)


def test_two_points_say_how_little_they_check() -> None:
    fit = fit_time_model([1, 10], [1.0, 2.0])
    assert law(np.array([1.0, 10.0]), fit.fixed, fit.per_example, 1.0) == pytest.approx([1.0, 2.0], rel=1e-6)
    assert fit.error == pytest.approx(4.0)  # proportional from (1, 1): 10 where 2 was measured


def test_data_of_another_form_has_a_large_error() -> None:
    """A step in the middle, as where a micro-batch no longer fits a cache: the law cannot follow, and says so."""
    seconds = [1e-3 if size < 64 else 5e-3 if size < 1024 else 6e-3 for size in SIZES]
    fit = fit_time_model(SIZES, seconds)
    fitted = law(np.array(SIZES, dtype=np.float64), fit.fixed, fit.per_example, fit.sharpness)
    assert fit.error >= np.abs(fitted / seconds - 1).max() > 0.3


def test_the_document_speaks_the_same_law() -> None:
    for fixed, per_example, sharpness in CURVES.values():
        model = TimeModel(
            fixed=fixed, per_example=per_example, sharpness=sharpness, error=0, smallest=1, largest=SIZES[-1]
        )
        assert [model.seconds(size) for size in SIZES] == pytest.approx(times(fixed, per_example, sharpness))


@pytest.mark.parametrize(
    ("sizes", "seconds"),
    [([1], [1.0]), ([1, 1], [1.0, 2.0]), ([1, 2], [1.0]), ([1, 2], [1.0, 0.0]), ([1, 2], [1.0, float("nan")])],
)
def test_what_no_law_goes_through_is_refused(sizes: list[int], seconds: list[float]) -> None:
    with pytest.raises(ValueError, match=r"batch sizes|times"):
        fit_time_model(sizes, seconds)
