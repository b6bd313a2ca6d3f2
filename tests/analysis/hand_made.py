"""Small runs written out by hand: one ``Trial`` per line of a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

TRAIN_SIZE = 1000


@dataclass(frozen=True)
class Trial:
    """A trial with the values of one metric by step."""

    trial: str
    batch_size: int
    values: Mapping[int, float | None]
    status: str = "complete"
    index: int = 0
    replicate: int = 0
    revision: int = 0
    point: Mapping[str, float | str] = field(default_factory=dict)


def tables(*trials: Trial, metric: str = "validation/error") -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables of trials and of measurements."""
    rows = [
        {
            "trial": trial.trial,
            "batch_size": trial.batch_size,
            "index": trial.index,
            "replicate": trial.replicate,
            "revision": trial.revision,
            "status": trial.status,
            "steps": max(trial.values),
            "examples": max(trial.values) * trial.batch_size,
            **{f"hyperparameter/{name}": value for name, value in trial.point.items()},
            "train_seconds": 1.0,
            "evaluation_seconds": 0.1,
        }
        for trial in trials
    ]
    evaluations = [
        (trial.trial, trial.batch_size, step, step * trial.batch_size, step * trial.batch_size / TRAIN_SIZE, value)
        for trial in trials
        for step, value in trial.values.items()
    ]
    names = ["trial", "batch_size", "step", "examples", "epoch"]
    kinds = dict.fromkeys(names, pl.Int64) | {"trial": pl.String, "epoch": pl.Float64, metric: pl.Float64}
    return pl.DataFrame(rows, infer_schema_length=None), pl.DataFrame(evaluations, schema=kinds, orient="row")
