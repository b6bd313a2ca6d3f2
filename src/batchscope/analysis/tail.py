"""What the fastest trials of one batch size say about the fewest steps of n trials.

Legend: K trials that reached the goal, n feasible trials, G nodes of the posterior, D samples, Q quantile nodes.

The fewest steps observed are one draw of a minimum, and resampling the trials cannot say how far another draw would
fall below it: the plain bootstrap of a minimum is inconsistent (Bickel & Freedman 1981, section 6). What can be
modelled is the lower tail of one trial's steps, for a minimum depends on nothing else, and its law has a limit
(Fisher-Tippett-Gnedenko). Let H be the cumulative hazard of log steps of the *fastest of n* trials, so that a single
trial has H/n. Then::

    H(x) = (1 + xi (x - mu) / sigma)**(1 / xi)

``xi`` is 2/d for a smooth optimum in d dimensions (the ellipsoid of points within a factor of the best grows as the
d/2-th power of its logarithm), between 1/d and 2/d where training diverges just beyond the best point, and near 0
where the noise of the seed decides who is fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# The prior: flat in mu and in log sigma, the latter fading above 2 (a factor of 7 in steps from one trial to the
# next); over xi as listed. With the number of trials in the tail it was chosen by coverage: docs/statistics.md.
_XI = np.array([1e-3, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
_XI_WEIGHT = np.array([3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0])
_LOG_SIGMA = np.linspace(np.log(1e-3), np.log(4.0), 48)
_LOG_HAZARD = np.linspace(-7.0, 2.5, 56)
_WIDE = 2.0
_PARTS = 14  # of the nodes: what one of them needs stays in the cache of a core, which makes it twice as fast
_QUANTILES = -np.log1p(-(np.arange(32) + 0.5) / 32)  # of a unit exponential


@dataclass(frozen=True, eq=False)
class Tail:
    """Posterior samples (D,) of the lower tail of log steps, and the number n of trials that it is scaled to."""

    mu: Array
    sigma: Array
    xi: Array
    trials: int

    def log_steps(self, hazard: Array) -> Array:
        """Log steps (D, Q) at which the fastest of n trials has met a cumulative ``hazard`` (Q,)."""
        power = self.xi[:, None] * np.log(hazard)
        return np.asarray(self.mu[:, None] + self.sigma[:, None] * np.expm1(power) / self.xi[:, None])

    def expected(self, trials: int, evaluations: Array) -> Array:
        """Samples (D,) of the expected fewest steps of ``trials`` trials, as seen at ``evaluations`` (steps,
        ascending).
        """
        steps = np.exp(np.minimum(self.log_steps(_QUANTILES * self.trials / trials), 60.0))
        evaluation = np.searchsorted(evaluations, steps)
        seen = np.where(evaluation < len(evaluations), evaluations[np.minimum(evaluation, len(evaluations) - 1)], steps)
        return np.asarray(seen.mean(1))


def size(trials: int) -> int:
    """How many of the fastest of ``trials`` trials count as their lower tail."""
    return max(6, int(trials**0.5))


def fit(before: Array, first: Array, watched: Array, samples: int, generator: np.random.Generator) -> Tail:
    """Draw from the posterior of the lower tail.

    Args:
        before: (K,) the last evaluation of each trial that reached the goal at which it had not; 0 if there was none.
        first: (K,) its first evaluation beyond the goal. The crossing is known to lie between the two, no better.
        watched: (n - K,) the last step at which each other trial is known not to have reached the goal. It is
            right-censored there: nothing is assumed of what came later.
        samples: D.
        generator: For the samples.

    Returns:
        Samples of the tail. Only its ``size`` fastest trials are modelled; the others are known to be slower.
    """
    trials = len(first) + len(watched)
    horizon = np.sort(first)[min(len(first), size(trials)) - 1]
    inside = first <= horizon
    slower = np.full(int((~inside).sum()), horizon)
    with np.errstate(divide="ignore"):
        low, high = np.log(before[inside]), np.log(first[inside])
        unreached = np.log(np.concatenate([slower, np.minimum(watched, horizon)]))
    nodes = np.meshgrid(_XI, _LOG_SIGMA, _LOG_HAZARD, indexing="ij")
    xi, log_sigma, log_hazard = (node.ravel() for node in nodes)
    sigma = np.exp(log_sigma)
    # The location is laid out by the hazard that the fastest trial met, which is about Exp(1) whatever the tail.
    mu = high.min() - sigma * np.expm1(xi * log_hazard) / xi
    density = log_sigma + xi * log_hazard  # d mu d log sigma, in the coordinates of the nodes
    density += np.repeat(np.log(_XI_WEIGHT), len(xi) // len(_XI)) - np.log1p((sigma / _WIDE) ** 2)
    parts = np.array_split(np.arange(len(xi)), _PARTS)
    density += np.concatenate([_log_likelihood(mu[n], sigma[n], xi[n], low, high, unreached, trials) for n in parts])
    weight = np.exp(density - density.max())
    node = generator.choice(len(density), size=samples, p=weight / weight.sum())
    return Tail(mu[node], sigma[node], xi[node], trials)


def _log_likelihood(
    mu: Array, sigma: Array, xi: Array, low: Array, high: Array, unreached: Array, trials: int
) -> Array:
    """Log likelihood (G,): each trial crossed after ``low`` and by ``high``, or not by ``unreached``."""
    count = len(low)
    points, where = np.unique(np.concatenate([low, high, unreached]), return_inverse=True)
    base = np.maximum(1 + xi[:, None] * (points - mu[:, None]) / sigma[:, None], 0.0)
    with np.errstate(divide="ignore"):
        hazard = np.exp(np.minimum(np.log(base) / xi[:, None], 300.0)) / trials  # (G, points), of one trial
    survived = hazard @ np.bincount(where[2 * count :], minlength=len(points))
    started, ended = hazard[:, where[:count]], hazard[:, where[count : 2 * count]]
    with np.errstate(divide="ignore"):
        crossed = np.log(-np.expm1(started - ended)) - started
    return np.asarray(crossed.sum(1) - survived)
