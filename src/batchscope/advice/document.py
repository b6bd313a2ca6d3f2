"""A recommendation as plain values, for JSON."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from batchscope.advice.options import Option
from batchscope.advice.recommendation import Recommendation
from batchscope.advice.strong_scaling import sentence
from batchscope.advice.verdicts import Verdict
from batchscope.spec.space import OPTIMIZER

SCHEMA = 1


def document(found: Recommendation, *, workload: str, device: str | None = None) -> dict[str, Any]:
    """What ``batchscope recommend --json`` prints; ``device`` is the probe's, None on idealised hardware."""
    energy = None if found.options.get_column("energy").null_count() else "kWh"
    return {
        "schema": SCHEMA,
        "workload": workload,
        "goal": str(found.goal),
        "device": device,
        "idealised": found.idealised,
        "level": found.level,
        "units": {"time": found.time_unit, "cost": found.cost_unit, "energy": energy},
        "headline": found.headline.to_dict(),
        "recommended": _option(found.recommended),
        "fastest": _option(found.fastest),
        "cheapest": _option(found.cheapest),
        "balanced": _option(found.balanced),
        "pareto_front": [_option(option) for option in found.pareto_front],
        "deadline": _verdict(found.deadline),
        "budget": _verdict(found.budget),
        "scaling": {
            "devices": _rows(found.scaling),
            "useful_devices": found.useful_devices,
            "sentence": sentence(found.scaling),
        },
        "options": _rows(found.options),
        "left_out": _rows(found.left_out),
        "assumptions": list(found.assumptions),
        "notes": list(found.notes),
    }


def _option(option: Option) -> dict[str, Any]:
    return {
        "batch_size": option.batch_size,
        "devices": option.devices,
        "device_batch_size": option.device_batch_size,
        "micro_batch_size": option.micro_batch_size,
        "accumulation_steps": option.accumulation_steps,
        "steps": option.steps.to_dict(),
        "step_seconds": option.step_seconds,
        "communication_seconds": option.communication_seconds,
        "time": option.time.to_dict(),
        "cost": option.cost.to_dict(),
        "energy": None if option.energy is None else option.energy.to_dict(),
        "hyperparameters": dict(option.hyperparameters),
        "optimizer": option.optimizer or option.hyperparameters.get(OPTIMIZER),
        "learning_rate_schedule": option.schedule or None,
        "extrapolated": option.extrapolated,
        "lower_bound": option.lower_bound,
        "remarks": list(option.remarks),
        "why": option.why,
    }


def _verdict(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    answer = {"limit": verdict.limit, "met": verdict.met, "chance": verdict.chance, "sentence": verdict.sentence}
    return answer | {"option": _option(verdict.option)}


def _rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        for row in table.iter_rows(named=True)
    ]
