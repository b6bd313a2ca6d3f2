"""The answer first: one sentence that can be acted on, why it can be believed, and what speaks against it.

Page, terminal and JSON begin with what is made here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from batchscope.amounts import batch_size, below_one, bounds, count, counted, number, percent
from batchscope.analysis.curve import Curve
from batchscope.analysis.points import Point, Value, luck, points
from batchscope.analysis.regimes import Regimes
from batchscope.interval import Interval

LEADING = ("optimizer", "learning_rate", "momentum")  # what everybody asks for comes first
CAVEATS = 2  # beside the answer; the others are there for who asks
# What stands in a note of the curve where it refers to its columns.
_SEE = {": see reason": ": better settings may lie outside the search space", ": see verdict": ": more may find better"}


@dataclass(frozen=True)
class Headline:
    """The answer of one goal in plain text.

    Attributes:
        goal: What is to be reached.
        sentence: What to do, and what it will take.
        trust: Why that can be believed, or not.
        caveats: What matters most of what speaks against it, at most two.
        further: The other reservations.
    """

    goal: str
    sentence: str
    trust: str = ""
    caveats: tuple[str, ...] = ()
    further: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the goal, beside which it stands."""
        caveats, further = list(self.caveats), list(self.further)
        return {"sentence": self.sentence, "trust": self.trust, "caveats": caveats, "further": further}


class Setting(Protocol):
    """What can be recommended: a point of a curve, or an option on some hardware."""

    @property
    def batch_size(self) -> int: ...
    @property
    def steps(self) -> Interval: ...
    @property
    def hyperparameters(self) -> Mapping[str, Value]: ...
    @property
    def remarks(self) -> tuple[str, ...]: ...
    @property
    def lower_bound(self) -> bool: ...


def knee(found: Sequence[Point], regimes: Regimes) -> Point:
    """Where neither time nor examples are wasted: the least product of the two, steps squared times batch size.

    By the two-asymptote law S(B) = S_min (1 + B_crit / B) the product is S_min^2 (B + B_crit)^2 / B, least at the
    critical batch size; without a law it is still the point from which twice the batch size saves less than a factor of
    the square root of two in steps, and half of it costs more than that. Of equals the smallest; none
    beyond the maximum useful batch size.
    """
    return min(useful(found, regimes), key=lambda point: (point.steps.value or 0.0) ** 2 * point.batch_size)


def useful(found: Sequence[Point], regimes: Regimes) -> list[Point]:
    """Those up to the first that is no smaller than the maximum useful batch size: more batch is wasted there."""
    end = regimes.maximum_useful_batch_size.value
    last = next((point.batch_size for point in found if end is not None and point.batch_size >= end), math.inf)
    return [point for point in found if point.batch_size <= last]


def headline(curve: Curve, chosen: Setting | None = None, *, place: str = "", takes: str = "") -> Headline:
    """The answer of a curve.

    Args:
        curve: Steps to result.
        chosen: What is recommended; by default the knee.
        place: Where, if there is more to say than the batch size: "batch size 64 on 4 devices".
        takes: The time of it in words, if that is known.
    """
    goal, table = str(curve.goal), curve.table
    reached = table.drop_nulls(curve.quantity)
    if chosen is None and reached.is_empty():
        return _nowhere(curve)
    chosen = chosen or knee(points(curve), curve.regimes)
    row = next((row for row in table.iter_rows(named=True) if row["batch_size"] == chosen.batch_size), None)
    place = place or f"batch size {chosen.batch_size:,}"
    setting = [f"{name.replace('_', ' ')} {setting_value(value)}" for name, value in _ordered(chosen.hyperparameters)]
    sentence = f"{', '.join([place[:1].upper() + place[1:], *setting])}: {takes}{_steps(chosen)}"
    sentence += f"{_fewer(chosen, reached, curve.quantity)}{_beyond(chosen, curve.regimes, reached)}."
    found = list(dict.fromkeys(_reservations(curve, chosen, row)))
    further = [*found[CAVEATS:], *_of_points(curve), *curve.regimes.notes]
    trust = " ".join(filter(None, [_trust(curve, chosen, row), _price(curve)]))
    return Headline(goal, sentence, trust, _all(found[:CAVEATS]), _all(further))


def setting_value(value: Value) -> str:
    """A hyperparameter to three digits; where it is close to 1, as a momentum is, to two digits of what it lacks."""
    if isinstance(value, str):
        return value
    if 0.9 <= value < 1:
        return below_one(value)
    return number(value, 3)


