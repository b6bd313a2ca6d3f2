"""The promise is kept: nine of ten fresh trainings fall into the interval, and their mean is what was promised.

The whole table, with more studies, is in docs/statistics.md; ``simulated_promises.py`` prints it.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr

from analysis.simulated_promises import NOISES, STUDIES, Study, mean, resampled, simulated
from batchscope.analysis.tuned_steps import Confirmation, tuned_steps
from batchscope.spec.study import Confirm


def confirmation(
    *log_steps: list[float] | NDArray[np.float64], missed: list[list[bool]] | None = None, gap: float = 0.0
) -> Confirmation:
    steps = np.array(log_steps)
    flags = np.zeros(steps.shape, dtype=bool) if missed is None else np.array(missed)
    return Confirmation(tuple("abcdef"[: len(steps)]), steps, flags, gap)


def test_promises_are_kept_over_a_few_studies_of_every_kind() -> None:
    kept = mean([simulated(kind, noise, 3) for kind in STUDIES for noise in NOISES])
    assert 0.85 <= kept.coverage <= 0.95
    assert 0.97 <= kept.promise <= 1.03
    assert kept.search < 0.9  # what would have been promised without confirmation
    assert 10 < kept.trainings <= 20


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", STUDIES, ids=lambda kind: kind.name)
def test_promises_are_kept_on_every_surface(kind: Study, noise: float) -> None:
    kept = simulated(kind, noise, 60)
    assert 0.85 <= kept.coverage <= 0.95
    assert 0.97 <= kept.promise * np.exp(noise**2 / 2) <= 1.04  # a median lies below a mean


def test_choosing_and_counting_on_the_same_seeds_would_promise_too_little() -> None:
    """Six candidates that are equally good: the best of them on five seeds is lucky, left-out seeds are not."""
    generator = np.random.default_rng(0)
    lucky, kept = [], []
    for _ in range(400):
        steps = 0.3 * generator.standard_normal((6, 5))
        lucky.append(steps.mean(1).min())
        kept.append(np.mean(confirmation(*steps).left_out()[0]))
    assert np.mean(lucky) < -0.1
    assert abs(np.mean(kept)) < 3 * np.std(kept) / np.sqrt(len(kept))


def test_a_candidate_that_missed_the_goal_is_chosen_last_and_leaves_the_interval_open() -> None:
    found = confirmation([0.0, 0.1, 0.2], [1.0, 1.1, 1.2], missed=[[False, True, False], [False] * 3])
    assert found.choice() == 1 and found.choice(without=1) == 0
    alone = tuned_steps({8: confirmation([1.0, 1.1, 1.2, 9.0], missed=[[False, False, False, True]])})[8]
    assert (alone.missed, alone.steps.high) == (1, None) and alone.steps.value == pytest.approx(np.exp(1.15))
    half = tuned_steps({8: confirmation([1.0, 1.1, 9.0, 9.0], missed=[[False, False, True, True]])})[8]
    assert half.steps.value is None and half.missed == 2


def test_steps_are_known_no_better_than_evaluations_lie_apart() -> None:
    same = tuned_steps({8: confirmation([3.0] * 5, gap=0.3)})[8].steps
    assert same.low is not None and same.high is not None
    assert same.low < np.exp(3.0) * 0.9 and same.high > np.exp(3.0) * 1.1


def test_other_batch_sizes_have_a_voice_in_the_noise_of_a_seed() -> None:
    calm = confirmation([3.0, 3.01, 2.99])
    noisy = confirmation([3.0, 3.4, 2.6, 3.2, 2.8])
    alone, beside = (tuned_steps(found)[8].steps for found in ({8: calm}, {8: calm, 16: noisy}))
    assert alone.high is not None and beside.high is not None and beside.high > 1.2 * alone.high
    one = tuned_steps({8: confirmation([3.0]), 16: noisy})[8].steps  # one seed, and the noise of the others
    assert one.low is not None and one.low < np.exp(3.0) < (one.high or 0)


def test_two_trainings_promise_nothing_beyond_what_was_watched() -> None:
    """Student's interval about these two would be 0.01 to 75,000."""
    found = tuned_steps({8: confirmation([np.log(14.0), np.log(56.0)])})[8].steps
    assert found.value == pytest.approx(28) and found.high is None
    assert 1 <= (found.low or 0) < 14
    near = tuned_steps({8: confirmation([np.log(27.0), np.log(29.0)])})[8].steps
    assert 10 < (near.low or 0) < 27 and 29 < (near.high or 0) <= 4 * 28
    short = tuned_steps({8: confirmation([0.0, np.log(4.0)])})[8].steps
    assert short.low == 1  # and nobody trains for less than a step


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("seeds", [2, 5])
def test_a_setting_alone_with_few_seeds_keeps_its_promise(seeds: int, noise: float) -> None:
    generator, inside = np.random.default_rng(seeds), []
    for _ in range(200):
        drawn = 6 + noise * generator.standard_normal(seeds)
        end = tuned_steps({8: confirmation(drawn)}, samples=2)[8].steps
        low, high = np.log(end.low or 0), np.log(end.high or np.inf)
        inside.append(ndtr((high - 6) / noise) - ndtr((low - 6) / noise))
    assert 0.85 - 2 * np.std(inside) / np.sqrt(200) <= np.mean(inside) <= 0.95


def test_trainings_of_a_real_run_can_be_drawn_again() -> None:
    generator = np.random.default_rng(0)
    medians = 3 + 2 * generator.random(200)
    again = medians[:, None] + 0.1 * generator.standard_normal((200, 20))
    searched = np.exp(medians + 0.1 * generator.standard_normal(200))
    kept = resampled({8: (searched, again), 16: (searched, again)}, 20, 60, Confirm())
    assert 0.8 < kept.coverage < 0.97 and 0.95 < kept.promise < 1.05
