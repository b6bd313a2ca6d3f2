"""Curves and probes of which every answer is known: S(B) = fewest + examples / B and t(B) = fixed + each B."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from batchscope.analysis import Curve
from batchscope.analysis.regimes import regimes
from batchscope.spec.goal import Goal
from batchscope.spec.prediction import (
    Bounds,
    MethodAnswer,
    PredictedSteps,
    Prediction,
    PredictionCost,
    TrackRecord,
    steps_at,
)
from batchscope.spec.probe import Probe, ProbedBatch, Spread, TimeModel

GOAL = Goal("validation/error", "<", 0.2)
SIZES = tuple(2**power for power in range(11))
FEWEST, EXAMPLES = 100.0, 25_600.0
FIXED, EACH = 16e-4, 1e-4
CRITICAL = EXAMPLES / FEWEST


def steps(batch_size: float) -> float:
    return FEWEST + EXAMPLES / batch_size


def seconds(examples: float) -> float:
    return FIXED + EACH * examples


def curve(
    sizes: Iterable[int] = SIZES, *, spread: float = 0.0, missed: Iterable[int] = (), samples: int = 400, **columns: Any
) -> Curve:
    """The exact curve; ``spread`` is the standard deviation of log steps, ``missed`` sizes did not reach the goal."""
    sizes = list(sizes)
    inside = [size not in set(missed) for size in sizes]
    values = np.array([steps(size) if reached else np.nan for size, reached in zip(sizes, inside, strict=True)])
    noise = np.random.default_rng(0).standard_normal((samples, len(sizes)))
    sample = values * np.exp(spread * noise)
    table = pl.DataFrame(
        {
            "batch_size": sizes,
            "steps": [round(value) if reached else None for value, reached in zip(values, inside, strict=True)],
            "low": [float(value * np.exp(-1.645 * spread)) if value == value else None for value in values],
            "high": [float(value * np.exp(1.645 * spread)) if value == value else None for value in values],
            "learning_rate": [0.01 * size for size in sizes],
            "validated": [None] * len(sizes),
            "reason": pl.Series([None] * len(sizes), dtype=pl.String),
            "verdict": pl.Series([None] * len(sizes), dtype=pl.String),
        }
        | columns
    )
    known = np.array(sizes)[inside] * 1.0
    found = regimes(known, values[inside], np.log(sample[:, inside]) + 1e-6 * noise[:, inside])
    return Curve(GOAL, table, found, log_samples=np.log(sample))


def probe(
    sizes: Iterable[int] = SIZES,
    *,
    spread: float = 0.0,
    error: float = 0.0,
    largest_pass: int = 64,
    gradient_bytes: int = 4_000_000,
    **changes: Any,
) -> Probe:
    """The exact probe; ``spread`` is the standard deviation of log seconds that the quartiles show."""
    sizes = sorted(sizes)
    batches = []
    for size in sizes:
        median, width = seconds(size), np.exp(0.6745 * spread)
        step = Spread(median=median, low=median / width, high=median * width)
        passes = -(-size // largest_pass)
        batches.append(
            ProbedBatch(
                batch_size=size,
                micro_batch_size=-(-size // passes),
                accumulation_steps=passes,
                step=step,
                step_with_data=step,
                examples_per_second=size / median,
                peak_bytes=None,
                updates=30,
            )
        )
    values: dict[str, Any] = {
        "workload": "digits/softmax",
        "optimizer": "nesterov",
        "device": "cuda",
        "device_name": "a device",
        "threads": 1,
        "parameters": gradient_bytes // 4,
        "gradient_bytes": gradient_bytes,
        "batches": tuple(batches),
        "time_model": TimeModel(
            fixed=FIXED, per_example=EACH, sharpness=1.0, error=error, smallest=sizes[0], largest=sizes[-1]
        ),
        "saturation_batch_size": None,
        "versions": {},
        "date": "2026-01-01",
    }
    return Probe(**(values | changes))


def prediction(critical: float = 64.0, workload: str = "steps") -> Prediction:
    """Of a training of 1,700 steps at batch size 4: S(B) = 100 (1 + 64 / B)."""
    bounds = Bounds(value=critical, low=critical / 2, high=2 * critical)
    curve = [
        PredictedSteps(batch_size=2**power, steps=Bounds(value=steps_at(2**power, critical, 4, 1700), low=1, high=1e6))
        for power in range(13)
    ]
    return Prediction(
        workload=workload,
        goal="validation/error < 0.1",
        optimizer="sgd",
        hyperparameters={"learning_rate": 0.1},
        batch_size=4,
        steps=1700,
        critical_batch_size=bounds,
        method="gradient_noise",
        by={"gradient_noise": MethodAnswer(critical_batch_size=bounds)},
        curve=tuple(curve),
        record=TrackRecord(trainings=12, held=11, ratio=1.0, widened=2.0, curve_widened=1.5),
        cost=PredictionCost(trainings=2.0, seconds=1.0, by={"training": 2.0}),
        versions={},
    )
