"""Where branches begin to be worse than the training that they leave, as an interval.

1. Replicate r of a branch at k times the batch size ends with the excess loss e(k, r) over its own replicate of the
   training, after the same examples; e(1, r) = 0. Between the factors it is linear in log2 k.
2. The critical factor is where the mean excess first passes the tolerance.
3. Its interval is the one that tests leave: all k at which the mean excess is not told from the tolerance by Student's
   t over the replicates, that is from where mean + t s first passes it to where mean - t s does. Whether it holds the
   truth is decided by the test at the truth alone, so that trying many factors costs nothing.

Legend: F factors, R replicates.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from batchscope.interval import Interval

Array = NDArray[np.float64]
# Of log2 k, between which the bounds, which are no straight lines, are taken to be.
PER_DOUBLING = 32


def mean_interval(excess: Array, level: float) -> Interval:
    """The mean of R values, with Student's interval."""
    mean, half = float(excess.mean()), float(_half_width(excess[None], level)[0])
    return Interval(mean, mean - half, mean + half, level)


def critical_factor(factors: Array, excess: Array, tolerance: float, level: float = 0.9) -> Interval:
    """The factor at which the excess passes the tolerance; beyond the largest it is left open.

    Args:
        factors: (F,), ascending, above 1.
        excess: (F, R), at least two replicates.
        tolerance: Of the excess, above 0.
        level: Of the interval.
    """
    doublings = np.log2(np.concatenate([[1.0], factors]))
    table = np.concatenate([np.zeros((1, excess.shape[1])), excess])
    fine = np.unique(np.concatenate([doublings, np.arange(0, doublings[-1], 1 / PER_DOUBLING)]))
    each = np.stack([np.interp(fine, doublings, column) for column in table.T], axis=1)
    mean, half = each.mean(1), _half_width(each, level)
    low, value, high = (_first_above(fine, bound, tolerance) for bound in (mean + half, mean, mean - half))
    largest = 2 ** float(doublings[-1])
    return Interval(_factor(value), _factor(low) or largest, _factor(high), level)


def is_told(excess: Array, tolerance: float, level: float = 0.9) -> bool:
    """Whether R values say that the mean is above the tolerance: larger factors add nothing then."""
    return float(excess.mean() - _half_width(excess[None], level)[0]) > tolerance


def _half_width(excess: Array, level: float) -> Array:
    """Of Student's interval for the mean, over the last axis."""
    count = excess.shape[-1]
    found: Array = stdtrit(count - 1, (1 + level) / 2) * excess.std(-1, ddof=1) / math.sqrt(count)
    return found


def _first_above(x: Array, y: Array, tolerance: float) -> float:
    """Where a line through points first passes the tolerance; infinite where it does not."""
    above = np.flatnonzero(y > tolerance)
    if not len(above):
        return math.inf
    i = int(above[0])  # not 0, where all begin at no excess
    return float(x[i - 1] + (x[i] - x[i - 1]) * (tolerance - y[i - 1]) / (y[i] - y[i - 1]))


def _factor(doublings: float) -> float | None:
    return 2**doublings if math.isfinite(doublings) else None
