"""The tables of the page, from the tables of ``figures``: what each column is called and how its numbers read."""

from __future__ import annotations

from typing import Any

import polars as pl

from batchscope.amounts import NOTHING, count, duration, number, percent
from batchscope.analysis import Curve
from batchscope.analysis.outcomes import PREFIX
from batchscope.report import figures
from batchscope.report.markup import Cell, Table
from batchscope.report.wording import name


def curve(curve: Curve, columns: list[str]) -> Table:
    """The curve, with the best point of every batch size.

    Args:
        curve: The curve.
        columns: Its hyperparameters, with their prefix.
    """
    shown = figures.steps_to_result(curve)
    names = [column.removeprefix(PREFIX) for column in columns if column.removeprefix(PREFIX) in shown.columns]
    checked = bool(shown["validated"].count())
    rows = []
    for row in shown.iter_rows(named=True):
        cells = [
            _number(row["batch_size"]),
            *_promised(curve, row),
            *([_number(row["steps"])] if curve.confirmed else []),
            _interval(row["low"], row["high"], row["verdict"]),
        ]
        cells += [_checked(row)] if checked else []
        cells += [
            Cell(NOTHING if row["speedup"] is None else f"{number(row['speedup'], 3)}×", row["speedup"]),
            _number(row["examples"]),
            *(_number(row[count]) for count in ("reached", "feasible", "trials")),
            *(_value(row[hyperparameter]) for hyperparameter in names),
        ]
        rows.append(cells)
    level = percent(curve.level, 3)
    heads = ["batch size", "steps", *([f"{level} of fresh trainings", "fewest of the search"] * curve.confirmed)]
    heads += [f"{level} interval of the expected fewest"]
    heads += ["validated"] if checked else []
    heads += ["speedup", "examples", "reached", "feasible", "trials", *map(name, names)]
    return Table(
        "The curve in numbers; a heading sorts the table by its column",
        heads,
        rows,
    )


def _promised(curve: Curve, row: dict[str, Any]) -> list[Cell]:
    """The steps of a fresh training with their interval; else the fewest of the search, which they are at least."""
    if row["shown"] is None:
        return [Cell("not reached")] + [Cell(NOTHING)] * curve.confirmed
    if not curve.confirmed:
        return [Cell(f"at least {number(row['steps'])}", row["steps"])]
    return [Cell(count(row["shown"]), row["shown"]), _interval(row["shown_low"], row["shown_high"])]


def costs(costs: pl.DataFrame) -> Table:
    """What every batch size took, and the sum."""
    statuses = [status for status in figures.STATUSES if costs[status].sum()]
    confirmations = ["confirmations"] if costs["confirmations"].sum() else []
    counts = ["trials", *statuses, *confirmations, "steps", "examples"]

    def cells(row: dict[str, Any]) -> list[Cell]:
        return [
            *(_number(row[column]) for column in counts),
            *(Cell(duration(row[column]), row[column]) for column in ("train_seconds", "evaluation_seconds")),
            Cell(percent(row["evaluation_share"]), row["evaluation_share"]),
        ]

    whole = figures.total(costs).row(0, named=True)
    return Table(
        "What every batch size took",
        ["batch size", *counts, "training time", "evaluation time", "share of evaluation"],
        [[_number(row["batch_size"]), *cells(row)] for row in costs.iter_rows(named=True)],
        [Cell("all"), *cells(whole)],
    )


def _number(value: float | None) -> Cell:
    return Cell(number(value), value)


def _value(value: float | str | None) -> Cell:
    return Cell(value, value) if isinstance(value, str) else _number(value)


def _interval(low: float | None, high: float | None, verdict: str | None = None) -> Cell:
    known = low is not None and high is not None
    text = f"{count(low)} to {count(high)}" if known else f"at least {count(low)}" if low is not None else NOTHING
    return Cell(text, low, f"verdict: {verdict}" if verdict else "")


def _checked(row: dict[str, Any]) -> Cell:
    valid = None if row["steps"] is None else row["validated"]
    reason = f"reason: {row['reason']}" if valid is False and row["reason"] else ""
    return Cell(NOTHING if valid is None else "yes" if valid else "no", str(valid), reason)
