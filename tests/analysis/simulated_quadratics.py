"""Noisy quadratics that are really trained: is the tuned optimum inside, and are the regimes that are drawn from it.

The model is that of Zhang 2019: Hessian 1/i, gradient noise covariance Hessian / B, started at 3 in every direction.
The noise of a seed is no normal number of one size here: the loss of a training bounces, so it crosses its goal by luck
at small batch sizes, and hardly varies at large ones. Truth is the median of the best setting, by brute force.

``PYTHONPATH=tests python tests/analysis/simulated_quadratics.py [STUDIES]`` prints the table of docs/statistics.md.
"""

from __future__ import annotations

import functools
import itertools
import sys
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.simulated_studies import EVALUATIONS, GOAL, REGIMES, Truth
from batchscope.analysis import steps_to_result
from batchscope.plan.confirmation import HORIZON, MARGIN, candidates
from batchscope.spec.study import Confirm
from batchscope.spec.trial import Trial

Array = NDArray[np.float64]
NAMES = ("steps", *REGIMES)
START, LOSS, NOISE = 3.0, 0.6, 8.0
RATES, FRICTIONS = (10**-2.5, 10**0.5), (10**-1.5, 1.0)  # the space: learning rate / (1 - momentum), 1 - momentum
WATCHED = 4.0, 200.0  # no trial of a search is trained beyond this multiple of the optimum's steps, and as many more


