"""A law for the seconds of one update at any batch size, fitted to what was measured at some.

The law is t(B) = (f^s + (p B)^s)^(1/s), with seconds f of an update however small, seconds p of one more example
where the device is busy, and a sharpness s of at least 1 that says how abruptly the one gives way to the other:
s = 1 is a straight line, s without end is max(f, p B). It is an empirical law: of the device it assumes only that
small updates cost a constant and large ones what their examples cost.

Relative departures are made small, because times span orders of magnitude and their noise is proportional to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]

# Beyond it the law is max(f, p B) to within the noise of any clock.
SHARPEST = 32.0

# Two parameters are a line; the third needs a point that is left over, or it would fit the noise.
POINTS_FOR_SHARPNESS = 4


@dataclass(frozen=True)
class TimeFit:
    """The law with its error.

    Attributes:
        fixed: f, in seconds.
        per_example: p, in seconds.
        sharpness: s.
        error: The largest relative departure of the law from a measured time that was left out of the fit, each in
            turn. For the smallest and the largest batch size that is an extrapolation.
    """

    fixed: float
    per_example: float
    sharpness: float
    error: float


def law(batch_sizes: Array, fixed: float, per_example: float, sharpness: float) -> Array:
    """Seconds of one update at each batch size."""
    top = np.maximum(fixed, per_example * batch_sizes)
    return np.asarray(
        top * ((fixed / top) ** sharpness + (per_example * batch_sizes / top) ** sharpness) ** (1 / sharpness)
    )


def fit_time_model(batch_sizes: Sequence[int], seconds: Sequence[float]) -> TimeFit:
    """Fit the law to measured times.

    With two batch sizes the error is that of the worst law through the other one: a constant, or a time that is
    proportional to the batch size. With two or three the sharpness is 1.

    Args:
        batch_sizes: At least two, all different.
        seconds: Of one update at each, above 0.

    Raises:
        ValueError: If there are fewer than two, or a time is not above 0.
    """
    sizes, times = np.asarray(batch_sizes, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if len(sizes) != len(times) or len(np.unique(sizes)) != len(sizes) or len(sizes) < 2:
        raise ValueError(f"at least two different batch sizes are needed, with a time for each, got {batch_sizes}")
    if not np.all(np.isfinite(times) & (times > 0)):
        raise ValueError(f"times must be above 0, got {seconds}")
    return TimeFit(*_best(sizes, times), error=_left_out_error(sizes, times))


def _best(sizes: Array, times: Array) -> tuple[float, float, float]:
    """f, p and s of the smallest sum of squared relative departures."""
    # Both asymptotes lie at or below every point; in these units both are between 0 and 1.
    unit_fixed, unit_per_example = float(times.min()), float((times / sizes).min())
    free = len(sizes) >= POINTS_FOR_SHARPNESS

    def settled(place: Array) -> tuple[float, float, float]:
        sharpness = float(1 / place[2]) if free else 1.0
        return float(place[0]) * unit_fixed, float(place[1]) * unit_per_example, sharpness

    def departures(place: Array) -> Array:
        return law(sizes, *settled(place)) / times - 1

    # Noise can lift the asymptotes above the lowest point, hence the room above 1; not both can be 0, where the
    # law would be, hence the smallest number below.
    low, high = [1e-12, 1e-12, 1 / SHARPEST], [2.0, 2.0, 1.0]
    starts = [[0.9, 0.9, inverse] for inverse in (0.9, 0.5, 0.2)] if free else [[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]]
    bounds = (low, high) if free else (low[:2], high[:2])
    tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
    found = [least_squares(departures, start, bounds=bounds, **tight) for start in starts]
    return settled(min(found, key=lambda one: float(one.cost)).x)


def _left_out_error(sizes: Array, times: Array) -> float:
    errors = []
    for out in range(len(sizes)):
        rest = np.arange(len(sizes)) != out
        if rest.sum() > 1:
            predictions = law(sizes[[out]], *_best(sizes[rest], times[rest]))
        else:
            predictions = times[rest] * np.array([1.0, sizes[out] / sizes[rest][0]])
        errors.append(float(np.abs(predictions / times[out] - 1).max()))
    return max(errors)
