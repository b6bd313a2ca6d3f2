"""The lower tail: coverage where it is exact, invariance, and what it must not pretend."""

from __future__ import annotations

import numpy as np
import pytest

from batchscope.analysis import tail

ANY_EVALUATION = np.zeros(1)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0], ids=["half", "one", "two"])
def test_intervals_of_the_expected_minimum_cover_it(power: float) -> None:
    # log steps - log 500 is E**power for exponential E: the tail is exact, with xi = power.
    studies, trials, scale = 150, 24, 0.4
    draw = generator(round(4 * power))
    steps = 500 * np.exp(scale * draw.exponential(size=(40_000, trials)) ** power)
    truth = np.exp(np.log(steps.min(1))).mean()
    hits = []
    for sample in np.sort(steps[:studies]):
        seen = sample[sample <= 1.5 * sample[0]]
        watched = np.full(trials - len(seen), 1.5 * sample[0])
        expected = tail.fit(seen * (1 - 1e-7), seen, watched, 400, draw).expected(trials, ANY_EVALUATION)
        low, high = np.quantile(expected, [0.05, 0.95])
        hits.append(low <= truth <= high)
    assert 0.83 <= np.mean(hits) <= 0.98


def test_a_race_that_keeps_the_tail_gives_the_interval_of_full_training() -> None:
    steps = np.sort(100 * np.exp(generator().exponential(size=30)))
    horizon = steps[tail.size(30)]
    seen, slower = steps[steps <= horizon], steps[steps > horizon]
    full = tail.fit(steps / 1.05, steps, np.empty(0), 200, generator(1))
    raced = tail.fit(seen / 1.05, seen, np.full(len(slower), horizon * 1.1), 200, generator(1))
    np.testing.assert_array_equal(full.expected(30, ANY_EVALUATION), raced.expected(30, ANY_EVALUATION))


def test_the_unit_of_steps_does_not_matter() -> None:
    steps = np.sort(100 * np.exp(generator().exponential(size=20)))
    one, seven = (
        tail.fit(scale * steps / 1.05, scale * steps, np.empty(0), 100, generator(1)).expected(20, ANY_EVALUATION)
        for scale in (1.0, 7.0)
    )
    np.testing.assert_allclose(seven, 7 * one, rtol=1e-9)


def test_more_trials_are_expected_to_take_fewer_steps() -> None:
    steps = np.sort(100 * np.exp(generator().exponential(size=20)))
    fitted = tail.fit(steps / 1.05, steps, np.empty(0), 100, generator(1))
    expected = np.array([fitted.expected(trials, ANY_EVALUATION) for trials in (10, 20, 40)])
    assert (np.diff(expected, axis=0) < 0).all()


def test_trials_that_all_cross_in_one_gap_say_no_more_than_that_gap() -> None:
    evaluations = np.array([90.0, 95.0, 100.0, 105.0])
    fitted = tail.fit(np.full(16, 95.0), np.full(16, 100.0), np.empty(0), 500, generator())
    low, high = np.quantile(fitted.expected(16, evaluations), [0.05, 0.95])
    assert 90 <= low <= 100 <= high <= 105
    assert set(np.unique(np.searchsorted(evaluations, fitted.expected(16, evaluations)))) <= {1, 2, 3}


def test_one_fast_trial_alone_leaves_the_upper_end_wide_open() -> None:
    fitted = tail.fit(np.array([95.0]), np.array([100.0]), np.full(15, 150.0), 500, generator())
    low, high = np.quantile(fitted.expected(16, ANY_EVALUATION), [0.05, 0.95])
    assert low < 60
    assert high > 200


def test_a_trial_censored_early_says_little() -> None:
    steps = np.array([100.0, 110.0, 120.0, 135.0, 150.0, 160.0])
    late, early = (
        tail.fit(steps / 1.05, steps, np.full(20, end), 2000, generator()).expected(26, ANY_EVALUATION).mean()
        for end in (160.0, 20.0)
    )
    # Twenty trials known to be slow make the six fast ones rare; twenty that nobody watched do not.
    assert early < late
