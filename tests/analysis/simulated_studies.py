"""Studies with known truth, drawn without training: tables of trials and measurements, and the coverage of intervals.

A *pool* (N, M) holds the steps to the goal of N trials at M batch sizes; a study takes n of them at every batch size.
The truth is then known without any of the code under test: the expected minimum of n trials is a weighted mean of the
sorted pool, and the regimes follow from that curve.

``python tests/analysis/simulated_studies.py [STUDIES]`` prints the coverage table of docs/statistics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import qmc

from batchscope.analysis import Curve, steps_to_result
from batchscope.analysis.regimes import regimes
from batchscope.analysis.tuned_rows import tuned_rows
from batchscope.spec.goal import Goal

Array = NDArray[np.float64]
GOAL = Goal.parse("validation/error < 0.5")
EVALUATIONS = np.unique(np.round(1.05 ** np.arange(330))).astype(np.int64)
BATCH_SIZES: Array = np.geomspace(1, 1024, 11).round()
REGIMES = ("perfect_scaling_until", "critical_batch_size", "maximum_useful_batch_size")


def evaluation(steps: Array) -> NDArray[np.int64]:
    """The first evaluation at or after each of ``steps``."""
    return EVALUATIONS[np.searchsorted(EVALUATIONS, steps)]


@dataclass(frozen=True)
class Surface:
    """Log steps are a law of the batch size, plus a bowl around the best point, plus the noise of the seed."""

    name: str
    trials: int
    dimensions: int
    width: float  # distance from the best point, as a share of the space, at which steps are e times as many
    noise: float  # standard deviation of log steps over seeds
    sharpness: float = 1.0
    divergent_beyond: bool = False  # the first hyperparameter diverges just beyond the best point
    sobol: bool = False

    @property
    def law(self) -> Array:
        """Median steps (M,) at the best point."""
        return np.asarray(60 * (1 + (40 / BATCH_SIZES) ** self.sharpness) ** (1 / self.sharpness))

    def pool(self, size: int, generator: np.random.Generator) -> Array:
        """Steps (size, M) seen on the grid of evaluations; divergent points are drawn again."""
        best = np.array([0.55, 0.42, 0.61])[: self.dimensions]
        columns = []
        for base in self.law:
            away = (self._points(size, generator) - best) / self.width
            cost = away**2
            if self.divergent_beyond:
                cost[:, 0] = 2 * np.abs(away[:, 0])
            noise = self.noise * generator.standard_normal(size)
            columns.append(evaluation(base * np.exp(np.minimum(cost.sum(1) + noise, 9.0))))
        return np.column_stack(columns).astype(float)

    def _points(self, size: int, generator: np.random.Generator) -> Array:
        if not self.sobol:
            return generator.random((size, self.dimensions))
        studies = [qmc.Sobol(self.dimensions, rng=generator).random(self.trials) for _ in range(size // self.trials)]
        return np.concatenate(studies)


def noisy_quadratic_pool(size: int, generator: np.random.Generator, momentum: bool, dimensions: int = 12) -> Array:
    """Really run SGD on a noisy quadratic (Zhang 2019): Hessian 1/i, gradient noise covariance Hessian / B.

    Learning rate log-uniform over three decades; momentum, if any, with 1 - momentum log-uniform.
    """
    curvature = 1 / np.arange(1, dimensions + 1)
    columns = []
    for batch_size in BATCH_SIZES:
        rate = 10 ** generator.uniform(-2.5, 0.5, (size, 1))
        gamma = 1 - 10 ** generator.uniform(-1.5, 0, (size, 1)) if momentum else np.zeros((size, 1))
        rate = rate * (1 - gamma)
        position, velocity = np.full((size, dimensions), 3.0), np.zeros((size, dimensions))
        steps, running = np.full(size, np.inf), np.arange(size)
        for previous, now in zip(np.concatenate([[0], EVALUATIONS[:-1]]), EVALUATIONS, strict=True):
            for _ in range(previous, now):
                noise = generator.standard_normal(position.shape) * np.sqrt(8.0 / batch_size)
                velocity = gamma * velocity + curvature * position + np.sqrt(curvature) * noise
                position = position - rate * velocity
            loss = 0.5 * (curvature * position**2).sum(1)
            there = loss < 0.6
            steps[running[there]] = now
            going = ~there & (loss < 1e6)
            position, velocity, rate, gamma = (part[going] for part in (position, velocity, rate, gamma))
            running = running[going]
            if (np.isfinite(steps)).mean() > 0.5 or now > 3000:
                break
        columns.append(steps)
    return np.column_stack(columns)


def expected_minimum(column: Array, trials: int) -> float:
    """The expected minimum of ``trials`` of the pool, drawn with replacement."""
    ordered = np.sort(column)
    ordered = ordered[np.isfinite(ordered)]
    slower = (1 - np.arange(len(ordered) + 1) / len(column)) ** trials
    return float(((slower[:-1] - slower[1:]) * ordered).sum() / (1 - slower[-1]))


@dataclass(frozen=True)
class Truth:
    """What the analysis of a study should find."""

    steps: Array
    perfect_scaling_until: float
    critical_batch_size: float
    maximum_useful_batch_size: float

    @classmethod
    def of(cls, steps: Array, batch_sizes: Array = BATCH_SIZES, tolerance: float = 1.25) -> Truth:
        """The regimes of a curve, by interpolation on a fine grid and by a general least-squares routine."""
        x, y = np.log(batch_sizes), np.log(steps)
        fine = np.linspace(x[0], x[-1], 100_001)
        curve = np.interp(fine, x, y)
        scaling = fine[curve + fine <= (y + x).min() + np.log(tolerance)].max()
        useful = fine[curve <= y.min() + np.log(tolerance)].min()
        law = least_squares(lambda p: p[0] + np.log1p(np.exp(p[1] - x)) - y, [y[-1], x.mean()]).x
        return cls(steps, float(np.exp(scaling)), float(np.exp(law[1])), float(np.exp(useful)))


def tables(steps: Array, margin: float | None = 1.5) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables of a study with steps (n, M) to the goal: raced with ``margin``, or trained to the end.

    Only the first trial of a batch size has all its evaluations in the table, for the others add nothing to the grid.
    """
    rows, measured = [], []
    for column, batch_size in zip(steps.T, BATCH_SIZES.astype(int), strict=True):
        end = column.min() * margin if margin else column[np.isfinite(column)].max() * 1.1
        stop = int(EVALUATIONS[np.searchsorted(EVALUATIONS, end, side="right") - 1])
        for index, first in enumerate(column):
            trial, reached = f"{batch_size:08x}{index:08x}", first <= stop
            rows.append((trial, batch_size, index, 0, 0, "complete" if reached else "stopped", stop))
            if index == 0:
                measured += [
                    (trial, batch_size, at, 0.0 if at >= first else 1.0) for at in EVALUATIONS[EVALUATIONS <= stop]
                ]
            elif reached:
                measured.append((trial, batch_size, int(first), 0.0))
    names = ["trial", "batch_size", "index", "replicate", "revision", "status", "steps"]
    return (
        pl.DataFrame(rows, schema=names, orient="row"),
        pl.DataFrame(measured, schema=["trial", "batch_size", "step", "validation/error"], orient="row"),
    )


