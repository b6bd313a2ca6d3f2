"""Where the regimes of a curve end, in one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping

from batchscope.amounts import batch_size, number, percent
from batchscope.analysis import Curve, Regimes
from batchscope.analysis.regimes import OVERHEAD
from batchscope.report import figures


def regimes_in_words(curve: Curve) -> str:
    """Where the regimes end, in a sentence; empty where nothing is known of them."""
    if not figures.reached(curve) or figures.boundaries(curve)["place"].eq("unknown").all():
        return ""
    return f"{_regimes(curve)}{_overhead(curve.regimes)} Brackets hold {percent(curve.level, 3)} intervals."


def _overhead(regimes: Regimes) -> str:
    """The other definition of a critical batch size, for what is assumed changes the number."""
    at = None if "critical_batch_size" in regimes.undetermined else regimes.at_overhead(OVERHEAD)
    if regimes.law is None or at is None or at.value is None:
        return ""
    law, ends = regimes.law.law, bounds({"low": at.low, "high": at.high})
    return (
        f" At about {batch_size(at.value)} ({ends}) a goal takes {percent(OVERHEAD)} more examples than at "
        f"{number(law.measured[0])}, by the law with sharpness {number(law.sharpness)}: another definition of the "
        "critical batch size."
    )


def bounds(row: Mapping[str, float | None]) -> str:
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
        ): f"Doubling the batch size halves the steps up to the largest, {number(last)}",
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
