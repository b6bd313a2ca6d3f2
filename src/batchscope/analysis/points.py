"""The batch sizes that a recommendation chooses among: their steps to the goal, and how sure these are.

Legend: M batch sizes, D samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.analysis import laws
from batchscope.analysis.steps import Curve, point_names
from batchscope.errors import AnalysisError
from batchscope.interval import Interval
from batchscope.seeds import numpy_generator

Array = NDArray[np.float64]
Value = float | str
SAMPLES = 1000
_CENTRAL_90 = 1.645


@dataclass(frozen=True, eq=False)
class Point:
    """One batch size: its steps as an interval and as samples (D,) of their logarithm, and what its winner was."""

    batch_size: int
    steps: Interval
    log_samples: Array
    hyperparameters: Mapping[str, Value]
    remarks: tuple[str, ...] = ()
    extrapolated: bool = False


def points(curve: Curve, batch_sizes: Sequence[int] | None = None, *, extrapolate: bool = False) -> list[Point]:
    """The batch sizes to choose among: ``batch_sizes``, else all that reached the goal.

    With ``extrapolate`` and no list, two doublings beyond the largest are added.

    Raises:
        AnalysisError: If no batch size reached the goal, or one of the list was not measured, or did not reach the
            goal, and ``extrapolate`` is not set.
    """
    rows = {row["batch_size"]: row for row in curve.table.iter_rows(named=True)}
    reached = [size for size, row in rows.items() if row["steps"] is not None]
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
    return [known.get(size) or _by_law(curve, size, samples, list(rows)) for size in asked]


def _measured(curve: Curve, row: Mapping[str, object], sample: Array) -> Point | None:
    if row["steps"] is None:
        return None
    prefix = "confirmed_" if curve.confirmed else ""
    value = _number(row[f"{prefix}steps"])
    low, high = (_number(row[f"{prefix}{side}"], value) for side in ("low", "high"))
    remarks = []
    if row.get("validated") is False:
        remarks.append(f"not validated: {row['reason']}")
    if row.get("verdict"):
        remarks.append(str(row["verdict"]))
    if not curve.confirmed and row.get("confirmed_steps") is not None:
        again = f"{row['confirmed_steps']:g} steps, the median of {row['confirmations']}"
        remarks.append(
            f"not every batch size was confirmed, so this is the winner's luck too: run again it took {again}"
        )
    point = {name: row[name] for name in point_names(curve.table) if row[name] is not None}
    steps = Interval(value, min(low, value), max(high, value), curve.level)
    return Point(int(_number(row["batch_size"])), steps, sample, point, tuple(remarks))  # type: ignore[arg-type]


def _by_law(curve: Curve, size: int, samples: Array, sizes: list[int]) -> Point:
    fitted = curve.regimes.law
    if fitted is None:
        raise AnalysisError("to extrapolate needs a law, and that at least 3 batch sizes that reached the goal")
    law = fitted.law
    inside = ~np.isnan(samples).any(0)
    known = np.array(sizes)[inside] * 1.0
    log_samples = laws.predict(known, samples[:, inside], np.array([size * 1.0]), sharpness=_sharpness(law))[:, 0]
    steps = Interval.from_log_samples(law.steps(size, extrapolate=True), log_samples, curve.level)
    smallest, largest = law.measured
    side = "beyond" if not smallest <= size <= largest else "between"
    remark = (
        f"extrapolated: nothing was trained at batch size {size:,}, {side} the measured {smallest:,.0f} to "
        f"{largest:,.0f}; its steps are what the fitted law says, and nothing is known of its hyperparameters"
    )
    return Point(size, steps, log_samples, {}, (remark,), True)


def _sharpness(law: laws.Law) -> float | None:
    return 1.0 if law.sharpness == 1.0 else None


def _samples(curve: Curve, sizes: list[int]) -> Array:
    """Samples (D, M) of log steps; NaN where the goal was not reached. A curve without any has its intervals for
    them.
    """
    if curve.log_samples.shape[1:] == (len(sizes),) and len(curve.log_samples):
        return curve.log_samples
    generator = numpy_generator("steps of a curve without samples")
    columns = []
    for row in curve.table.iter_rows(named=True):
        value = row["confirmed_steps" if curve.confirmed else "steps"]
        spread = np.log(row["high"] / row["low"]) / (2 * _CENTRAL_90) if row["low"] and row["high"] else 0.0
        error = spread * generator.standard_normal(SAMPLES)
        columns.append(np.full(SAMPLES, np.nan) if value is None else np.log(value) + error)
    return np.column_stack(columns)


def _number(value: object, otherwise: float = float("nan")) -> float:
    return float(value) if isinstance(value, int | float) else otherwise
