"""How good predictions have been: measured on workloads, and what is printed because of it.

``track_record.json`` is written by ``benchmarks/predictions.py``. Legend: W scored trainings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from batchscope.interval import Interval
from batchscope.spec.prediction import LEVEL, TrackRecord, steps_at

# Fewer tell nothing of how good a method is: its intervals are then so many times as wide to both sides.
FEWEST, UNKNOWN = 3, 100.0
# Fewer say nothing of how good a method is: its intervals are then so many times as wide, to both sides.
FEWEST, UNKNOWN = 3, 100.0
METHODS = ("gradient_noise", "hessian_noise", "branches")


@dataclass(frozen=True)
class Scored:
    """One training whose curve was measured.

    Attributes:
        workload: Its name.
        optimizer: Of the training.
        goal: That it reached.
        batch_size: B_0.
        steps: To the goal, in the one training.
        measured: Critical batch size of the measured curve.
        curve: Batch size -> measured steps.
        by: What each method found, as it was measured; None where it found nothing.
    """

    workload: str
    optimizer: str
    goal: str
    batch_size: int
    steps: int
    measured: Interval
    curve: Mapping[int, float]
    by: Mapping[str, Interval | None]


@lru_cache(maxsize=1)
def track_record() -> tuple[Scored, ...]:
    """All that were scored."""
    text = files("batchscope.prediction").joinpath("track_record.json").read_text(encoding="utf-8")
    return tuple(_scored(row) for row in json.loads(text)["scored"])


def record_of(method: str, scored: Sequence[Scored]) -> TrackRecord:
    """The median ratio, and the factor that widens intervals so that nine in ten hold, each judged by the others.

    1. Values are multiplied by the median ratio of measured over predicted.
    2. The score of a training is the factor by which its interval, so corrected, has to be widened to hold the measured
       value; 1 where it does.
    3. Leaving one out, ratio and factor come from the others: the factor is the least that holds nine tenths of them.
       Where that does not hold nine in ten of those left out, all factors are multiplied by the least number that does.
    """
    rows = [row for row in scored if _value(row, method) is not None and row.measured.value is not None]
    if len(rows) < FEWEST:
        return TrackRecord(trainings=len(rows), held=0, ratio=1.0, widened=UNKNOWN, curve_widened=UNKNOWN)
    alone = []
    for left_out in rows:
        others = [row for row in rows if row is not left_out]
        ratio = _ratio(others, method)
        alone.append(_score(left_out, method, ratio) / _enough([_score(row, method, ratio) for row in others]))
    slack, ratio = max(_enough(alone), 1.0), _ratio(rows, method)
    return TrackRecord(
        trainings=len(rows),
        held=sum(one <= slack for one in alone),
        ratio=ratio,
        widened=slack * _enough([_score(row, method, ratio) for row in rows]),
        curve_widened=_of_curves(rows, method),
    )


def corrected(interval: Interval, record: TrackRecord) -> Interval:
    """The interval that is printed for one that was measured."""

    def times(end: float | None, factor: float) -> float | None:
        return None if end is None else end * factor * record.ratio

    low, high = times(interval.low, 1 / record.widened), times(interval.high, record.widened)
    return Interval(times(interval.value, 1.0), low, high, LEVEL)


def best_method(answers: Mapping[str, Interval | None], scored: Sequence[Scored]) -> str | None:
    """Of the methods that gave a value the one whose printed intervals have been the narrowest; None if none did."""
    found = [method for method, one in answers.items() if one is not None and one.value]
    return min(found, key=lambda method: _usual_width(method, scored)) if found else None


def _usual_width(method: str, scored: Sequence[Scored]) -> float:
    """Median of high over low of what would have been printed; infinite where most were left open."""
    record = record_of(method, scored)
    printed = [corrected(found, record) for row in scored if (found := row.by.get(method)) is not None]
    widths = [one.high / one.low if one.high and one.low else math.inf for one in printed]
    return float(np.sort(widths)[len(widths) // 2]) if widths else math.inf


def _of_curves(rows: Sequence[Scored], method: str) -> float:
    """The factor by which steps are widened to hold nine in ten of the measured ones, each training by the others."""
    each: list[float] = []
    for row in rows:
        value = _value(row, method)
        assert value is not None
        critical = value * _ratio([other for other in rows if other is not row], method)
        for size, steps in row.curve.items():
            each.append(math.exp(abs(math.log(steps / steps_at(size, critical, row.batch_size, row.steps)))))
    return _enough(each)


def _value(row: Scored, method: str) -> float | None:
    found = row.by.get(method)
    return None if found is None else found.value


def _ratio(rows: Sequence[Scored], method: str) -> float:
    """The median of measured over predicted, in logarithms."""
    pairs = ((row.measured.value, _value(row, method)) for row in rows)
    return float(np.exp(np.median([math.log(one / other) for one, other in pairs if one and other])))


def _score(row: Scored, method: str, ratio: float) -> float:
    found = row.by[method]
    assert found is not None and row.measured.value is not None
    low = found.low * ratio / row.measured.value if found.low else 1.0
    high = row.measured.value / (found.high * ratio) if found.high else 1.0
    return max(low, high, 1.0)


def _enough(scores: Sequence[float]) -> float:
    """The smallest that is no less than nine tenths of them."""
    return float(np.sort(scores)[math.ceil(0.9 * len(scores)) - 1])


def _scored(row: Mapping[str, Any]) -> Scored:
    def interval(found: Mapping[str, float | None] | None) -> Interval | None:
        return None if found is None else Interval(found["value"], found["low"], found["high"], LEVEL)

    measured = interval(row["measured"])
    assert measured is not None
    return Scored(
        row["workload"],
        row["optimizer"],
        row["goal"],
        row["batch_size"],
        row["steps"],
        measured,
        {int(size): float(steps) for size, steps in row["curve"].items()},
        {method: interval(found) for method, found in row["by"].items()},
    )
