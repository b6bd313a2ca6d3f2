"""Tuned steps: what the recommended setting of a batch size takes when it is trained anew.

Legend: K candidates of a batch size, R new seeds, D samples.

The fewest steps of a search are lucky, in the point and in its seed. So the best few points are trained again, each on
the same R new seeds (``plan/confirmation.py``), and

1. the setting that is recommended is the candidate with the least mean of log steps over all R seeds;
2. what is promised is found by leaving one seed out (Stone 1974): on the other seeds a candidate is chosen, on the one
   left out its steps are read. No training that was looked at in choosing counts, so choosing costs nothing: the mean
   of these R log steps estimates the median of a choice from R - 1 seeds, of which that from R is no worse;
3. the noise of the seed is the variance of log steps about each candidate's mean. Other batch sizes have a voice in it,
   as much as ``_PRIOR`` trainings, for five seeds alone tell a variance within a factor of 3;
4. the interval is predictive: it holds one fresh training, not a mean of many. With many trainings it is that of
   Student's t; with few, the noise is still no more than can be (``analysis/seed_noise.py``).

A training that missed the goal is as slow as can be: its candidate is chosen only if all others missed as often, and
if the one that is promised missed any, the interval is open above. So it is where its end would lie beyond
``_WATCHED`` times the promise, for nothing was watched for so long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batchscope.analysis.outcomes import PREFIX
from batchscope.analysis.seed_noise import deviations, reach_of_one_more, scatter
from batchscope.interval import Interval
from batchscope.seeds import numpy_generator

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
_PRIOR = 4.0
_WATCHED = 4.0  # times the fewest steps of the search: as far as a training with a new seed goes


@dataclass(frozen=True, eq=False)
class Confirmation:
    """The candidates of one batch size, in the order in which the search ranked them, trained again.

    Attributes:
        trials: (K,) their ids in the search.
        log_steps: (K, R) on every new seed; the last step that was watched where the goal was missed, NaN where
            nothing was trained.
        missed: (K, R) whether the goal was missed.
        gap: Log distance of an evaluation that was beyond the goal and the one before, root mean square.
    """

    trials: tuple[str, ...]
    log_steps: Array
    missed: Flags
    gap: float = 0.0

    @classmethod
    def of(cls, searched: pl.DataFrame, again: pl.DataFrame, names: list[str]) -> Confirmation | None:
        """Read from ``Outcomes.table``: the search of one batch size, and its trainings with new seeds.

        Trainings belong to the trial of the search with their hyperparameters; None where there are none.
        """
        order = searched.sort("goal_step", "revision", "index", nulls_last=True).with_row_index("rank")
        columns = [PREFIX + name for name in names]
        points = order.unique(columns, keep="first", maintain_order=True) if columns else order.head(1)
        points = points.select("rank", pl.col("trial").alias("candidate"), *columns)
        known = again.filter(pl.col("goal_step").is_not_null() | (pl.col("status") != "running"))
        known = known.join(points, on=columns, nulls_equal=True) if columns else known.join(points, how="cross")
        if known.is_empty():
            return None
        candidates = known.select("rank", "candidate").unique().sort("rank")
        row = np.searchsorted(candidates["rank"].to_numpy(), known["rank"].to_numpy())
        seeds, column = np.unique(known["replicate"].to_numpy(), return_inverse=True)
        log_steps = np.full((candidates.height, len(seeds)), np.nan)
        missed = np.zeros(log_steps.shape, dtype=bool)
        last = known.select(pl.max_horizontal(pl.coalesce("goal_step", "watched"), 1)).to_series()
        log_steps[row, column] = np.log(last.to_numpy())
        missed[row, column] = known["goal_step"].is_null().to_numpy()
        reached = known.drop_nulls("goal_step")
        gaps = np.log(reached["goal_step"].to_numpy() / (reached["before"].to_numpy() + 1.0))
        gap = float(np.sqrt((gaps**2).mean())) if len(gaps) else 0.0
        return cls(tuple(candidates["candidate"]), log_steps, missed, gap)

    def choice(self, without: int | None = None) -> int:
        """The candidate that missed least, and then has the least mean, on all seeds but one.

        One that was trained on fewer seeds than another does not come before it; where no seed is left, the search
        decides.
        """
        seeds = [seed for seed in range(self.log_steps.shape[1]) if seed != without]
        known = ~np.isnan(self.log_steps[:, seeds])
        counts = known.sum(1)
        means = np.where(known, self.log_steps[:, seeds], 0.0).sum(1) / np.maximum(counts, 1)
        return int(np.lexsort((means, self.missed[:, seeds].sum(1), -counts))[0])

    def left_out(self) -> tuple[Array, Flags]:
        """Log steps of the choice from the other seeds on every seed (R,), and whether it missed the goal there."""
        chosen = [(self.choice(seed), seed) for seed in range(self.log_steps.shape[1])]
        steps = np.array([self.log_steps[one] for one in chosen])
        missed = np.array([self.missed[one] for one in chosen])
        return steps[~np.isnan(steps)], missed[~np.isnan(steps)]

    def trainings(self) -> list[tuple[Array, Array]]:
        """Of each candidate log steps of the trainings that reached the goal, and where those ended that missed it."""
        return [
            (steps[~missed & ~np.isnan(steps)], steps[missed])
            for steps, missed in zip(self.log_steps, self.missed, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class TunedSteps:
    """The promise of one batch size.

    Attributes:
        trial: The recommended setting: the id of the trial of the search that it comes from.
        steps: The median over seeds and the interval that holds one fresh training; None where half of the trainings
            or more missed the goal, or nothing tells the noise of a seed.
        seeds: How many trainings it rests on.
        missed: How many of them missed the goal.
        log_median: (D,) samples of the logarithm of the median; empty where it has no interval.
        log_fresh: (D,) likewise of one fresh training, by the same medians.
        noise: Standard deviation of log steps over seeds; None where nothing tells it.
        again: The trainings with new seeds, by the trial of the search whose setting they have: log steps of those that
            reached the goal, and of the others log of the last step that was watched.
    """

    trial: str
    steps: Interval
    seeds: int
    missed: int
    log_median: Array
    log_fresh: Array
    noise: float | None = None
    again: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)


def tuned_steps(
    confirmations: Mapping[int, Confirmation], *, level: float = 0.9, samples: int = 1000
) -> dict[int, TunedSteps]:
    """What the best candidate of every batch size takes when it is trained anew.

    Args:
        confirmations: By batch size.
        level: Of the intervals.
        samples: D.
    """
    scatters = {size: scatter(found.trainings()) for size, found in confirmations.items()}
    promises = {}
    for size, found in confirmations.items():
        others = [own for other, own in scatters.items() if other != size]
        promises[size] = _promise(size, found, scatters[size], _pooled(others), level, samples)
    return promises


def promised(
    trials: pl.DataFrame,
    groups: Mapping[int, pl.DataFrame],
    names: list[str],
    *,
    level: float = 0.9,
    samples: int = 1000,
) -> dict[int, TunedSteps]:
    """The tuned steps of the batch sizes whose points were trained again.

    Args:
        trials: ``Outcomes.table``.
        groups: By batch size those of its trials that are the search.
        names: The hyperparameters.
        level: Of the intervals.
        samples: D.
    """
    again = trials.filter(pl.col("replicate") > 0)
    confirmations = {}
    for size, group in groups.items():
        own = again.filter(pl.col("batch_size") == size)
        if group.get_column("goal_step").count() and (found := Confirmation.of(group, own, names)) is not None:
            confirmations[size] = found
    return tuned_steps(confirmations, level=level, samples=samples)


def _pooled(scatters: list[tuple[float, int]]) -> tuple[float, int]:
    """Sums of squares of several batch sizes, shrunk to weigh as ``_PRIOR`` degrees of freedom at the most."""
    whole, freedom = sum(one[0] for one in scatters), sum(one[1] for one in scatters)
    share = min(1.0, _PRIOR / freedom) if freedom else 0.0
    return share * whole, round(share * freedom)


def _promise(
    size: int, found: Confirmation, own: tuple[float, int], others: tuple[float, int], level: float, samples: int
) -> TunedSteps:
    logs, missed = found.left_out()
    trial, count, misses = found.trials[found.choice()], len(logs), int(missed.sum())
    # As many as half missed: the median is beyond what was watched.
    value = float(logs.mean() if not misses else np.median(np.where(missed, np.inf, logs))) if count else np.inf
    freedom = own[1] + others[1]
    # Steps are known no better than the evaluations lie apart.
    variance = max((own[0] + others[0]) / max(freedom, 1), found.gap**2 / 12)
    noise = float(np.sqrt(variance)) if freedom else None
    again = dict(zip(found.trials, found.trainings(), strict=True))
    none = np.empty(0)
    if not np.isfinite(value) or not freedom:
        known = float(np.exp(value)) if np.isfinite(value) else None
        return TunedSteps(trial, Interval(known, None, None, level), count, misses, none, none, noise, again)
    squares = variance * freedom
    generator = numpy_generator("tuned steps", size)
    deviation = deviations(squares, freedom, generator.random(samples))
    median = value + deviation * generator.standard_normal(samples) / np.sqrt(count)
    fresh = median + deviation * generator.standard_normal(samples)
    steps = predicted(value, reach_of_one_more(squares, freedom, count, level), level)
    if misses:
        steps = replace(steps, high=None)
    return TunedSteps(trial, steps, count, misses, median, fresh, noise, again)


def predicted(value: float, reach: float, level: float) -> Interval:
    """The interval of one further training, ``reach`` log steps to both sides of ``value``.

    None takes less than a step; where it ends beyond what was watched, it is open above.
    """
    low, high = max(value - reach, min(value, 0.0)), value + reach
    known = high <= value + np.log(_WATCHED)
    return Interval(float(np.exp(value)), float(np.exp(low)), float(np.exp(high)) if known else None, level)
