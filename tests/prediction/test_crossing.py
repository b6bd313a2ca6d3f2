"""Critical factors: hand-made crossings, and the coverage of the interval on simulated branches."""

from __future__ import annotations

import numpy as np
import pytest

from batchscope.prediction.crossing import critical_factor, is_told
from prediction.exact_branches import Quadratic

FACTORS = np.array([2.0, 4.0, 8.0])


def test_a_straight_line_is_crossed_where_it_passes_the_tolerance() -> None:
    excess = np.array([[0.0, 0.0], [0.02, 0.02], [0.5, 0.5]])
    found = critical_factor(FACTORS, excess, 0.01)
    assert found.value == pytest.approx(2**1.5, rel=1e-3)  # half way from 0 to 0.02, in doublings
    assert found.low == pytest.approx(found.value) and found.high == pytest.approx(found.value)


def test_what_never_passes_is_open_above_and_what_may_pass_has_a_lower_bound() -> None:
    never = critical_factor(FACTORS, np.full((3, 3), -0.1), 0.01)
    assert (never.value, never.low, never.high) == (None, 8.0, None)
    noisy = critical_factor(FACTORS, np.array([[-0.1, 0.1, 0.0]] * 3), 0.01)
    assert noisy.value is None and noisy.high is None
    assert noisy.low is not None and 1 < noisy.low < 2


def test_the_interval_is_that_of_students_t_at_its_ends() -> None:
    excess = np.array([[0.0, 0.004, 0.002], [0.03, 0.05, 0.04], [0.2, 0.25, 0.24]])
    found = critical_factor(FACTORS, excess, 0.01)
    assert found.low is not None and found.value is not None and found.high is not None
    for end, sign in ((found.low, 1), (found.high, -1)):
        each = np.array([np.interp(np.log2(end), [0, 1, 2, 3], [0.0, *row]) for row in excess.T])
        assert each.mean() + sign * 2.91999 * each.std(ddof=1) / np.sqrt(3) == pytest.approx(0.01, abs=2e-4)


def test_a_branch_is_told_to_be_worse_only_beyond_noise() -> None:
    assert is_told(np.array([0.05, 0.06, 0.055]), 0.01)
    assert not is_told(np.array([0.0, 0.2, 0.01]), 0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("momentum", "rate", "steps"), [(0.0, 0.2, 100), (0.9, 0.01, 200), (0.9, 0.01, 600), (0.9, 0.03, 100)]
)
@pytest.mark.parametrize("replicates", [3, 5])
def test_intervals_hold_the_exact_crossing_nine_times_in_ten(
    momentum: float, rate: float, steps: int, replicates: int
) -> None:
    """Within what 400 intervals tell of 0.9, and a skewed loss costs: 0.85 to 0.96."""
    model, factors, window = Quadratic(30, 8, rate, momentum), (1, 2, 4, 8), 96
    exact = model.expected(steps, window, factors, [96])
    losses = model.simulated(steps, window, factors, [96], 400 * replicates, seed=1)
    truth = critical_factor(FACTORS, np.tile((exact / exact[0] - 1)[1:, None], 2), 0.01).value
    held = 0
    for i in range(400):
        own = losses[:, i * replicates : (i + 1) * replicates]
        excess = np.minimum((own - own[0])[1:] / own[0].mean(), 1.0)
        found = critical_factor(FACTORS, excess, 0.01)
        low, high = found.low or 1.0, found.high or np.inf
        held += low <= (truth or 8.0) + 1e-9 and (truth or np.inf) <= high
    assert 0.85 <= held / 400 <= 0.97, (truth, held / 400)
