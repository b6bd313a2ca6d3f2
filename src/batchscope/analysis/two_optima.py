"""Whether the good settings of a search lie in two places, with slow ones between."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batchscope.analysis.outcomes import PREFIX
from batchscope.spec.space import OPTIMIZER

Array = NDArray[np.float64]
_GOOD, _NEAR = 1.25, 1.5  # times the fewest steps
_APART = 0.3  # of the space
_BETWEEN = 1.15  # times the way from one to the other, for a detour that still lies between them
_MIDDLE = 0.3  # of that way: nearer to either end lies what belongs to it
# Were they as good as the rest of an optimum, every second would be near: that five of six are not is no chance.
_SLOW, _MOST = 5, 0.8


def two_optima(group: pl.DataFrame, names: list[str]) -> tuple[str, str] | None:
    """The trials of two good settings, the best first, that five slow ones, at least, and hardly another lie between.

    Distances are of ranks, so they are alike in whatever scale a hyperparameter is sampled.

    Args:
        group: The rows of ``Outcomes.table`` that are the search of one batch size.
        names: Its hyperparameters; those that are no numbers are left out.
    """
    if (chosen := PREFIX + OPTIMIZER) in group.columns:  # places are told apart within the space of the best one's
        group = group.filter(pl.col(chosen).eq_missing(group.sort("goal_step", nulls_last=True).item(0, chosen)))
    own = [PREFIX + name for name in names if group[PREFIX + name].count()]
    columns = [column for column in own if group.schema[column].is_numeric()]
    group = group.drop_nulls(columns)
    varied = [column for column in columns if group[column].n_unique() > 1]
    if not varied or not group.get_column("goal_step").count():
        return None
    places = group.select(pl.col(varied).rank("average") / pl.len()).to_numpy()
    steps = group.get_column("goal_step").cast(pl.Float64).fill_null(np.inf).to_numpy()
    best = int(steps.argmin())
    way = _distance(places, places[best])
    for other in np.argsort(steps):
        if steps[other] > _GOOD * steps[best]:
            return None
        if way[other] < _APART:
            continue
        back = _distance(places, places[other])
        between = (way + back <= _BETWEEN * way[other]) & (np.minimum(way, back) >= _MIDDLE * way[other])
        slow = steps[between] > _NEAR * steps[best]
        if slow.sum() >= _SLOW and slow.mean() >= _MOST:
            return str(group.item(best, "trial")), str(group.item(int(other), "trial"))
    return None


def _distance(places: Array, one: Array) -> Array:
    return np.asarray(np.sqrt(((places - one) ** 2).sum(1)))
