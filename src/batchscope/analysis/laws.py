"""Laws for steps to result against batch size, fitted in the logarithm of steps.

Legend: M batch sizes, D samples, P sharpnesses, G critical batch sizes of a grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batchscope.amounts import number
from batchscope.errors import AnalysisError
from batchscope.interval import Interval
from batchscope.seeds import numpy_generator

Array = NDArray[np.float64]
_SHARPNESS = np.geomspace(0.25, 8.0, 41)
_EVIDENCE = 2.0


@dataclass(frozen=True)
class Law:
    """``S(B) = fewest_steps * (1 + (critical_batch_size / B)**sharpness)**(1 / sharpness)``.

    Its asymptotes are perfect scaling and ``fewest_steps``; they meet at the critical batch size. Sharpness 1 is the
    two-asymptote law S = S_min (1 + B_crit / B) (McCandlish 2018, section 2.3), by which a goal takes twice the
    fewest steps and twice the fewest examples at B_crit; other values blend the same asymptotes more or less sharply
    (the form of Churchill & Usagi 1972). ``measured`` are the smallest and the largest batch size of the fit.
    """

    fewest_steps: float
    critical_batch_size: float
    sharpness: float
    measured: tuple[float, float]

    def steps(self, batch_size: float, *, extrapolate: bool = False) -> float:
        """Steps to result at ``batch_size``.

        Raises:
            AnalysisError: If that is outside the measured batch sizes and ``extrapolate`` is not set.
        """
        smallest, largest = self.measured
        if not extrapolate and not smallest <= batch_size <= largest:
            raise AnalysisError(
                f"a law holds between the batch sizes it was fitted to, {number(smallest)} to {number(largest)}, got "
                f"{number(batch_size)}: measure it, or pass extrapolate=True and say so"
            )
        away = np.log(batch_size / self.critical_batch_size)
        return self.fewest_steps * float(np.exp(_shape(away, self.sharpness)))

    def batch_size_at_overhead(self, overhead: float, reference: float) -> float:
        """Where a goal takes ``1 + overhead`` times the examples that it takes at batch size ``reference``.

        Zhang 2024 calls this the critical batch size, with an overhead of 0.2 over batch size 256. It may lie
        outside the measured batch sizes.
        """
        return float(_at_overhead(np.array(self.critical_batch_size), self.sharpness, overhead, reference))


@dataclass(frozen=True)
class Fit:
    """A law and the intervals of its parameters; ``residual`` is the root mean square of log steps about it.

    A critical batch size outside the measured ones, and what hangs on it, is ``None`` on that side: the law's own
    value is then an extrapolation. ``samples`` (D, 2) are the critical batch size and the sharpness of every draw.
    """

    law: Law
    critical_batch_size: Interval
    fewest_steps: Interval
    sharpness: Interval
    residual: float
    samples: Array = field(compare=False, repr=False)

    def batch_size_at_overhead(self, overhead: float, reference: float) -> Interval:
        """That of the law, with its interval."""
        ends = _at_overhead(self.samples[:, 0], self.samples[:, 1], overhead, reference)
        value = self.law.batch_size_at_overhead(overhead, reference)
        return Interval.from_samples(value, ends, self.critical_batch_size.level)


def fit(
    batch_sizes: Array,
    steps: Array,
    log_samples: Array | None = None,
    *,
    sharpness: float | None = 1.0,
    level: float = 0.9,
) -> Fit:
    """Least squares in log steps, every batch size with equal weight.

    Args:
        batch_sizes: (M,) ascending; at least one more than the law has parameters.
        steps: (M,) steps to result.
        log_samples: (D, M) samples of log steps to result. Each is fitted too, and the intervals are those of these
            fits. Without draws the scatter about the law stands for them.
        sharpness: Held at this value; ``None`` fits it.
        level: Of the intervals.

    Too few batch sizes are an ``AnalysisError``.
    """
    parameters = 2 if sharpness is not None else 3
    _require(batch_sizes, parameters)
    x, y = np.log(batch_sizes), np.log(steps)
    powers = _SHARPNESS if sharpness is None else np.array([sharpness])
    best, fitted = _nearest(y[None], x, powers)
    residual = y - fitted[0]
    curves = y + scatter(residual, parameters) if log_samples is None else log_samples
    # Row 0 is the curve itself. What is found at the end of its range is only known to be there or beyond.
    critical, power, height = np.vstack([best, _nearest(curves, x, powers)[0]]).T
    below, beyond = critical <= x[0], critical >= x[-1]
    seen = np.where(below, -np.inf, np.where(beyond, np.inf, np.exp(critical)))
    fewest = np.where(beyond, -np.inf, height)
    sharp = np.where(power == powers[-1], np.inf, np.where(power == powers[0], -np.inf, power))
    measured = float(batch_sizes[0]), float(batch_sizes[-1])
    return Fit(
        Law(float(np.exp(height[0])), float(np.exp(critical[0])), float(power[0]), measured),
        Interval.from_samples(float(seen[0]), seen[1:], level),
        Interval.from_log_samples(-np.inf if beyond[0] else float(np.exp(height[0])), fewest[1:], level),
        Interval(sharpness, sharpness, sharpness, level)
        if sharpness is not None
        else Interval.from_samples(float(sharp[0]), sharp[1:], level),
        float(np.sqrt((residual**2).mean())),
        np.column_stack([np.exp(critical[1:]), power[1:]]),
    )


def scatter(residual: Array, parameters: int, samples: int = 1000) -> Array:
    """Samples (D, M) of the error of log steps, normal and alike everywhere, whose size the residuals tell."""
    generator = numpy_generator("scatter about a law")
    spread = (residual**2).sum() / generator.chisquare(len(residual) - parameters, size=(samples, 1))
    return np.asarray(np.sqrt(spread) * generator.standard_normal((samples, len(residual))))


def predict(batch_sizes: Array, log_samples: Array, at: Array, *, sharpness: float | None = 1.0) -> Array:
    """Samples of log steps (D, len(at)) by the laws fitted to each of ``log_samples`` (D, M), also beyond
    ``batch_sizes``.

    ``sharpness`` is as in ``fit``. What lies beyond the measured batch sizes is an extrapolation: say so.
    """
    _require(batch_sizes, 2 if sharpness is not None else 3)
    powers = _SHARPNESS if sharpness is None else np.array([sharpness])
    critical, power, height = _nearest(log_samples, np.log(batch_sizes), powers)[0].T[:, :, None]
    return np.asarray(height + np.logaddexp(0.0, -power * (np.log(at) - critical)) / power)


def evidence(batch_sizes: Array, steps: Array, deviation: Array | None = None) -> pl.DataFrame:
    """The law with sharpness 1 beside the law with a free one, and which of them the evidence is for.

    Args:
        batch_sizes: (M,) ascending.
        steps: (M,) steps to result.
        deviation: (M,) the known standard deviation of log steps; without it the residuals estimate it.

    Returns:
        ``law``, ``parameters``, ``critical_batch_size``, ``sharpness``, ``aicc``, ``chosen``: the richer law is
        chosen where its corrected Akaike criterion (Hurvich & Tsai 1989) is lower by more than 2. The
        criterion is null where there are too few batch sizes for it; fewer than 3 are an ``AnalysisError``.
    """
    _require(batch_sizes, 2)
    x, y = np.log(batch_sizes), np.log(steps)
    weight = np.ones(len(x)) if deviation is None else deviation**-2
    rows: list[dict[str, object]] = []
    criteria = []
    for name, powers in (("two asymptotes", np.ones(1)), ("two asymptotes with sharpness", _SHARPNESS)):
        best, fitted = _nearest(y[None], x, powers, weight)
        parameters = 2 if len(powers) == 1 else 3
        criteria.append(_aicc(y - fitted[0], parameters, deviation))
        row: dict[str, object] = {"law": name, "parameters": parameters}
        row |= {"critical_batch_size": float(np.exp(best[0, 0])), "sharpness": float(best[0, 1])}
        rows.append(row | {"aicc": criteria[-1] if np.isfinite(criteria[-1]) else None})
    rich = bool(criteria[1] < criteria[0] - _EVIDENCE)
    return pl.DataFrame(rows).with_columns(pl.Series("chosen", [not rich, rich]))


def _at_overhead(critical: Array, sharpness: Array | float, overhead: float, reference: float) -> Array:
    relative = (1 + overhead) ** sharpness * (1 + (reference / critical) ** sharpness) - 1
    return np.asarray(critical * relative ** (1 / sharpness))


def _require(batch_sizes: Array, parameters: int) -> None:
    if len(batch_sizes) <= parameters:
        raise AnalysisError(
            f"a law with {parameters} parameters needs {parameters + 1} batch sizes that reached the goal, "
            f"got {len(batch_sizes)}"
        )


def _shape(x: Array | float, sharpness: float) -> Array:
    """Log steps over the fewest, at x = log(B / critical): 0 far to the right, -x far to the left."""
    return np.asarray(np.logaddexp(0.0, -sharpness * np.asarray(x)) / sharpness)


def _nearest(curves: Array, x: Array, powers: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Least squares for each of ``curves`` (D, M): (critical, sharpness, height) as (D, 3), and the fits (D, M).

    The critical batch size is searched on a grid and refined by the parabola through the best node and its
    neighbours; it stays within a factor of 20 of the measured batch sizes, beyond which the asymptotes cannot be
    told apart.
    """
    weight = np.full(len(x), 1 / len(x)) if weight is None else weight / weight.sum()
    grid = np.linspace(x[0] - 3.0, x[-1] + 3.0, 250)
    y = -2 * (curves - (curves @ weight)[:, None]) * weight

    def errors(rows: NDArray[np.bool_] | slice, power: float) -> Array:
        """Of these curves at every node (D, G), less a constant."""
        nodes = _shape(x - grid[:, None], power)  # (G, M)
        nodes -= (nodes @ weight)[:, None]
        error = np.asarray(y[rows] @ nodes.T)
        error += nodes**2 @ weight
        return error

    # All sharpnesses at once would be more than a cache holds; the errors at the best are computed again.
    best_power = np.array([errors(slice(None), power).min(1) for power in powers]).argmin(0)
    profile = np.empty((len(curves), len(grid)))
    for power in np.unique(best_power):
        profile[best_power == power] = errors(best_power == power, powers[power])
    rows = np.arange(len(curves))
    node = np.clip(profile.argmin(1), 1, len(grid) - 2)
    left, middle, right = (profile[rows, node + shift] for shift in (-1, 0, 1))
    curvature = np.maximum(left - 2 * middle + right, 1e-300)
    critical = grid[node] + np.clip((left - right) / (2 * curvature), -1, 1) * (grid[1] - grid[0])
    power = powers[best_power]
    fitted = np.logaddexp(0.0, -power[:, None] * (x - critical[:, None])) / power[:, None]
    height = (curves - fitted) @ weight
    return np.column_stack([critical, power, height]), height[:, None] + fitted


def _aicc(residual: Array, parameters: int, deviation: Array | None) -> float:
    count = len(residual)
    if deviation is None:
        parameters += 1
        misfit = count * np.log(max((residual**2).mean(), 1e-12))
    else:
        misfit = ((residual / deviation) ** 2).sum()
    spare = count - parameters - 1
    return float(misfit + 2 * parameters + (2 * parameters * (parameters + 1) / spare if spare > 0 else np.inf))
