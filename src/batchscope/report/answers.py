"""What a curve says, in one plain sentence, and what speaks against trusting it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from batchscope.amounts import batch_size, count, number, percent
from batchscope.analysis import Curve
from batchscope.report import figures
from batchscope.report.wording import plain


@dataclass(frozen=True)
class CurveAnswer:
    """The plain text of one goal: no markup, nothing escaped."""

    goal: str
    sentence: str
    caveats: tuple[str, ...]


def answer(curve: Curve) -> CurveAnswer:
    """The answer for one goal, with every reservation that the analysis or the numbers themselves give."""
    table = figures.steps_to_result(curve)
    reached = table.drop_nulls("shown")
    if reached.is_empty():
        trials = f"{number(int(table['feasible'].sum()))} feasible trials"
        sentence = f"No batch size has reached the goal: none of {trials} did."
    elif figures.boundaries(curve)["place"].eq("unknown").all():
        sentence = _fewest(reached)
    else:
        brackets = f" Brackets hold {percent(curve.level, 3)} intervals."
        sentence = f"{_regimes(curve)} {_fewest(reached)}{brackets}"
    return CurveAnswer(plain(curve.goal), sentence, tuple(map(_sentence, _caveats(curve, table))))


def _sentence(caveat: str) -> str:
    text = plain(caveat).strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def bounds(row: dict[str, Any]) -> str:
    """``94 to 134`` for the interval of a row of ``figures.boundaries``; open sides in words, nothing for two."""
    low, high = (None if row[side] is None else batch_size(row[side]) for side in ("low", "high"))
    if low and high:
        return f"{low} to {high}"
    return f"at least {low}" if low else f"at most {high}" if high else ""


def _regimes(curve: Curve) -> str:
    ends = {row["boundary"]: row for row in figures.boundaries(curve).iter_rows(named=True)}
    first, *_, last = figures.reached(curve)
    until, critical, useful = (ends[boundary] for boundary in ends)
    saved = percent(1 - 1 / curve.regimes.tolerance)
    measured = {
        "perfect_scaling_until": "Doubling the batch size halves the steps up to {}",
        "critical_batch_size": "the critical batch size is {}",
        "maximum_useful_batch_size": f"from {{}} on, a larger batch saves at most {saved} of the steps",
    }
    otherwise = {
        (
            "perfect_scaling_until",
            "beyond",
        ): f"A doubled batch halves the steps up to the largest, {number(last)}",
        ("perfect_scaling_until", "below"): "No doubling of the batch size halves the steps",
        ("critical_batch_size", "beyond"): f"the critical batch size is beyond {number(last)}",
        ("critical_batch_size", "below"): f"the critical batch size is below {number(first)}",
        ("maximum_useful_batch_size", "beyond"): f"larger batches save steps up to the largest, {number(last)}",
        ("maximum_useful_batch_size", "below"): f"no larger batch saves more than {saved} of the steps",
    }
    parts = []
    for row in (until, critical, useful):
        if row["place"] == "measured":
            interval = f" ({bounds(row)})" if bounds(row) else ""
            where = f"about {batch_size(row['value'])}{interval}"
            parts.append(measured[row["boundary"]].format(where))
        elif row["place"] != "unknown":
            parts.append(otherwise[row["boundary"], row["place"]])
    return "; ".join(parts) + "."


def _fewest(reached: pl.DataFrame) -> str:
    best = reached.sort("shown", "batch_size").row(0, named=True)
    tuned = best["tuned_seeds"] and best["shown"] == best["tuned"]
    steps = f"{count(best['shown'])}" if tuned else f"at least {count(best['shown'])}"
    text = f"The fewest steps, {steps}, are at batch size {number(best['batch_size'])}"
    first = reached.row(0, named=True)
    if best["batch_size"] == first["batch_size"]:
        return f"{text}."
    return f"{text}: {number(best['speedup'], 3)} times fewer than at {number(first['batch_size'])}."


def _caveats(curve: Curve, table: pl.DataFrame) -> list[str]:
    reached = table.drop_nulls("steps")
    found = [*curve.notes, *curve.regimes.notes]
    if reached.height and not reached["validated"].count():
        found.append("Whether the best points lie well inside the search space was not checked.")
    if table["feasible"].n_unique() > 1:
        fewest, *_, most = table["feasible"].sort().to_list()
        found.append(f"Batch sizes had different numbers of feasible trials, {fewest} to {most}.")
    return found
