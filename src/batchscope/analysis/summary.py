"""The document of ``summary.json``: every number of a run's analysis, for programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from batchscope.analysis.audit import Space, expected_steps
from batchscope.analysis.budgets import Better, best_under_budgets
from batchscope.analysis.outcomes import Table, hyperparameters, needed
from batchscope.analysis.regimes import Regimes
from batchscope.analysis.rules import rule_check
from batchscope.analysis.scaling import contour, speedup
from batchscope.analysis.stability import sensitivity, stability_map
from batchscope.analysis.steps import Curve, steps_to_result
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal

SCHEMA = 1
ESTIMAND = (
    "steps estimates S(B), the expected fewest steps over as many feasible trials as were run, drawn from the search "
    "space, seed noise included; low and high are its interval"
)


def summary(
    trials: Table,
    measurements: Table,
    goals: Sequence[Goal],
    *,
    workload: str,
    space: Space | Mapping[int, Space] | None = None,
    edge: float = 0.05,
    equal_trials: bool = False,
    analyses: bool = True,
    curves: Sequence[Curve] | None = None,
) -> dict[str, Any]:
    """The curve, the regimes and the other analyses of every goal, as plain values for JSON.

    An analysis that the run kept too little for is there as ``{"refused": REASON}``. A metric that was not
    measured, or a run without trials, is an ``AnalysisError``. ``curves`` are those of the goals, if they were drawn
    already.
    """
    trials, measurements = needed(trials, measurements, [goal.metric for goal in goals])
    names = hyperparameters(trials.columns)
    entries = []
    if curves is None:
        curves = [
            steps_to_result(trials, measurements, goal, space=space, edge=edge, equal_trials=equal_trials)
            for goal in goals
        ]
    for goal, curve in zip(goals, curves, strict=True):
        entry: dict[str, Any] = {"goal": str(goal), "level": curve.level, "confirmed": curve.confirmed}
        entry["approximate"] = curve.approximate
        entry |= {"curve": _points(curve, names), "regimes": _regimes(curve.regimes), "notes": list(curve.notes)}
        entries.append(entry | ({"analyses": other_analyses(trials, measurements, goal)} if analyses else {}))
    return {"schema": SCHEMA, "workload": workload, "estimand": ESTIMAND, "goals": entries}


def other_analyses(trials: Table, measurements: Table, goal: Goal) -> dict[str, Any]:
    """Every analysis of one goal beside its curve: rows of its table, or why it was refused."""
    metric, better = goal.metric, _better(goal)
    given = trials, measurements
    questions: dict[str, Callable[[], pl.DataFrame]] = {
        "expected_steps": lambda: expected_steps(*given, goal).table,
        "best_under_step_budgets": lambda: best_under_budgets(*given, metric, better=better).table,
        "best_under_epoch_budgets": lambda: best_under_budgets(*given, metric, better=better, unit="epochs").table,
        "learning_rate_rules": lambda: rule_check(*given, goal).table,
        "learning_rate_rules_break": lambda: rule_check(*given, goal).breaks,
        "sensitivity": lambda: sensitivity(*given, goal).table,
        "stability": lambda: stability_map(*given, metric, better=better).bands,
        "speedup": lambda: speedup(*given, metric, better=better).table,
        "contour": lambda: contour(*given, metric, better=better).table,
    }
    return {name: _answer(question) for name, question in questions.items()}


def _answer(question: Callable[[], pl.DataFrame]) -> Any:
    try:
        return plain_rows(question())
    except AnalysisError as refusal:
        return {"refused": str(refusal)}


def _better(goal: Goal) -> Better:
    return "lower" if goal.side == "<" else "higher"


def _points(curve: Curve, names: list[str]) -> list[dict[str, Any]]:
    rows = []
    for row in curve.table.iter_rows(named=True):
        point = {name: row.pop(name) for name in names}
        rows.append(_plain(row) | {"hyperparameters": None if row["steps"] is None else point})
    return rows


def plain_rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain values for JSON."""
    return [_plain(row) for row in table.iter_rows(named=True)]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what JSON has no word for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _regimes(found: Regimes) -> dict[str, Any]:
    ends: dict[str, Any] = {
        "perfect_scaling_until": found.perfect_scaling_until.to_dict(),
        "critical_batch_size": found.critical_batch_size.to_dict(),
        "maximum_useful_batch_size": found.maximum_useful_batch_size.to_dict(),
        "tolerance": found.tolerance,
        "notes": list(found.notes),
        "law": None,
    }
    if found.law is not None:
        ends["law"] = {
            "fewest_steps": found.law.law.fewest_steps,
            "critical_batch_size": found.law.law.critical_batch_size,
            "sharpness": found.law.law.sharpness,
            "measured": list(found.law.law.measured),
            "residual": found.law.residual,
        }
    return ends
