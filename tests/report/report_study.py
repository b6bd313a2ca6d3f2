"""A study small enough to know every number of its report by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from batchscope.analysis import Curve, Interval, Law, Regimes
from batchscope.analysis.laws import Fit
from batchscope.spec.goal import Goal

GOAL = Goal("validation/error", "<", 0.2)
# trial, batch size, status, steps, learning rate, momentum, first step at the goal
ROWS = [
    ("a", 2, "complete", 110, 0.1, 0.9, 100),
    ("b", 2, "complete", 110, 0.2, 0.5, 109),
    ("c", 2, "diverged", 7, 1.0, 0.9, None),
    ("d", 2, "stopped", 80, 0.01, 0.5, None),
    ("e", 8, "complete", 50, 0.4, 0.9, 40),
    ("f", 8, "complete", 50, 0.1, 0.5, 44),
    ("g", 32, "complete", 60, 0.01, 0.5, None),
]


def trials() -> pl.DataFrame:
    """Seven trials of the search and a confirmation run."""
    rows = [
        {
            "trial": trial,
            "batch_size": size,
            "index": index,
            "replicate": 0,
            "revision": 0,
            "status": status,
            "steps": steps,
            "examples": steps * size,
            "hyperparameter/learning_rate": rate,
            "hyperparameter/momentum": momentum,
            "train_seconds": steps / 10,
            "evaluation_seconds": steps / 40,
        }
        for index, (trial, size, status, steps, rate, momentum, _) in enumerate(ROWS)
    ]
    again = rows[4] | {"trial": "e1", "index": 0, "replicate": 1, "steps": 42, "examples": 336}
    return pl.DataFrame([*rows, again])


def measurements() -> pl.DataFrame:
    """An evaluation before the goal and an evaluation at it for every trial; the diverged one ends in no number."""
    rows: list[tuple[str, int, int, float]] = []
    for trial, size, _, steps, _, _, reached in ROWS:
        rows.append((trial, size, 5, 0.9))
        rows.append((trial, size, reached or steps, 0.19 if reached else float("nan") if trial == "c" else 0.4))
    rows += [("e1", 8, 5, 0.9), ("e1", 8, 42, 0.1)]
    columns = {"trial": pl.String, "batch_size": pl.Int64, "step": pl.Int64, "validation/error": pl.Float64}
    return pl.DataFrame(rows, schema=columns, orient="row")


def table() -> pl.DataFrame:
    """The curve of these trials, as the analysis gives it."""
    return pl.DataFrame(
        {
            "batch_size": [2, 8, 32],
            "steps": [100, 40, None],
            "low": [90.5, 31.0, None],
            "high": [104.0, 40.0, None],
            "reached": [2, 2, 0],
            "feasible": [3, 2, 1],
            "trials": [4, 2, 1],
            "trial": ["a", "e", None],
            "learning_rate": [0.1, 0.4, None],
            "momentum": [0.9, 0.9, None],
            "validated": [True, False, False],
            "reason": [None, "the best learning_rate is at the edge", "no trial reached the goal"],
        }
    )


def interval(value: float | None, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value, low, high)


def fit(critical: float = 4.0) -> Fit:
    """The two-asymptote law with 20 steps at the least, as fitted between batch sizes 2 and 8."""
    law = Law(fewest_steps=20.0, critical_batch_size=critical, sharpness=1.0, measured=(2.0, 8.0))
    samples = np.array([[critical, 1.0]])
    return Fit(law, interval(critical), interval(20.0), interval(1.0), residual=0.0, samples=samples)


def curve(
    until: Interval | None = None, critical: Interval | None = None, useful: Interval | None = None, **changes: Any
) -> Curve:
    """The curve with regimes as told: by default perfect scaling until 3, critical 4, useful up to 6."""
    regimes = Regimes(
        perfect_scaling_until=until or interval(3.0, 2.5, 4.2),
        critical_batch_size=critical or interval(4.0, 3.0, None),
        maximum_useful_batch_size=useful or interval(6.0, None, 7.0),
        law=fit(),
    )
    return replace(Curve(GOAL, table(), regimes), **changes)


def summary(found: Curve, workload: str = "digits/softmax") -> dict[str, Any]:
    """A document as ``summary.json`` has it."""
    ends = {
        name: getattr(found.regimes, name).to_dict()
        for name in ("perfect_scaling_until", "critical_batch_size", "maximum_useful_batch_size")
    }
    rows = json.loads(found.table.write_json())
    return {"schema": 1, "workload": workload, "goals": [{"goal": str(found.goal), "curve": rows, "regimes": ends}]}
