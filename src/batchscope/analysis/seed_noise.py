"""The noise of a seed: how much log steps of trainings of one setting vary, and how far one more may lie from them.

A few trainings hardly tell it: Student's interval about two of them, of which one took four times as many steps, spans
a factor of four million. So the noise is one of at most ``MOST``, far beyond any that was seen, and of these all
logarithms are as likely beforehand. With many trainings that is Student's interval again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MOST = 2.0  # beyond it a training in twenty takes 27 times the median
_SHARES = (np.arange(128) + 0.5) / 128
_ROUNDS = 50
_FAR = 30.0  # where the tail is all but empty, and the mean but a thousandth above its begin


def scatter(settings: Sequence[tuple[Array, Array]]) -> tuple[float, int]:
    """The sum of squares of log steps about each setting's mean, and its degrees of freedom.

    A training that missed the goal is slower than it was watched for, by as much as the normal distribution says
    (expectation and maximisation, Dempster, Laird & Rubin 1977): without such ones the noise would come out the
    smaller the larger it is.

    Args:
        settings: Of each, log steps of the trainings that reached the goal, and of those that missed it the log of the
            last step that was watched.
    """
    known = [(reached, missed) for reached, missed in settings if len(reached)]
    freedom = sum(len(reached) - 1 for reached, _ in known)
    if not freedom:
        return 0.0, 0
    means = [reached.mean() for reached, _ in known]
    squares = sum(((reached - mean) ** 2).sum() for (reached, _), mean in zip(known, means, strict=True))
    variance, absent = squares / freedom, sum(len(missed) for _, missed in known)
    for _ in range(_ROUNDS if absent and variance else 0):
        squares, deviation = 0.0, np.sqrt(variance)
        for place, (reached, missed) in enumerate(known):
            beyond = (missed - means[place]) / deviation
            hazard = _mean_beyond(beyond)
            guess = means[place] + deviation * hazard
            means[place] = np.concatenate([reached, guess]).mean()
            squares += ((np.concatenate([reached, guess]) - means[place]) ** 2).sum()
            squares += variance * (1 + beyond * hazard - hazard**2).sum()
        variance = squares / (freedom + absent)
    return float(variance * freedom), freedom


def deviations(squares: float, freedom: float, shares: Array) -> Array:
    """Quantiles, at ``shares`` between 0 and 1, of the noise of the seed.

    Args:
        squares: Sum of squares of log steps about their means.
        freedom: Its degrees of freedom, above 0.
        shares: (D,).

    Returns:
        (D,) standard deviations of log steps, none beyond ``MOST``, or beyond what was measured if that is more.
    """
    from scipy.special import chdtrc, chdtri  # here, because whoever asks how far a run is need not wait for it

    most = max(MOST**2, squares / freedom)
    return np.asarray(np.sqrt(squares / chdtri(freedom, shares * chdtrc(freedom, squares / most))))


def reach_of_one_more(squares: float, freedom: float, count: int, level: float) -> float:
    """How far, in log steps, one more training lies at most from the mean of ``count``, in ``level`` of cases."""
    from scipy.special import ndtr  # here, as above

    if not squares:
        return 0.0
    spread = deviations(squares, freedom, _SHARES) * math.sqrt(1 + 1 / count)
    low, high = 0.0, 8 * float(spread[-1])
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if ndtr(middle / spread).mean() > (1 + level) / 2 else (middle, high)
    return high


def _mean_beyond(beyond: Array) -> Array:
    """Of a standard normal number that is larger than ``beyond``: density over tail, far out their expansion."""
    root = math.sqrt(2)
    found = [math.exp(-z * z / 2) / math.erfc(z / root) * root / math.sqrt(math.pi) if z < _FAR else z for z in beyond]
    return np.array(found)
