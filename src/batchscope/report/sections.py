"""The other analyses as parts of the page: what each shows, in words, with its chart."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from batchscope.analysis import (
    BudgetQuality,
    Contour,
    ExpectedSteps,
    NormalisedCurves,
    RuleCheck,
    Sensitivity,
    Speedup,
    StabilityMap,
    best_under_budgets,
    contour,
    expected_steps,
    rule_check,
    sensitivity,
    speedup,
    stability_map,
)
from batchscope.analysis.budgets import Better
from batchscope.errors import AnalysisError
from batchscope.report import analyses
from batchscope.report.markup import Chart, Section
from batchscope.report.palette import NAMED
from batchscope.report.text import number, plain
from batchscope.spec.goal import Goal


def sections(
    trials: pl.DataFrame, measurements: pl.DataFrame | pl.LazyFrame, goal: Goal, *, extra: Sequence[object] = ()
) -> list[Section]:
    """Every analysis of one goal that the run can answer, ``extra`` results, and why the others were refused."""
    metric = goal.metric
    better: Better = "lower" if goal.side == "<" else "higher"
    given = trials, measurements
    questions: dict[str, Callable[[], object]] = {
        "expected steps": lambda: expected_steps(*given, goal),
        "budgets of steps": lambda: best_under_budgets(*given, metric, better=better),
        "budgets of epochs": lambda: best_under_budgets(*given, metric, better=better, unit="epochs"),
        "learning-rate rules": lambda: rule_check(*given, goal),
        "sensitivity": lambda: sensitivity(*given, goal),
        "stability": lambda: stability_map(*given, metric, better=better),
        "speedup": lambda: speedup(*given, metric, better=better),
        "contour": lambda: contour(*given, metric, better=better),
    }
    found, refused = [], []
    for name, question in questions.items():
        try:
            found.append(section(question()))
        except AnalysisError as refusal:
            refused.append(f"{name.capitalize()}: {refusal}.")
    found += [section(result) for result in extra]
    return [*found, Section("What this run cannot answer", refused)] if refused else found


def section(result: object) -> Section:
    """The result as a part of the page, for ``render(..., sections=...)``."""
    title, text = _WORDS[type(result)](result)
    return Section(title, [text], [Chart(analyses.chart(result, NAMED), title, re.sub(r"\W+", "-", title.lower()))])


def _rules_text(result: RuleCheck) -> str:
    ends = [
        f"{row['rule']} holds up to {number(row['holds_until'])}"
        + (f" and breaks at {number(row['breaks_at'])}" if row["breaks_at"] is not None else " and does not break")
        for row in result.breaks.iter_rows(named=True)
    ]
    return (
        f"Each rule scales the rate tuned at batch size {number(result.base_batch_size)} for {plain(result.goal)}: BLR "
        f"keeps it, SRSR scales it with the root of the batch size, LSR in proportion. {'; '.join(ends)}. Filled "
        "points hold, crosses break, open ones cannot be told from these trials."
    )


_WORDS: dict[type, Callable[[Any], tuple[str, str]]] = {
    BudgetQuality: lambda result: (
        f"Best {plain(result.metric)} within a budget of {result.unit}",
        "The best value that any trial had within the budget. A budget of steps favours large batches, which see more "
        "examples; one of epochs favours small batches, which take more steps.",
    ),
    ExpectedSteps: lambda result: (
        "What fewer trials would have found",
        "The expected fewest steps of a search of fewer feasible trials. Where a line is still falling at its right "
        "end, more trials would find a faster point.",
    ),
    RuleCheck: lambda result: ("Learning-rate rules", _rules_text(result)),
    NormalisedCurves: lambda result: (
        "Runs on one scale",
        f"Steps to the goal of every run, divided by its own at batch size {number(result.reference)}.",
    ),
    Speedup: lambda result: ("Speedup", result.caveat),
    Contour: lambda result: (
        f"{plain(result.metric)} by batch size and steps".capitalize(),
        "The best value of all trials up to each step.",
    ),
    StabilityMap: lambda result: (
        "Stable base rates",
        "The median of the last five evaluations over base learning rate and batch size; to keep the base rate is the "
        f"linear scaling rule. Shaded: rates that train reliably, to {number(result.threshold)} or better.",
    ),
    Sensitivity: lambda result: (
        "How forgiving the search space is",
        f"The share of the search space that reaches {plain(result.goal)} nearly as fast as the best point there.",
    ),
}