@dataclass(frozen=True)
class Quadratic:
    """A model and its space: the effective learning rate is log-uniform, and 1 - momentum too if that is searched."""

    dimensions: int
    momentum: bool
    first: int  # of 11 batch sizes, doubling

    @property
    def batch_sizes(self) -> Array:
        """(M,)."""
        return np.asarray(self.first * 2.0 ** np.arange(11))

    def train(
        self, rate: Array, friction: Array, batch_size: float, generator: np.random.Generator, last: Array
    ) -> Array:
        """Steps (N,) at which trainings are first seen at the goal; infinite where that is not by ``last``."""
        curvature = (1 / np.arange(1, self.dimensions + 1)).astype(np.float32)
        deviation = np.sqrt(curvature) * np.float32(np.sqrt(NOISE / batch_size))
        position = np.full((len(rate), self.dimensions), START, np.float32)
        velocity, steps, running = np.zeros_like(position), np.full(len(rate), np.inf), np.arange(len(rate))
        pace, kept = ((part[:, None]).astype(np.float32) for part in (rate * friction, 1 - friction))
        for before, now in itertools.pairwise([0, *EVALUATIONS.tolist()]):
            for _ in range(before, now):
                noise = generator.standard_normal(position.shape, dtype=np.float32)
                velocity = kept * velocity + curvature * position + deviation * noise
                position = position - pace * velocity
            loss = 0.5 * (curvature * position**2).sum(1)
            steps[running[loss < LOSS]] = now
            going = (loss >= LOSS) & (loss < 1e6) & (last[running] > now)
            position, velocity, pace, kept, running = (
                part[going] for part in (position, velocity, pace, kept, running)
            )
            if not len(running):
                break
        return np.where(steps <= last, steps, np.inf)

    @functools.cached_property
    def law(self) -> Array:
        """Steps (M,) after which half of the trainings of the best setting are there: of a grid, and a finer one in it.

        The closed form is of the expected loss, which the loss of one training is below far earlier where it is noisy.
        """
        generator, found = np.random.default_rng(1), [32.0]
        rates, near = np.geomspace(*RATES, 40)[:, None], np.geomspace(0.8, 1.25, 13 if self.momentum else 31)
        frictions = np.geomspace(*FRICTIONS, 10) if self.momentum else np.ones(1)
        for batch_size in self.batch_sizes[::-1]:  # half a batch takes at most twice the steps
            (rate, friction), _ = self._fastest(rates, frictions, 20, batch_size, 2.5 * found[-1], generator)
            finer = np.clip(friction * near, *FRICTIONS) if self.momentum else frictions
            close = np.minimum(rate * near, RATES[1])[:, None]
            seeds = 100 if self.momentum else 400
            found.append(self._fastest(close, finer, seeds, batch_size, 2.5 * found[-1], generator)[1])
        return np.array(found[:0:-1])

    def _fastest(
        self, rates: Array, frictions: Array, seeds: int, batch_size: float, last: float, generator: np.random.Generator
    ) -> tuple[tuple[float, float], float]:
        """The setting of a grid of which half the trainings are first at the goal, and when."""
        rate, friction = (np.repeat(part.ravel(), seeds) for part in np.broadcast_arrays(rates, frictions))
        steps = self.train(rate, friction, batch_size, generator, np.full(len(rate), last))
        medians = np.median(steps.reshape(-1, seeds), axis=1)
        best = int(medians.argmin())
        assert np.isfinite(medians[best])
        return (float(rate[best * seeds]), float(friction[best * seeds])), float(medians[best])

    def study(
        self, trials: int, generator: np.random.Generator, confirm: Confirm | None
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The tables of one study, raced with the usual margin; ``confirm`` None trains nothing again."""
        rows: list[tuple[object, ...]] = []
        measured: list[tuple[object, ...]] = []
        for size, best in zip(self.batch_sizes.astype(int).tolist(), self.law, strict=True):
            rate, friction = (
                np.exp(generator.uniform(np.log(ends[0]), np.log(ends[1]), trials))
                if ends[0] < ends[1]
                else np.ones(trials)
                for ends in (RATES, FRICTIONS if self.momentum else (1.0, 1.0))
            )
            watched = WATCHED[0] * best + WATCHED[1]
            steps = self.train(rate, friction, size, generator, np.full(trials, watched))
            end = min(1.5 * steps.min(), watched)
            runs = [(index, 0, step, end) for index, step in enumerate(steps)]
            if confirm is not None:
                found = [
                    (int(step), Trial(size, index, {"point": index}, 0))
                    for index, step in enumerate(steps)
                    if step <= end
                ]
                chosen = np.array([trial.index for _, trial in candidates(found, confirm.candidates)])
                for seed in range(1, confirm.seeds + 1):
                    last = np.full(len(chosen), HORIZON * steps.min())
                    again = self.train(rate[chosen], friction[chosen], size, generator, last)
                    ended = min(MARGIN * again.min(), last[0])
                    runs += [(int(index), seed, step, ended) for index, step in zip(chosen, again, strict=True)]
            for index, seed, step, last_step in runs:
                name, reached, stop = f"{size}-{index}-{seed}", step <= last_step, int(seen_by(last_step))
                setting = (float(rate[index]), float(1 - friction[index]))
                status = "complete" if reached else "stopped"
                rows.append((name, size, index, seed, 0, status, int(step) if reached else stop, *setting))
                if reached:
                    measured.append((name, size, int(step), 0.0))
            # One trial has all evaluations in the table: the others add nothing to the grid.
            grid = EVALUATIONS[EVALUATIONS <= HORIZON * steps.min()]
            measured += [(f"{size}-0-0", size, int(at), 1.0) for at in grid if at != steps[0]]
        hyperparameters = ["hyperparameter/learning_rate", "hyperparameter/momentum"]
        names = ["trial", "batch_size", "index", "replicate", "revision", "status", "steps", *hyperparameters]
        return (
            pl.DataFrame(rows, schema=names, orient="row"),
            pl.DataFrame(measured, schema=["trial", "batch_size", "step", "validation/error"], orient="row"),
        )

    def held(self, trials: int, studies: int, confirm: Confirm | None) -> tuple[dict[str, float], tuple[float, float]]:
        """How often intervals of so many studies held the truth (``NAMES``), and how wide those of the optimum were.

        The widths are the medians at the smallest and the largest batch size.
        """
        generator = np.random.default_rng([self.dimensions, self.momentum, trials])
        truth, inside, widths = Truth.of(self.law, self.batch_sizes), [], []
        for _ in range(studies):
            curve = steps_to_result(*self.study(trials, generator, confirm), GOAL)
            low, high = (curve.table.get_column(f"optimum_{end}").to_numpy() for end in ("low", "high"))
            ends = [(getattr(curve.regimes, name), getattr(truth, name)) for name in REGIMES]
            holds = [float((end.low or 0.0) <= at <= (end.high or np.inf)) for end, at in ends]
            inside.append([float(((low <= self.law) & (self.law <= high)).mean()), *holds])
            widths.append((high[0] / low[0], high[-1] / low[-1]))
        first, last = np.median(widths, axis=0)
        return dict(zip(NAMES, np.mean(inside, axis=0).tolist(), strict=True)), (float(first), float(last))


def seen_by(steps: float) -> float:
    """The last evaluation that is no later."""
    return float(EVALUATIONS[np.searchsorted(EVALUATIONS, steps, side="right") - 1])


QUADRATICS = tuple(
    Quadratic(dimensions, momentum, first) for dimensions, first in ((12, 1), (100, 4)) for momentum in (False, True)
)


def main(studies: int) -> None:
    """Print the coverage in Markdown."""
    print("| noisy quadratic | n | steps | perfect scaling until | critical | maximum useful | width, both ends |")
    print("|---|---|---|---|---|---|---|")
    for kind in QUADRATICS:
        searched = "learning rate, momentum" if kind.momentum else "learning rate"
        for confirm in (Confirm(), None):
            for trials in (16, 32, 64):
                shares, widths = kind.held(trials, studies, confirm)
                told = " | ".join(f"{100 * share:.0f}" for share in shares.values())
                name = f"{kind.dimensions} dimensions, {searched}{'' if confirm else ', unconfirmed'}"
                print(f"| {name} | {trials} | {told} | {widths[0]:.2f}, {widths[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
