"""The batch sizes that a recommendation chooses among: their steps to the goal, and how sure these are.

Legend: M batch sizes, D samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscope.amounts import count, number
from batchscope.analysis import laws
from batchscope.analysis.curve import Curve, point_names
from batchscope.errors import AnalysisError
from batchscope.interval import Interval
from batchscope.seeds import numpy_generator

Array = NDArray[np.float64]
Value = float | str
SAMPLES = 1000
_CENTRAL_90 = 1.645


@dataclass(frozen=True, eq=False)
class Point:
    """One batch size: the steps of a fresh training as an interval and as samples (D,) of their logarithm, its setting.

    They are a ``lower_bound`` where its setting was not trained again: the fewest of a search.
    """

    batch_size: int
    steps: Interval
    log_samples: Array
    hyperparameters: Mapping[str, Value]
    remarks: tuple[str, ...] = ()
    extrapolated: bool = False
    lower_bound: bool = False


def points(curve: Curve, batch_sizes: Sequence[int] | None = None, *, extrapolate: bool = False) -> list[Point]:
    """The batch sizes to choose among: ``batch_sizes``, else all that reached the goal.

    With ``extrapolate`` and no list, two doublings beyond the largest are added.

    Raises:
        AnalysisError: If no batch size reached the goal, or one of the list was not measured, or did not reach the
            goal, and ``extrapolate`` is not set.
    """
    rows = {row["batch_size"]: row for row in curve.table.iter_rows(named=True)}
    reached = [size for size, row in rows.items() if row[curve.quantity] is not None]
    if not reached:
        raise AnalysisError(
            f"no batch size reached {curve.goal}, so there is nothing to recommend: train for longer (budget), widen "
            "the search, or ask for an easier goal with --goal"
        )
    samples = _samples(curve, list(rows))
    known = {size: _measured(curve, rows[size], samples[:, column]) for column, size in enumerate(rows)}
    asked = sorted(set(batch_sizes or reached))
    if extrapolate and batch_sizes is None:
        asked += [2 * reached[-1], 4 * reached[-1]]
    if asked[0] < 1:
        raise AnalysisError(f"a batch size is at least 1, got {asked[0]}")
    beyond = [size for size in asked if known.get(size) is None]
    if beyond and not extrapolate:
        raise AnalysisError(
            f"steps to {curve.goal} were measured at batch size {', '.join(map(str, reached))}, not at "
            f"{', '.join(map(str, beyond))}: run the study there, or add --extrapolate to take what the fitted law says"
        )
    return [known.get(size) or _by_law(curve, size, list(rows)) for size in asked]


def _measured(curve: Curve, row: Mapping[str, Any], sample: Array) -> Point | None:
    value = row[curve.quantity]
    if value is None:
        return None
    low, high = (row["tuned_low"], row["tuned_high"]) if curve.confirmed else (row["low"], row["high"])
    remarks = []
    if row.get("validated") is False:
        remarks.append(f"not validated: {row['reason']}")
    if not curve.confirmed:
        remarks.append(luck(row))
        if row.get("verdict"):
            remarks.append(str(row["verdict"]))
    point = {name: row[name] for name in point_names(curve.table) if row[name] is not None}
    steps = Interval(float(value), low and min(low, value), high and max(high, value), curve.level)
    return Point(row["batch_size"], steps, sample, point, tuple(remarks), lower_bound=not curve.confirmed)


def luck(row: Mapping[str, Any]) -> str:
    """What is to be expected beyond the fewest steps of a search, a row of ``Curve.table`` that was not confirmed."""
    if (again := row.get("tuned")) is not None:
        after = f"trained again it took {count(again)}"
    elif (behind := row.get("runners_up")) is not None:
        after = f"were there only the seed between it and its runners-up, a fresh training would take {count(behind)}"
    else:
        after = "no other trial tells how far"
    return f"at least {count(row['steps'])} steps, for the fastest of a search is lucky; {after}"


def _by_law(curve: Curve, size: int, sizes: list[int]) -> Point:
    fitted = curve.regimes.law
    if fitted is None:
        raise AnalysisError("to extrapolate needs a law, and that at least 3 batch sizes that reached the goal")
    law = fitted.law
    samples, fresh = _samples(curve, sizes, fresh=False), _samples(curve, sizes)
    inside = ~np.isnan(samples).any(0)
    known = np.array(sizes)[inside] * 1.0
    log_samples = laws.predict(known, samples[:, inside], np.array([size * 1.0]), sharpness=_sharpness(law))[:, 0]
    nearest = np.abs(np.log(known / size)).argmin()
    log_samples = log_samples + (fresh - samples)[:, inside][:, nearest]  # the noise of the seed, as near by
    steps = Interval.from_log_samples(law.steps(size, extrapolate=True), log_samples, curve.level)
    smallest, largest = law.measured
    side = "beyond" if not smallest <= size <= largest else "between"
    remark = (
        f"extrapolated: nothing was trained at batch size {number(size)}, {side} the measured {number(smallest)} to "
        f"{number(largest)}; its steps are what the fitted law says, and nothing is known of its hyperparameters"
    )
    return Point(size, steps, log_samples, {}, (remark,), True, not curve.confirmed)


def _sharpness(law: laws.Law) -> float | None:
    return 1.0 if law.sharpness == 1.0 else None


def _samples(curve: Curve, sizes: list[int], *, fresh: bool = True) -> Array:
    """Samples (D, M) of the log steps of a ``fresh`` training, or of their median; NaN where nothing is known.

    A curve without samples has its intervals for them.
    """
    drawn = curve.log_fresh if fresh and len(curve.log_fresh) else curve.log_samples
    if drawn.shape[1:] == (len(sizes),) and len(drawn):
        return drawn
    generator = numpy_generator("steps of a curve without samples")
    columns = []
    for row in curve.table.iter_rows(named=True):
        value = row[curve.quantity]
        spread = np.log(row["high"] / row["low"]) / (2 * _CENTRAL_90) if row["low"] and row["high"] else 0.0
        error = spread * generator.standard_normal(SAMPLES)
        columns.append(np.full(SAMPLES, np.nan) if value is None else np.log(value) + error)
    return np.column_stack(columns)
