"""The ratio of two means that were measured together, with an interval that is right for a ratio."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from batchscope.interval import Interval


def ratio_of_means(numerators: ArrayLike, denominators: ArrayLike, level: float = 0.9) -> Interval:
    """mean(numerators) / mean(denominators), both (n,) and measured in pairs, with Fieller's interval.

    The mean of ratios is biased, and has no variance where a denominator can be near zero; the ratio of means is
    neither. Fieller (1954): a ratio r is in the interval if the mean of numerator - r denominator is no further from
    zero than chance explains, which is a quadratic inequality in r.

    Chosen by simulation (``benchmarks/meters.py --parts coverage``): intervals of level 0.9 held the ratio of the
    window 90 to 94 times in 100 from 8 measurements on; a circular block bootstrap did so 78 to 88 times in 100 with 8
    or 16 measurements, and as often as Fieller's with 256.

    The true denominator is taken to be positive. Where the measured ones do not tell it from zero the ratio has no
    upper bound, which is ``None``; so is the value where their mean is not positive.
    """
    pairs = np.stack([np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)])
    count = pairs.shape[1]
    if count == 0:
        return Interval(None, None, None, level)
    top, bottom = pairs.mean(axis=1)
    value = float(top / bottom) if bottom > 0 else None
    floor = 0.0 if (pairs[0] >= 0).all() else None
    if count == 1:
        return Interval(value, floor, None, level)
    (top_variance, covariance), (_, bottom_variance) = np.cov(pairs) / count
    quantile = float(student.ppf((1 + level) / 2, count - 1)) ** 2
    # a r^2 - 2 b r + c <= 0
    a = bottom**2 - quantile * bottom_variance
    b = top * bottom - quantile * covariance
    c = top**2 - quantile * top_variance
    root = math.sqrt(max(b * b - a * c, 0.0))
    if a > 0 and bottom > 0:
        low, high = (b - root) / a, (b + root) / a
    else:  # beyond the larger root, or all ratios
        low, high = (max((b - root) / a, (b + root) / a) if c > 0 and a < 0 else None), None
    if floor is not None:
        low = floor if low is None else max(low, floor)
    # The value is inside by construction; rounding may disagree in the last digit.
    if value is not None:
        low = None if low is None else min(float(low), value)
        high = None if high is None else max(float(high), value)
    return Interval(value, None if low is None else float(low), None if high is None else float(high), level)