def coverage(pool: Array, trials: int, studies: int, law: Array | None, margin: float | None = 1.5) -> dict[str, float]:
    """How often 90% intervals hold the truth, over ``studies`` disjoint studies of the pool.

    That of the steps is the expected minimum, that of the regimes those of ``law``, the steps of the tuned optimum.
    """
    fewest = np.array([expected_minimum(column, trials) for column in pool.T])
    curves = [
        steps_to_result(*tables(pool[start : start + trials], margin), GOAL)
        for start in range(0, trials * studies, trials)
    ]
    shares = {"steps": _covers_steps(curves, fewest)}
    if law is None:
        return shares
    truth = Truth.of(law)
    return shares | {
        name: float(np.mean([_covers(curve, name, getattr(truth, name)) for curve in curves])) for name in REGIMES
    }


def confirmation_coverage(noise: float, sharpness: float, studies: int, seeds: int = 5) -> dict[str, float]:
    """The same for curves drawn from ``seeds`` trainings of every winner; "steps" is one fresh training."""
    generator = np.random.default_rng([2, round(100 * noise), round(10 * sharpness)])
    law = 80 * (1 + (40 / BATCH_SIZES) ** sharpness) ** (1 / sharpness)
    pool = evaluation(law * np.exp(noise * generator.standard_normal((20_001, len(law))))).astype(float)
    truth = Truth.of(law)
    held = []
    for study in range(studies):
        trials, measured = tables(pool[(seeds + 1) * study : (seeds + 1) * (study + 1)], margin=None)
        # The first trial is the winner, for without hyperparameters all trials are at the same point.
        trials = trials.with_columns(replicate=pl.col("index"), index=pl.lit(0, pl.Int64))
        curve = steps_to_result(trials, measured, GOAL)
        assert curve.confirmed
        low, high = (curve.table.get_column(f"tuned_{end}").to_numpy() for end in ("low", "high"))
        inside = float(((low <= pool) & (pool <= high)).mean())
        held.append([inside, *(_covers(curve, name, getattr(truth, name)) for name in REGIMES)])
    return dict(zip(("steps", *REGIMES), np.mean(held, axis=0).tolist(), strict=True))


