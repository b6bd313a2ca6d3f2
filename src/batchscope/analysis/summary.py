"""The document of ``summary.json``: every number of a run's analysis, for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from batchscope.analysis.curve import Curve, point_names
from batchscope.analysis.headline import headline
from batchscope.analysis.held_out import by_batch_size
from batchscope.analysis.question import Refused
from batchscope.analysis.questions import Answers, answered
from batchscope.analysis.regimes import OVERHEAD, Regimes

SCHEMA = 1
ESTIMAND = (
    "tuned is what the setting in hyperparameters takes when it is trained anew: the median over seeds, and the "
    "interval that holds one fresh training; null where nothing was trained again, and steps are then a lower bound. "
    "expected_fewest is S(B), the expected fewest steps over as many feasible trials as were run, drawn from the "
    "search space, seed noise included; steps, the fewest observed, estimate it"
)


def summary(
    answers: Sequence[Answers], *, workload: str, analyses: bool = True, overhead: float = OVERHEAD
) -> dict[str, Any]:
    """The curve, the regimes and the other analyses of every goal, as plain values for JSON.

    A goal without a curve, and an analysis that the run kept too little for, are there as ``{"refused": REASON}``. If
    no goal has a curve, what stands against the first is raised.
    """
    answered(answers)
    goals = [{"goal": str(one.goal)} | _goal(one, analyses, overhead) for one in answers]
    return {"schema": SCHEMA, "workload": workload, "estimand": ESTIMAND, "goals": goals}


def _goal(answers: Answers, analyses: bool, overhead: float) -> dict[str, Any]:
    curve = answers.curve_or_refusal
    if isinstance(curve, Refused):
        return {"refused": curve.reason}
    entry: dict[str, Any] = {"level": curve.level, "confirmed": curve.confirmed, "approximate": curve.approximate}
    entry |= {
        "headline": headline(curve).to_dict(),
        "price": curve.price,
        "curve": _points(curve),
        "regimes": _regimes(curve.regimes, overhead),
        "notes": list(curve.notes),
    }
    return entry | ({"analyses": other_analyses(answers)} if analyses else {})


def other_analyses(answers: Answers) -> dict[str, Any]:
    """Every analysis of one goal beside its curve: rows of its tables, or why it was refused."""
    found: dict[str, Any] = {}
    for question, answer in answers:
        for name, table in question.tables.items():
            if isinstance(answer, Refused):
                found[name] = {"refused": answer.reason}
            else:
                found[name] = plain_rows(getattr(answer.result, table))
    return found


def _points(curve: Curve) -> list[dict[str, Any]]:
    names, rows, test = point_names(curve.table), [], by_batch_size(curve.test)
    for row in curve.table.iter_rows(named=True):
        point = {name: row.pop(name) for name in names}
        value, low, high, seeds = (row.pop(name) for name in ("tuned", "tuned_low", "tuned_high", "tuned_seeds"))
        tuned = None if seeds is None else {"value": value, "low": low, "high": high, "seeds": seeds}
        fewest = {"value": row["steps"], "low": row.pop("low"), "high": row.pop("high")}
        row |= {"tuned": tuned, "expected_fewest": None if row["steps"] is None else fewest}
        optimum = {end or "value": row.pop(f"optimum{'_' if end else ''}{end}") for end in ("", "low", "high")}
        row |= {"optimum": None if optimum["value"] is None else optimum}
        further = {"hyperparameters": None if row["steps"] is None else point}
        if row["batch_size"] in test:
            further["test"] = test[row["batch_size"]]
        rows.append(_plain(row) | further)
    return rows


def plain_rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain values for JSON."""
    return [_plain(row) for row in table.iter_rows(named=True)]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what JSON has no word for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _regimes(found: Regimes, overhead: float) -> dict[str, Any]:
    names = ("perfect_scaling_until", "critical_batch_size", "maximum_useful_batch_size")
    ends: dict[str, Any] = {name: getattr(found, name).to_dict() | {"reason": found.reason(name)} for name in names}
    ends |= {
        "tolerance": found.tolerance,
        "notes": list(found.notes),
        "law": None,
    }
    if found.law is not None and (at := found.at_overhead(overhead)) is not None:
        share = {"overhead": overhead, "reference": found.law.law.measured[0], "sharpness": found.law.law.sharpness}
        ends["critical_batch_size_at_overhead"] = at.to_dict() | share
        ends["law"] = {
            "fewest_steps": found.law.law.fewest_steps,
            "critical_batch_size": found.law.law.critical_batch_size,
            "sharpness": found.law.law.sharpness,
            "measured": list(found.law.law.measured),
            "residual": found.law.residual,
        }
    return ends
