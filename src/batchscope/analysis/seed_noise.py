"""The noise of a seed: how much log steps of trainings of one setting vary, where some of them missed the goal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
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


def _mean_beyond(beyond: Array) -> Array:
    """Of a standard normal number that is larger than ``beyond``: density over tail, far out their expansion."""
    root = math.sqrt(2)
    found = [math.exp(-z * z / 2) / math.erfc(z / root) * root / math.sqrt(math.pi) if z < _FAR else z for z in beyond]
    return np.array(found)
