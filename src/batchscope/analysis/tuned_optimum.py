"""The tuned optimum: the steps that the best setting of the whole space would take, at every batch size.

Legend: M batch sizes, n trials of a search, K of them near its fastest, D samples, G nodes of the height of the
optimum, U of the heights above it, P powers.

The best setting that a search has found lies above the optimum of its space, the farther the narrower the optimum is:
where it narrows with the batch size, the steps of what was found stop falling although those of the optimum go on. How
far above is known from how densely settings lie near the best. Let g be the median log steps of a setting, and m that
of the best. Then, near m,

1. of n trials n phi u**k lie below m + u, in expectation, and their number is Poisson: the volume of the settings that
   are so good. In d hyperparameters k is d/2 at a smooth optimum, d where training diverges just beyond it, and less
   where a hyperparameter does not matter; where the optimum lies, how it moves and how many there are is not asked;
2. a training takes g and the noise of its seed, normal in log steps, whose size those tell that were trained again. It
   may be another at every batch size: the loss of small batches bounces, and crosses a goal by luck. Where nothing was
   trained again it goes straight from one size to another, in logarithms, and both are inferred. One that missed the
   goal is slower than it was watched for;
3. trials within 1.5 times the fewest steps count as they are, all others as slower than that, or than they were watched
   for: so it does not matter how long a policy trains what has lost;
4. phi is that of a Gamma distribution about a line in log batch size through the other batch sizes, as sure of it as
   four trials; k is one for all, m is free at each.

A surface fitted over the hyperparameters (a Gaussian process, joint over batch sizes, stopped trials as slower) says
more where it is right, on a bowl, and was wrong in every second interval where training diverges beside the optimum, at
twenty times the work: docs/statistics.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.analysis.searched import Searched
from batchscope.seeds import numpy_generator

Array = NDArray[np.float64]
_POWERS = np.array([0.5, 1.0, 1.5, 2.0, 3.0])
# Of these powers, by the number of hyperparameters.
_WEIGHTS = {1: (4.0, 2.0, 0.5, 0.2, 0.1), 2: (1.5, 4.0, 2.0, 1.0, 0.3), 3: (0.7, 2.0, 4.0, 2.0, 1.0)}
_MORE = (0.5, 1.5, 3.0, 3.0, 2.0)
_NOISES = np.array([0.03, 0.06, 0.12, 0.25, 0.5, 1.0])  # of which the seed's is one, where nothing was trained again
_CHANGE = 0.5  # how much less likely a doubling of it between the smallest and the largest batch size is than none
_VOICE = 4.0  # of the other batch sizes in phi, in trials
_BEND = 0.5  # of log phi about its line
_SLOPE = 0.35  # of that line for a doubling of the batch size
_HEIGHTS = np.geomspace(0.004, 2.5, 48) - 0.004
_WIDTHS = np.gradient(_HEIGHTS)
_EDGES = np.linspace(0, 1, 65) ** 2  # of the quadrature over u, as shares of its reach: denser near the optimum
_VOLUMES = np.diff(_EDGES[:, None] ** _POWERS, axis=0)  # (U, P)
_ROUNDS = 3
_log_gamma = np.vectorize(math.lgamma, otypes=[np.float64])
# So that the trials that are asked for suffice eight times in ten: docs/statistics.md.
_SURELY, _LIKELY = 0.75, 0.8


@dataclass(frozen=True, eq=False)
class Optimum:
    """Samples of the tuned optimum.

    Attributes:
        batch_sizes: (M,).
        log_steps: (D, M) of the logarithm of its steps.
        density: (D, M) of phi n: how many trials of the search lie within a factor e of it.
        power: (D,) of k.
        trials: (M,) n.
        delay: (M,) log distance from where a goal is crossed, as ``log_steps`` count, to where an evaluation sees it.
    """

    batch_sizes: tuple[int, ...]
    log_steps: Array
    density: Array
    power: Array
    trials: Array
    delay: Array

    def seen(self, batch_size: int) -> Array:
        """Samples (D,) of the logarithm of the steps that an evaluation sees."""
        return np.asarray(self.at(batch_size) + self.delay[self.batch_sizes.index(batch_size)])

    def at(self, batch_size: int) -> Array:
        """Samples (D,) of log steps at one batch size."""
        return np.asarray(self.log_steps[:, self.batch_sizes.index(batch_size)])

    def trials_needed(self, batch_size: int, factor: float, level: float) -> int:
        """How many trials would bring the interval at a batch size within ``factor``.

        It narrows as the best of n trials nears the optimum, with n**(-1/k).
        """
        low, high = np.quantile(self.at(batch_size), [(1 - level) / 2, (1 + level) / 2])
        trials = self.trials[self.batch_sizes.index(batch_size)]
        needed = trials * np.maximum((high - low) / (_SURELY * np.log(factor)), 1.0) ** self.power
        return int(np.ceil(np.quantile(needed, _LIKELY)))


def tuned_optimum(searched: Sequence[Searched], dimensions: int, *, samples: int = 1000) -> Optimum:
    """Draw from the posterior of the optimum at every batch size, joint over them.

    Args:
        searched: One for each batch size, each with a trial that reached the goal.
        dimensions: Hyperparameters of the space.
        samples: D.
    """
    generator = numpy_generator("tuned optimum", *(one.batch_size for one in searched))
    weights = np.log(_WEIGHTS.get(max(dimensions, 1), _MORE))
    octaves = np.log2([float(one.batch_size) for one in searched])
    courses = _courses(octaves) if any(one.noise is None for one in searched) else {(0,) * len(octaves): 0.0}
    likelihood = functools.cache(lambda place, node: _Likelihood.of(searched[place], float(_NOISES[node])))
    cells = [_Cells.of([likelihood(*at) for at in enumerate(course)], octaves) for course in courses]
    evidence = np.array([own.evidence + weights + likely for own, likely in zip(cells, courses.values(), strict=True)])
    share = np.exp(evidence - evidence.max()).ravel()
    drawn = generator.choice(len(share), size=samples, p=share / share.sum())
    log_steps, density = np.empty((2, samples, len(searched)))
    for cell in np.unique(drawn):
        rows = drawn == cell
        own, place = cells[cell // len(_POWERS)], cell % len(_POWERS)
        log_steps[rows], density[rows] = own.draw(place, int(rows.sum()), generator)
    trials = np.array([len(one.log_steps) + len(one.watched) for one in searched])
    sizes, delay = tuple(one.batch_size for one in searched), np.array([one.gap.mean() / 2 for one in searched])
    return Optimum(sizes, log_steps, density * trials, _POWERS[drawn % len(_POWERS)], trials, delay)


def _courses(octaves: Array) -> dict[tuple[int, ...], float]:
    """How the noise of a seed may go with the batch size: its nodes at each (M,), and log how likely that is."""
    share = (octaves - octaves[0]) / max(octaves[-1] - octaves[0], 1.0)
    nodes = range(len(_NOISES))
    ends = [(first, last) for first in nodes for last in nodes if len(octaves) > 1 or first == last]
    courses = ((np.rint(first + (last - first) * share), abs(last - first)) for first, last in ends)
    return {tuple(course.astype(int).tolist()): change * math.log(_CHANGE) for course, change in courses}


@dataclass(frozen=True, eq=False)
class _Likelihood:
    """What one batch size says at a noise of the seed.

    Attributes:
        heights: (G,) nodes of m, descending.
        log_seen: (P, G) log of the product over the K settings of their chances, but for phi**K.
        exposure: (P, G) phi times this many settings are expected near the fastest.
        count: K.
    """

    heights: Array
    log_seen: Array
    exposure: Array
    count: int

    @classmethod
    def of(cls, one: Searched, noise: float) -> _Likelihood:
        """By quadrature over the heights u of settings above m."""
        from scipy.special import ndtr  # here, because loading it takes as long as a small answer

        noise = one.noise or noise
        best = int(one.log_steps.argmin())
        start = one.log_steps[best] + 2.5 * np.hypot(noise / np.sqrt(one.trainings[best]), one.gap[best] / 2) + 0.02
        heights = start - _HEIGHTS
        spread = np.hypot(noise, one.gap.mean() / np.sqrt(12))
        reach = max(one.horizon + 3 * spread, start + spread) - heights
        settings = heights[:, None] + reach[:, None] * (_EDGES[1:] + _EDGES[:-1]) / 2  # (G, U)
        variance = (noise**2 / one.trainings + one.gap**2 / 12)[:, None, None]
        away = (one.log_steps[:, None, None] - settings) ** 2 / variance
        chance = np.exp(-away / 2) / np.sqrt(variance)  # (K, G, U)
        for place, short in enumerate(one.missed):
            for end in short:
                chance[place] *= ndtr((settings - end) / noise)
        ends, counts = np.unique(np.minimum(one.watched, one.horizon), return_counts=True)
        # A trial in sight would have been seen, had it crossed before the last step that it was watched for.
        sight = [(one.horizon, len(one.log_steps)), *zip(ends, counts, strict=True)]
        seen = sum(number * ndtr((end - settings) / spread) for end, number in sight)  # (G, U)
        volume = reach[:, None] ** _POWERS  # (G, P)
        log_seen = np.log(chance @ _VOLUMES * volume + 1e-300).sum(0)
        return cls(heights, log_seen.T, (seen @ _VOLUMES * volume).T, len(one.log_steps))


@dataclass(frozen=True, eq=False)
class _Cells:
    """The posterior at one noise and every power: of m on its nodes, and of phi given m a Gamma distribution.

    Attributes:
        evidence: (P,) log of it.
        heights: (M, G).
        probability: (P, M, G) of the nodes.
        shape: (M,) of phi.
        rate: (P, M, G).
    """

    evidence: Array
    heights: Array
    probability: Array
    shape: Array
    rate: Array

    @classmethod
    def of(cls, likelihoods: Sequence[_Likelihood], octaves: Array) -> _Cells:
        heights = np.array([one.heights for one in likelihoods])
        exposure = np.stack([one.exposure for one in likelihoods], axis=1)  # (P, M, G)
        log_exposure = np.log(exposure)
        log_seen = np.stack([one.log_seen for one in likelihoods], axis=1) + np.log(_WIDTHS)
        count = np.array([one.count for one in likelihoods], dtype=np.float64)
        voice = np.minimum(_VOICE, (count.sum() - count) / 2) + 0.3
        shape = voice + count
        line = np.log(count / np.median(exposure, axis=2)).mean(1, keepdims=True).repeat(len(count), axis=1)  # (P, M)
        for _ in range(_ROUNDS):
            rate = (voice / np.exp(line))[..., None] + exposure
            log_density = log_seen + (voice * (np.log(voice) - line))[..., None] - shape[:, None] * np.log(rate)
            peak = log_density.max(2, keepdims=True)
            probability = np.exp(log_density - peak)
            whole = probability.sum(2, keepdims=True)
            probability /= whole
            mean = (probability * log_exposure).sum(2)
            spread = (probability * log_exposure**2).sum(2) - mean**2
            line = _line(octaves, np.log(count) - mean, 1 / count + spread + _BEND**2)
        evidence = (peak + np.log(whole))[..., 0] + _log_gamma(shape) - _log_gamma(voice)
        return cls(evidence.sum(1), heights, probability, shape, rate)

    def draw(self, place: int, samples: int, generator: np.random.Generator) -> tuple[Array, Array]:
        """Samples (samples, M) of m and of phi at one of the powers."""
        m, phi = np.empty((2, samples, len(self.heights)))
        for column, (heights, probability) in enumerate(zip(self.heights, self.probability[place], strict=True)):
            node = generator.choice(len(heights), size=samples, p=probability)
            m[:, column] = heights[node] - (generator.random(samples) - 0.5) * _WIDTHS[node]
            phi[:, column] = generator.gamma(self.shape[column], size=samples) / self.rate[place, column][node]
        return m, phi


def _line(octaves: Array, values: Array, variances: Array) -> Array:
    """At every batch size the line through the values (P, M) of the others; flat where there are too few to tell."""
    if len(octaves) == 1:
        return values
    weight = (1 - np.eye(len(octaves))) / variances[:, None]  # (P, M, M): a row has those of the others
    away = octaves - octaves[:, None]
    whole, first, second = weight.sum(2), (weight * away).sum(2), (weight * away**2).sum(2) + _SLOPE**-2
    level, tilt = (np.squeeze(part @ values[..., None], -1) for part in (weight, weight * away))
    return np.asarray((second * level - first * tilt) / (whole * second - first**2))
