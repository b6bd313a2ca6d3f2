"""The search of a batch size, as far as the optimum of its space depends on it.

Legend: n trials of the search, K of them near its fastest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batchscope.analysis.outcomes import PREFIX
from batchscope.analysis.tuned_steps import TunedSteps
from batchscope.spec.space import OPTIMIZER

Array = NDArray[np.float64]
NEAR = 1.5
_NONE: Array = np.empty(0)


@dataclass(frozen=True, eq=False)
class Searched:
    """The search of one batch size, as far as its optimum depends on it.

    Attributes:
        batch_size: That of its trials.
        log_steps: (K,) of the settings within ``NEAR`` times the fewest steps of the search, mean over their trainings
            that reached the goal.
        trainings: (K,) how many those are, that of the search among them.
        gap: (K,) log distance of the two evaluations between which a training crossed the goal; 0 where that is exact.
        horizon: Log of ``NEAR`` times the fewest steps.
        watched: (n - K,) logs of the steps until which each other trial is known not to have reached the goal.
        noise: Standard deviation of log steps over seeds, if anything tells it.
        missed: Of each of the K settings the logs of the steps until which its trainings are known not to have reached
            the goal, of those that did not; empty if none of any.
    """

    batch_size: int
    log_steps: Array
    trainings: Array
    gap: Array
    horizon: float
    watched: Array
    noise: float | None = None
    missed: tuple[Array, ...] = ()

    @classmethod
    def of(cls, group: pl.DataFrame, promise: TunedSteps | None, noise: float | None) -> Searched:
        """Read from the rows of ``Outcomes.table`` that are the search of one batch size.

        Args:
            group: The rows, of which one at least has reached the goal.
            promise: Whose trainings with new seeds count too.
            noise: Of the seed, if anything tells it.
        """
        feasible = group.filter("feasible").with_columns(first=pl.col("goal_step").cast(pl.Float64))
        near = feasible.get_column("first").fill_null(np.inf) <= NEAR * feasible["first"].min()  # type: ignore[operator]
        close, others = feasible.filter(near), feasible.filter(~near)
        first = close["first"].to_numpy()
        # Steps are whole: one that was not beyond the goal at step 9, and was at 10, has crossed it at 10.
        gap = np.log(first / (close["before"].to_numpy() + 1.0))
        again = {} if promise is None else promise.again
        known = [again.get(trial, (_NONE, _NONE)) for trial in close["trial"]]
        trainings = [np.append(reached, np.log(step)) for (reached, _), step in zip(known, first, strict=True)]
        watched = others.select(pl.max_horizontal(pl.coalesce("before", "watched"), 1)).to_series().to_numpy()
        return cls(
            int(group.item(0, "batch_size")),
            np.array([steps.mean() for steps in trainings]) - gap / 2,
            np.array([len(steps) for steps in trainings], dtype=np.float64),
            gap,
            float(np.log(NEAR * first.min()) - gap.mean() / 2),
            np.log(watched * 1.0),
            noise,
            tuple(missed for _, missed in known),
        )


def searched(groups: Mapping[int, pl.DataFrame], promises: Mapping[int, TunedSteps]) -> list[Searched]:
    """Those of all batch sizes that reached the goal, with the noise of a seed, if anything was trained again."""
    noises = {size: promise.noise for size, promise in promises.items() if promise.noise is not None}
    usual = float(np.sqrt(np.mean(np.square(list(noises.values()))))) if noises else None
    reached = {size: group for size, group in groups.items() if group.get_column("goal_step").count()}
    return [Searched.of(group, promises.get(size), noises.get(size, usual)) for size, group in reached.items()]


def dimensions(groups: Mapping[int, pl.DataFrame], names: list[str]) -> int | None:
    """How many hyperparameters the search has tried several values of; None if it is not known what it tried.

    Of several optimizers that with the most.
    """
    if not names:
        return None
    tried = pl.concat([group.select([PREFIX + name for name in names]) for group in groups.values()])
    chosen = PREFIX + OPTIMIZER
    spaces = tried.partition_by(chosen) if chosen in tried.columns else [tried]
    return max(sum(space[column].drop_nulls().n_unique() > 1 for column in space.columns) for space in spaces)
