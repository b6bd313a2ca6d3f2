"""What a chart says of one point when it is pointed at: exact numbers, in Plotly's markup."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from batchscope.amounts import batch_size, count, number, percent
from batchscope.analysis import BudgetQuality, RuleCheck
from batchscope.analysis.outcomes import PREFIX
from batchscope.report.wording import chart_text, name

Row = Mapping[str, Any]


def curve_point(row: Row, level: float) -> str:
    """One batch size of a curve, a row of ``figures.steps_to_result``."""
    head = f"batch size {number(row['batch_size'])}: "
    trials = f"{row['reached']} of {row['feasible']} feasible trials reached the goal"
    if row["shown"] is None:
        return f"{head}<b>goal not reached</b><br>{trials}{_reason(row)}"
    tuned = row["shown"] == row["tuned"] and row["tuned_seeds"]
    lines = [f"{head}<b>{'' if tuned else 'at least '}{count(row['shown'])} steps</b>"]
    if row["shown_low"] is not None and row["shown_high"] is not None:
        of = "of a fresh training" if tuned else "of the expected fewest"
        bounds = f"{count(row['shown_low'])} to {count(row['shown_high'])}"
        lines.append(f"{percent(level, 3)} interval {of} {bounds}")
    if tuned:
        lines.append(f"{row['tuned_seeds']} trainings with new seeds; the search had {number(row['steps'])}")
    lines += [f"{count(row['examples'])} examples", trials]
    return "<br>".join(lines) + _reason(row)


def fewest_point(row: Row, level: float) -> str:
    """The search of one batch size, beside its tuned steps."""
    text = f"batch size {number(row['batch_size'])}, the fastest of the search: <b>{count(row['steps'])} steps</b>"
    if row["low"] is None or row["high"] is None:
        return text
    bounds = f"{count(row['low'])} to {count(row['high'])}"
    return f"{text}<br>{percent(level, 3)} interval of the expected fewest {bounds}"


def goal_point(row: Row, goal: object) -> str:
    """One batch size of one of several curves."""
    if row["shown"] is None:
        return ""
    head = f"{chart_text(goal)}<br>batch size {number(row['batch_size'])}: <b>{count(row['shown'])} steps</b>"
    return f"{head}, {number(row['speedup'], 3)}× fewer than at the smallest"


def learning(row: Row, metric: str) -> str:
    """One evaluation, a row of ``figures.learning_curves``."""
    head = f"batch size {number(row['batch_size'])}, step {number(row['step'])}"
    return f"{head}: {chart_text(metric)} <b>{number(row['value'])}</b>"


def best_value(row: Row, hyperparameter: str) -> str:
    """One batch size of the best points, a row of ``figures.best_points``."""
    head = f"batch size {number(row['batch_size'])}: {chart_text(name(hyperparameter))} <b>{number(row['value'])}</b>"
    near = f"within 10% of the fewest steps: {number(row['near_low'])} to {number(row['near_high'])}"
    rules = [f"{name(rule)} rule: {number(row[rule])}" for rule in ("linear", "square_root") if row[rule] is not None]
    return "<br>".join([head, near, *rules])


def trial(row: Row, metric: str) -> str:
    """One trial, a row of ``figures.search_space``."""
    lines = [f"trial {chart_text(row['trial'])}{' (the best)' if row['best'] else ''}"]
    for column, value in row.items():
        if column.startswith(PREFIX):
            shown = number(value) if isinstance(value, int | float) else chart_text(value)
            lines.append(f"{chart_text(name(column.removeprefix(PREFIX)))} {shown}")
    if row["goal_step"] is not None:
        lines.append(f"<b>goal at step {number(row['goal_step'])}</b>, {number(row['ratio'], 3)}× the fewest")
    else:
        lines.append(f"<b>{chart_text(row['status'])}</b> at step {number(row['steps'])}, goal not reached")
    if row["best_metric"] is not None:
        lines.append(f"best {chart_text(metric)} {number(row['best_metric'])}")
    if row["revision"]:
        lines.append(f"from revision {row['revision']} of the search space")
    return "<br>".join(lines)


def _reason(row: Row) -> str:
    reason = row["reason"] if row["validated"] is False else None
    texts = [f"not validated: {reason}" if reason else "", row["verdict"] or ""]
    return "".join(f"<br>{_wrapped(text)}" for text in texts if text)


def _wrapped(text: str) -> str:
    return "<br>".join(chart_text(line) for line in wrap(text, 60))


def boundary(row: Row, level: float) -> str:
    """The end of a regime, a row of ``figures.boundaries``."""
    head = f"{name(row['boundary'])}: "
    if row["value"] is None:
        head += f"{row['place']} the batch sizes that reached the goal"
    else:
        head += f"<b>{batch_size(row['value'])}</b>"
    low, high = ("open" if row[side] is None else batch_size(row[side]) for side in ("low", "high"))
    return f"{head}<br>{percent(level, 3)} interval {low} to {high}"


def _at(row: Row) -> str:
    return f"batch size {number(row['batch_size'])}"


def under_budget(row: Row, result: BudgetQuality) -> str:
    """The best value within a budget, a row of ``BudgetQuality``."""
    found = f"<b>{number(row['value'])}</b> at step {number(row['step'])}"
    head = f"{_at(row)}, {count(row['budget'])} {result.unit}"
    return f"{head}<br>best {chart_text(result.metric)} {found}<br>trial {chart_text(row['trial'])}"


def fewer_trials(row: Row) -> str:
    """A row of ``ExpectedSteps``."""
    head = f"{_at(row)}, best of {number(row['trials'])} trials"
    return f"{head}: <b>{count(row['expected_steps'])} steps</b>{_bounds(row)}"


def rule(row: Row, result: RuleCheck) -> str:
    """A row of ``RuleCheck``."""
    band = f"good rates: {number(row['low'])} to {number(row['high'])}"
    head = f"{chart_text(row['rule'])} from batch size {number(result.base_batch_size)}"
    return f"{head}<br>{_at(row)}: <b>{number(row['predicted'])}</b>, {row['status']}<br>{band}"


def relative(row: Row) -> str:
    """A row of ``NormalisedCurves``."""
    head = f"{chart_text(row['run'])}<br>{_at(row)}: {count(row['steps'])} steps"
    return f"{head}, <b>{number(row['relative'])}</b> of the reference{_bounds(row)}"


def speedup(row: Row) -> str:
    """A row of ``Speedup``."""
    return f"{_at(row)}: <b>{number(row['speedup'])}×</b>, ideal {number(row['ideal'])}×{_bounds(row)}"


def base_rate(row: Row, metric: str) -> str:
    """A row of ``StabilityMap``."""
    value = "diverged" if row["value"] is None else f"{metric} <b>{number(row['value'])}</b>"
    reliable = ", reliable" if row["reliable"] else ""
    rates = f"base rate {number(row['base_rate'])}, learning rate {number(row['learning_rate'])}"
    return f"{_at(row)}, {rates}<br>{value}{reliable}<br>trial {chart_text(row['trial'])}"


def share(row: Row, level: float) -> str:
    """A row of ``Sensitivity``."""
    interval = f"{percent(level, 3)} interval {percent(row['low'])} to {percent(row['high'])}"
    return f"{_at(row)}: <b>{percent(row['share'])}</b> within {row['factor']:g}× the fewest steps<br>{interval}"


def _bounds(row: Row) -> str:
    if row["low"] is None or row["high"] is None:
        return ""
    return f"<br>interval {number(row['low'])} to {number(row['high'])}"
