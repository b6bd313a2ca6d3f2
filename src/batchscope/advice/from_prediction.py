"""What to do by a curve that was predicted from one training, marked as such everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from batchscope.advice.options import Option
from batchscope.advice.recommendation import Basis, Recommendation, decide
from batchscope.amounts import batch_size as shown_size
from batchscope.amounts import bounds, count, duration, number
from batchscope.analysis.headline import Headline, setting_value
from batchscope.analysis.points import SAMPLES, Point
from batchscope.errors import AnalysisError
from batchscope.interval import Interval
from batchscope.seeds import numpy_generator
from batchscope.spec.goal import Goal
from batchscope.spec.prediction import LEVEL, Prediction, steps_at
from batchscope.spec.probe import Probe

_CENTRAL_90 = 1.645
# Beyond so many times the critical batch size steps are within a tenth of the fewest.
USEFUL = 10.0
REMARK = "predicted from one training: nothing was trained at this batch size, and its hyperparameters are not known"


def recommend_from(
    found: Prediction, probe: Probe | None = None, *, batch_sizes: Sequence[int] | None = None, **options: Any
) -> Recommendation:
    """The recommendation for a prediction; ``options`` are those of ``recommend``, and its errors.

    The samples of the steps are joint: of the critical batch size, lognormal over its interval, and of all steps at
    once, as far off as the record of predicted steps says.

    Raises:
        AnalysisError: If a batch size is below 1, or the question cannot be answered.
    """
    sizes = sorted(set(batch_sizes or [point.batch_size for point in found.curve]))
    if sizes[0] < 1:
        raise AnalysisError(f"a batch size is at least 1, got {sizes[0]}")
    critical, steps = _samples(found)
    value = found.critical_batch_size.value
    assert value is not None
    basis = Basis(
        Goal.parse(found.goal),
        LEVEL,
        f"Steps are predicted from one training at batch size {number(found.batch_size)}, by its "
        f"{found.method.replace('_', ' ')}; a study measures them.",
        (_trust(found),),
        lambda points: [point for point in points if point.batch_size <= USEFUL * value] or list(points[:1]),
        lambda points: min(points, key=lambda point: (point.steps.value or 0.0) ** 2 * point.batch_size),
        lambda named, idealised: _headline(found, named, idealised),
    )
    points = [_point(found, size, value, critical, steps) for size in sizes]
    return decide(basis, points, probe, optimizer=found.optimizer, **options)


def _point(found: Prediction, size: int, value: float, critical: np.ndarray, steps: np.ndarray) -> Point:
    base = found.batch_size
    shape = (1 + critical / size) / (1 + critical / base)
    here = size == base
    return Point(
        size,
        Interval.from_samples(steps_at(size, value, base, found.steps), steps * shape, LEVEL),
        np.log(steps * shape),
        found.hyperparameters if here else {},
        ("predicted from this one training",) if here else (REMARK,),
        extrapolated=not here,
    )


def _samples(found: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """(D,) critical batch sizes and steps at B_0."""
    critical, rng = found.critical_batch_size, numpy_generator("prediction", found.workload, found.steps)
    assert critical.value is not None
    ends = [one for one in (critical.low, critical.high) if one]
    away = max((abs(math.log(one / critical.value)) for one in ends), default=0.0) / _CENTRAL_90
    off = math.log(found.record.curve_widened) / _CENTRAL_90
    draws = rng.standard_normal((2, SAMPLES))
    return critical.value * np.exp(away * draws[0]), found.steps * np.exp(off * draws[1])


def _headline(found: Prediction, named: Option, idealised: bool) -> Headline:
    setting = [f"{name.replace('_', ' ')} {setting_value(value)}" for name, value in named.hyperparameters.items()]
    steps = named.steps
    takes = "" if idealised else f"about {duration(named.time.value)}, "
    sentence = (
        f"Predicted: {', '.join([named.place, *setting])}: {takes}about {count(steps.value)} steps "
        f"({bounds(steps.low, steps.high, count)}), critical batch size {shown_size(found.critical_batch_size.value)}."
    )
    untuned = () if named.hyperparameters else ("its hyperparameters are not known: tune them there",)
    return Headline(found.goal, sentence, _trust(found), untuned)


def _trust(found: Prediction) -> str:
    record = found.record
    return (
        f"Predicted from one training, not measured: where such predictions were scored, on {record.trainings} "
        f"trainings, their intervals held the measured critical batch size {record.held} times, and nine in ten "
        f"measured steps lay within {number(record.curve_widened, 2)} times the predicted ones."
    )
