"""Whether a point of a curve can be trusted: is its best trial inside the space, and were there enough trials.

Legend: n trials of the study, m of a smaller one, D samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batchscope.amounts import number
from batchscope.analysis import tail
from batchscope.analysis.outcomes import Outcomes, Table, crossings, outcomes
from batchscope.analysis.words import Words
from batchscope.errors import AnalysisError
from batchscope.seeds import numpy_generator
from batchscope.spec.goal import Goal

Array = NDArray[np.float64]
Side = tuple[float, float, str]  # smallest value, largest value, scale of sampling
Space = Mapping[str, Side | Mapping[str, Side]]  # by name; or by optimizer, where each has a space of its own
WIDE = 2.0  # an interval of steps that spans this factor is as wide as a doubling of the batch size
_KNOWN = 0.99


def position(value: float, low: float, high: float, scale: str) -> float:
    """Where ``value`` lies in its range, 0 to 1, in the scale that it is sampled in.

    Raises:
        AnalysisError: If the scale is not linear, log or reverse_log.
    """
    if scale == "linear":
        return (value - low) / (high - low)
    if scale == "log":
        return math.log(value / low) / math.log(high / low)
    if scale == "reverse_log":
        return math.log((1 - low) / (1 - value)) / math.log((1 - low) / (1 - high))
    raise AnalysisError(f"a scale is linear, log or reverse_log, got {scale!r}")


def boundary(point: Mapping[str, object], space: Space, edge: float) -> str | None:
    """Why the best point is too near to a side of its space, or ``None`` (the check of Sh19 section 4)."""
    own = space.get(str(point.get("optimizer")))
    for name, side in (own if isinstance(own, Mapping) else space).items():
        value = point.get(name)
        if not isinstance(value, int | float) or not isinstance(side, tuple) or side[0] == side[1]:
            continue
        low, high, scale = side
        place = position(float(value), low, high, scale)
        if not edge <= place <= 1 - edge:
            which, limit = ("lower", low) if place < 0.5 else ("upper", high)
            return f"the best {name}, {value:g}, is within {edge:g} of the {which} side of its space, {limit:g}"
    return None


def central(samples: Array, level: float) -> tuple[float, float]:
    """The ends of the central interval of samples (D,)."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class ExpectedSteps:
    """What a cheaper search would have found: the expected fewest steps of m of the n trials.

    ``table``: batch_size, trials (m), expected_steps, low, high; null where it hangs on trials that were stopped
    early.
    """

    goal: Goal
    table: pl.DataFrame
    level: float = 0.9


_COLUMNS = {
    "batch_size": pl.Int64,
    "trials": pl.Int64,
    "expected_steps": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


def expected_steps(
    trials: Table,
    measurements: Table,
    goal: Goal,
    counts: Sequence[int] | None = None,
    *,
    level: float = 0.9,
    samples: int = 1000,
    found: Outcomes | None = None,
) -> ExpectedSteps:
    """The expected fewest steps over m trials for every m in ``counts`` (1, 2, 4, ... and n if not given).

    The value is the mean of the minimum over all subsets of m trials, which is unbiased, and at m = n is the
    minimum observed. Its interval is that of the lower tail for m of at least n/3 (see ``tail``), and below,
    where resampling is right, of a Bayesian bootstrap of the trials (Rubin 1981). ``found`` is what became of the
    trials, if that is known already.

    Raises:
        AnalysisError: If no batch size reached the goal.
    """
    found = found or outcomes(trials, measurements, goal)
    rows: list[tuple[int, int, float | None, float | None, float | None]] = []
    for batch_size, group in found.search():
        feasible = group.filter("feasible")
        before, first, watched = crossings(feasible)
        if not len(first):
            continue
        generator = numpy_generator("expected steps", str(goal), batch_size)
        fitted = tail.fit(before, first, watched, samples, generator)
        n = feasible.height
        # Beyond the earliest stop the order of the trials is not known.
        ordered = np.sort(first[first <= watched.min(initial=np.inf)])
        for m in sorted({min(count, n) for count in counts or [*(2**k for k in range(n.bit_length())), n]}):
            value, known = _mean_minimum(ordered, n, m)
            if known < _KNOWN:
                rows.append((batch_size, m, None, None, None))
                continue
            tailed = 3 * m >= n
            sample = (
                fitted.expected(m, found.evaluations[batch_size])
                if tailed
                else _bootstrap(ordered, n, m, samples, generator)
            )
            low, high = central(sample, level)
            rows.append((batch_size, m, value, min(low, value), max(high, value)))
    if not rows:
        raise AnalysisError(f"no trial reached {goal}: choose an easier goal, or train for longer")
    return ExpectedSteps(goal, pl.DataFrame(rows, schema=_COLUMNS, orient="row"), level)


def _mean_minimum(ordered: Array, n: int, m: int) -> tuple[float, float]:
    """The mean minimum over subsets of m of n trials of which only the fastest, ``ordered``, are known.

    The i-th fastest is the minimum of C(n - i, m - 1) of the C(n, m) subsets. Also the share of subsets whose
    minimum is known.
    """
    if not len(ordered):  # a trial was stopped before any reached the goal
        return math.nan, 0.0
    rank = np.arange(1, min(len(ordered), n - m + 1) + 1)
    passed = (n - m + 1 - rank[:-1]) / (n - rank[:-1])  # C(n - i - 1, m - 1) / C(n - i, m - 1)
    share = m / n * np.cumprod([1.0, *passed])
    return float(share @ ordered[: len(rank)] / share.sum()), float(share.sum())


def _bootstrap(ordered: Array, n: int, m: int, samples: int, generator: np.random.Generator) -> Array:
    weight = generator.dirichlet(np.ones(n), size=samples)[:, : len(ordered)]
    slower = np.clip(1 - np.cumsum(weight, axis=1), 0, 1) ** m
    share = np.hstack([np.ones((samples, 1)), slower[:, :-1]]) - slower
    return np.asarray((share @ ordered) / share.sum(1))


def words(result: ExpectedSteps) -> Words:
    """What the table says: how much the last doubling of the trials brought."""
    gains = []
    for group in result.table.drop_nulls("expected_steps").partition_by("batch_size"):
        rows = {row["trials"]: row["expected_steps"] for row in group.iter_rows(named=True)}
        most = max(rows)
        if half := [steps for count, steps in rows.items() if most / 2 <= count < most]:
            gains.append(half[0] / rows[most])
    found = "too few trials to compare"
    if gains:
        times = number(float(np.median(gains)), 3)
        found = f"the best of half the trials would take {times} times the steps (median of batch sizes)"
    return Words(
        "What fewer trials would have found",
        "The expected fewest steps of a search of fewer feasible trials. Where a line is still falling at its right "
        "end, more trials would find a faster point.",
        found,
    )