def _ordered(setting: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    yield from ((name, setting[name]) for name in LEADING if name in setting)
    yield from ((name, value) for name, value in setting.items() if name not in LEADING)


def _steps(chosen: Setting) -> str:
    steps = chosen.steps
    shown = count(steps.value)
    noun = "step" if shown == "1" else "steps"
    if chosen.lower_bound:
        return f"at least {shown} {noun}"
    interval = "" if steps.low is None else f" ({bounds(steps.low, steps.high, count)})"
    return f"about {shown} {noun}{interval}"


def _fewer(chosen: Setting, reached: pl.DataFrame, quantity: str) -> str:
    first = reached.sort("batch_size").row(0, named=True)
    ratio = first[quantity] / (chosen.steps.value or math.inf)
    if first["batch_size"] >= chosen.batch_size or ratio < 1.05:
        return ""
    return f", {number(ratio, 2)} times fewer than {first['batch_size']:,}"


def _beyond(chosen: Setting, regimes: Regimes, reached: pl.DataFrame) -> str:
    end, last = regimes.maximum_useful_batch_size, max(reached.get_column("batch_size").to_list())
    if end.value is not None:
        wasted = f"; beyond {batch_size(end.value)} more is wasted"
        return wasted if round(end.value) > chosen.batch_size else "; a larger batch is wasted"
    if end.low is not None:
        return f"; steps still fall at {last:,}, the largest measured"
    return "; a larger batch is wasted" if end.high is not None else ""


def _trust(curve: Curve, chosen: Setting, row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "Nothing was trained at this batch size: its steps are what the fitted law says."
    if not chosen.lower_bound:
        seeds = row.get("tuned_seeds")
        if seeds and row.get("low") is None:
            share = percent(curve.level, 3)
            return f"The interval holds {share} of further trainings, by how far these lie from their law."
        text = f"The interval holds {percent(curve.level, 3)} of fresh trainings"
        text += f": the setting was trained again with {seeds} new seeds" if seeds else ""
        fewest = row.get("steps")
        lucky = seeds and fewest is not None and fewest < (chosen.steps.value or 0.0)
        return f"{text}; the luckiest of the search took {fewest:,}." if lucky else f"{text}."
    return (
        f"Nothing was trained again, and the fastest of a search is lucky: {luck(row).partition('; ')[2]}. "
        "confirm: {seeds: 5} in a study measures what it takes, and how far the regimes are luck."
    )


def _price(curve: Curve) -> str:
    if curve.price is None or curve.price < 2:
        return ""
    return f"The whole curve cost as much as {number(curve.price, 2)} trainings of the settings that it found."


def _reservations(curve: Curve, chosen: Setting, row: Mapping[str, Any] | None) -> Iterator[str]:
    """What speaks against the answer: what is known of its own point first, then of the curve."""
    if row is None:
        yield from chosen.remarks
    elif row.get("validated") is False:
        yield f"not validated: {row['reason']}"
    if row is not None and chosen.lower_bound and row.get("verdict"):
        yield str(row["verdict"])
    for note in curve.notes:
        own = next((see for see in _SEE if note.endswith(see)), None)
        yield note if own is None else note.removesuffix(own) + _SEE[own]
    table = curve.table.drop_nulls("steps")
    searched = curve.has_fewest or not curve.confirmed
    if searched and table.height and "validated" in table.columns and not table["validated"].count():
        yield "whether the best points lie well inside the search space was not checked"
    if "feasible" in curve.table.columns and curve.table["feasible"].n_unique() > 1:
        fewest, *_, most = curve.table["feasible"].sort().to_list()
        yield f"batch sizes had different numbers of feasible trials, {fewest} to {most}"


def _of_points(curve: Curve) -> Iterator[str]:
    """What is to be said of single batch sizes."""
    for row in curve.table.drop_nulls("steps").iter_rows(named=True):
        for remark in (row.get("reason"), row.get("verdict")):
            if remark:
                yield f"batch size {row['batch_size']:,}: {remark}"


def _nowhere(curve: Curve) -> Headline:
    """The answer where nothing reached the goal: how near it came, and what to try."""
    head = "where the goal was not reached "
    near = [note.removeprefix(head) for note in curve.notes if note.startswith(head)]
    sentence = f"No batch size reached {curve.goal}"
    if "feasible" in curve.table.columns:
        sentence += f", in {counted(int(curve.table['feasible'].sum()), 'feasible trial')}"
    others = [note for note in curve.notes if not note.startswith((head, "no trial reached"))]
    return Headline(str(curve.goal), _sentence("; ".join([sentence, *near[:1]])), further=_all(others))


def _all(reservations: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(_sentence, reservations)))


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
