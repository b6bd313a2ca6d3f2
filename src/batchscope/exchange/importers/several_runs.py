"""Rows that sum up several trainings: how many, the steps of the fastest and of the slowest, and their middle.

Legend: N trainings of a row.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batchscope.exchange.importers.cleaning import numbers
from batchscope.exchange.importers.result import Problems

Array = NDArray[np.float64]
# Halvings of the span of that point: to a thousandth of a step of the longest training that a row can tell of.
_HALVINGS = 64


def each_training(rows: pl.DataFrame, runs: int, *, mean: bool, problems: Problems) -> pl.DataFrame:
    """N rows in place of every one: trainings that agree with all that the row says.

    Args:
        rows: ``batch_size``, and ``steps``, ``low`` and ``high``: the middle, the least and the greatest of N.
        runs: N, 2 at the least.
        mean: Whether the middle is their mean; their median otherwise.
        problems: Where rows that no trainings agree with are counted; they are left out.
    """
    rows = numbers(numbers(rows, "low", "the least steps", problems), "high", "the greatest steps", problems)
    ordered = (pl.col("low") >= 1) & (pl.col("low") <= pl.col("steps")) & (pl.col("steps") <= pl.col("high"))
    unfit = ~ordered.fill_null(False)
    problems.add_rows(
        "rows whose steps are not between their least and greatest, left out", rows.filter(unfit), "batch_size"
    )
    rows = rows.filter(~unfit)
    ends = rows.select("low", "steps", "high").iter_rows()
    steps = [trainings(low, middle, high, runs, mean=mean).tolist() for low, middle, high in ends]
    listed = rows.with_columns(pl.Series("steps", steps, pl.List(pl.Float64)))
    return listed.drop("low", "high").explode("steps")


def trainings(low: float, middle: float, high: float, runs: int, *, mean: bool) -> Array:
    """Steps (N,), ascending, the least and the greatest as given.

    Between these they lie as N draws of a log-normal distribution do on average (normal scores, Blom 1958), each half
    stretched to a point between: the one that gives the middle, as near as there is.
    """
    places = (np.arange(1, runs + 1) - 0.375) / (runs + 0.25)
    scores = np.array([NormalDist().inv_cdf(float(place)) for place in places])
    scores /= scores[-1]

    def around(point: float) -> Array:
        ends = np.log(point) - np.log(low), np.log(high) - np.log(point)
        return np.asarray(point * np.exp(scores * np.where(scores < 0, *ends)))

    of_them, least, most = np.mean if mean else np.median, low, high
    for _ in range(_HALVINGS):
        at = (least + most) / 2
        least, most = (at, most) if of_them(around(at)) < middle else (least, at)
    return around(at)
