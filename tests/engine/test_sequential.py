"""Evaluations that end early: how often that is wrong, how soon it happens, and the formulas behind it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from batchscope.engine.evaluate import _bounds, is_due
from batchscope.engine.sequential import FEWEST, STANDARD_ERRORS_ESTIMATED, Sample, _hall
from batchscope.spec.goal import Goal

Array = NDArray[np.float64]
WRONG = 1e-3


def ends(total: int) -> list[int]:
    """After how many examples is decided, and all of them."""
    found = [0]
    for _, end, _ in _bounds(total, 256):
        if is_due(end, found[-1]) or end == total:
            found.append(end)
    return found[1:]


def sample(values: Array, total: int) -> Sample:
    binary = bool(np.isin(values, (0, 1)).all())
    return Sample(len(values), total, values.sum(), (values**2).sum(), (values**3).sum(), binary)


def hits(count: int, total: int, k: int) -> Sample:
    return Sample(count, total, k, k, k, True)


def fewest_rejected(count: int, total: int, goal: Goal) -> int:
    """The hits from which on a sample is rejected for a goal below: the statistic grows with them."""
    rejected = [hits(count, total, k).is_out_of_reach(goal) for k in range(count + 1)]
    assert rejected == sorted(rejected)
    return rejected.index(True) if any(rejected) else count + 1


def wrong_rejections(total: int, p: float, runs: int) -> float:
    """The share of trials with the most hits that are still below ``p`` that any of their parts rejects."""
    generator, goal = np.random.default_rng(0), Goal("validation/error", "<", p)
    there = math.ceil(total * p) - 1
    seen = np.zeros(runs, int)
    rejected = np.zeros(runs, bool)
    for start, end in itertools.pairwise([0, *ends(total)[:-1]]):
        left = there - seen
        seen += generator.hypergeometric(left, total - start - left, end - start)
        rejected |= seen >= fewest_rejected(end, total, goal)
    return float(rejected.mean())


@pytest.mark.parametrize(("total", "p"), [(300, 0.15), (5000, 0.05), (5000, 0.9)])
def test_a_trial_just_beyond_its_goal_is_rejected_less_than_once_in_a_thousand(total: int, p: float) -> None:
    assert wrong_rejections(total, p, 60_000) < WRONG


@pytest.mark.slow
@pytest.mark.parametrize("total", [300, 1000, 5000, 50_000])
@pytest.mark.parametrize("p", [0.01, 0.05, 0.15, 0.5, 0.9])
def test_wrong_rejections_in_two_hundred_thousand(total: int, p: float) -> None:
    assert wrong_rejections(total, p, 200_000) < WRONG


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal": lambda generator, size: generator.standard_normal(size),
    "uniform": lambda generator, size: generator.random(size),
    "exponential": lambda generator, size: generator.standard_exponential(size),
    "long right tail": lambda generator, size: generator.lognormal(0, 1, size),
    "long left tail": lambda generator, size: -generator.lognormal(0, 1, size),
    "cross entropy": lambda generator, size: np.logaddexp(0, -3 * generator.standard_normal(size) - 2),
}


def wrong_rejections_of(shape: str, side: str, total: int, runs: int) -> float:
    """The share of trials whose mean is just beyond a goal that any of their parts rejects."""
    generator, wrong = np.random.default_rng(1), 0
    for _ in range(runs // 500):
        values = SHAPES[shape](generator, (500, total))
        for end in (end for end in ends(total)[:-1] if end >= FEWEST):
            own = values[:, :end]
            short = (own.mean(1) - values.mean(1)) * (1 if side == "<" else -1)
            error = own.std(1) * math.sqrt((1 - end / total) / end)
            for k in np.flatnonzero(short > 0.9 * STANDARD_ERRORS_ESTIMATED * error):
                threshold = values[k].mean() + (1e-9 if side == "<" else -1e-9)
                wrong += sample(own[k], total).is_out_of_reach(Goal("validation/loss", side, threshold))  # type: ignore[arg-type]
    return wrong / runs


@pytest.mark.parametrize("side", "<>")
@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_of_a_loss_is_rejected_wrongly(shape: str, side: str) -> None:
    assert wrong_rejections_of(shape, side, 600, 6000) < WRONG


@pytest.mark.slow
@pytest.mark.parametrize("side", "<>")
@pytest.mark.parametrize("shape", SHAPES)
def test_wrong_rejections_of_losses_in_fifty_thousand(shape: str, side: str) -> None:
    assert wrong_rejections_of(shape, side, 1500, 50_000) < WRONG


def test_the_statistic_of_hits_is_the_tail_of_the_hypergeometric_distribution() -> None:
    total, count, p = 5000, 500, 0.15
    for k in (90, 100, 110, 120):
        found = hits(count, total, k)._root_likelihood_ratio(p, 1)
        exact = stats.norm.isf(stats.hypergeom.sf(k - 1, total, round(total * p), count))
        assert found == pytest.approx(exact, abs=0.03)


def test_far_trials_end_soon_and_near_ones_never() -> None:
    goal = Goal("validation/error", "<", 0.15)
    assert hits(32, 5000, 29).is_out_of_reach(goal)
    assert not any(hits(end, 5000, round(0.151 * end)).is_out_of_reach(goal) for end in ends(5000))
    assert not hits(5000, 5000, 5000).is_out_of_reach(goal)  # all of them: the mean itself decides
    at_least = Goal("validation/accuracy", ">", 0.85)
    assert hits(32, 5000, 3).is_out_of_reach(at_least)
    assert hits(64, 128, 35).is_out_of_reach(Goal("validation/error", "<", 0.25))  # more than 32 of 128 are there


def test_what_says_nothing_decides_nothing() -> None:
    goal = Goal("validation/loss", "<", 0.1)
    assert not sample(np.full(1000, 5.0), 5000).is_out_of_reach(goal)
    assert not sample(np.array([np.nan, *np.ones(999)]), 5000).is_out_of_reach(goal)
    assert not sample(np.array([np.inf, *np.ones(999)]), 5000).is_out_of_reach(goal)
    values = np.random.default_rng(0).exponential(5, 1000)
    assert sample(values, 5000).is_out_of_reach(goal)
    assert not sample(values[: FEWEST - 1], 5000).is_out_of_reach(goal)


def test_halls_transformation_is_monotone_and_leaves_symmetry_alone() -> None:
    statistic = np.linspace(-20, 20, 401)
    for skewness in (-8.0, -1.0, 0.5, 8.0):
        assert (np.diff([_hall(t, skewness, 128) for t in statistic]) >= 0).all()
    assert _hall(3.0, 0.0, 128) == 3.0
    # The transformed statistic of a skewed mean is normal where the plain one is not.
    generator = np.random.default_rng(2)
    values = generator.standard_exponential((20_000, 64))
    plain = (values.mean(1) - 1) / values.std(1) * 8
    skewness = stats.skew(values, axis=1)
    fixed = np.array([_hall(t, g, 64) for t, g in zip(plain, skewness, strict=True)])
    assert abs(stats.skew(fixed)) < 0.2 * abs(stats.skew(plain))