def tuned_coverage(rows: int, noise: float, studies: int, sharpness: float = 1.0) -> dict[str, float]:
    """The same for curves of ``rows`` trainings of what was tuned before; "steps" is one further training."""
    generator = np.random.default_rng([3, rows, round(100 * noise), round(10 * sharpness)])
    law = 200 * (1 + (40 / BATCH_SIZES) ** sharpness) ** (1 / sharpness)
    truth, held = Truth.of(law), []
    for _ in range(studies):
        logs = np.log(law) + noise * generator.standard_normal((rows, len(law)))
        groups = {
            int(size): pl.DataFrame({"trial": [str(row) for row in range(rows)], "goal_step": np.exp(column).tolist()})
            for size, column in zip(BATCH_SIZES, logs.T, strict=True)
        }
        found = tuned_rows(groups)
        fresh = law * np.exp(noise * generator.standard_normal(len(law)))
        inside = [
            (one.steps.low or 0) <= step <= (one.steps.high or np.inf)
            for one, step in zip(found.values(), fresh, strict=True)
        ]
        medians = np.column_stack([one.log_median for one in found.values()])
        steps = np.array([one.steps.value or np.nan for one in found.values()])
        drawn = regimes(np.asarray(BATCH_SIZES), steps, medians)
        ends = [(getattr(drawn, name), getattr(truth, name)) for name in REGIMES]
        held.append([np.mean(inside), *((end.low or 0) <= at <= (end.high or np.inf) for end, at in ends)])
    return dict(zip(("steps", *REGIMES), np.mean(held, axis=0).tolist(), strict=True))


def _covers_steps(curves: Sequence[Curve], fewest: Array) -> float:
    low, high = (np.array([curve.table.get_column(end).to_numpy() for curve in curves]) for end in ("low", "high"))
    return float(((low <= fewest) & (fewest <= high)).mean())


def _covers(curve: Curve, name: str, truth: float) -> bool:
    interval = getattr(curve.regimes, name)
    low = -np.inf if interval.low is None else interval.low
    high = np.inf if interval.high is None else interval.high
    return bool(low <= truth <= high)


SURFACES = (
    Surface("1 hyperparameter", 16, 1, 0.6, 0.1),
    Surface("1 hyperparameter, more noise", 32, 1, 0.5, 0.2, sharpness=1.5),
    Surface("1 hyperparameter, many trials", 64, 1, 0.5, 0.05),
    Surface("2 hyperparameters, few trials", 16, 2, 0.6, 0.05),
    Surface("2 hyperparameters", 32, 2, 0.4, 0.1),
    Surface("2 hyperparameters, best at the edge of divergence", 32, 2, 0.5, 0.05, divergent_beyond=True),
    Surface("2 hyperparameters, sharp corner", 64, 2, 0.6, 0.1, sharpness=2.0),
    Surface("2 hyperparameters, Sobol points", 32, 2, 0.4, 0.1, sobol=True),
    Surface("3 hyperparameters", 32, 3, 0.5, 0.1),
    Surface("3 hyperparameters, soft corner", 64, 3, 0.5, 0.1, sharpness=0.7),
)


def main(studies: int) -> None:
    """Print the coverage table in Markdown."""
    print("| study | n | steps | perfect scaling until | critical batch size | maximum useful batch size |")
    print("|---|---|---|---|---|---|")
    for number, surface in enumerate(SURFACES):
        pool = surface.pool(surface.trials * max(studies, 1000), np.random.default_rng([0, number]))
        line(surface.name, pool, surface.trials, studies, surface.law)
        if surface.name == "2 hyperparameters":
            line(f"{surface.name}, trained to the end", pool, surface.trials, studies, surface.law, margin=None)
    for momentum in (False, True):
        pool = noisy_quadratic_pool(32 * studies, np.random.default_rng([1, momentum]), momentum)
        name = f"noisy quadratic, {'momentum' if momentum else 'learning rate'}"
        line(name, pool, 32, studies, None)
    for sharpness in (1.0, 2.0):
        for noise in (0.05, 0.15):
            found = confirmation_coverage(noise, sharpness, studies)
            show(f"confirmed with 5 seeds, noise {noise:.0%}, k = {sharpness:g}", 5, found)


def line(name: str, pool: Array, trials: int, studies: int, law: Array | None, margin: float | None = 1.5) -> None:
    """Print one line of the table."""
    show(name, trials, coverage(pool, trials, studies, law, margin))


def show(name: str, trials: int, found: dict[str, float]) -> None:
    """Print shares as a line of the table."""
    print(f"| {name} | {trials} | " + " | ".join(f"{100 * share:.0f}" for share in found.values()) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
