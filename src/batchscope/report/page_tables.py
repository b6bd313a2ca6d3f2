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
    """The curve, with the setting of every batch size: what matters first, what speaks against a point last.

    Args:
        curve: The curve.
        columns: Its hyperparameters, with their prefix.
    """
    shown = figures.steps_to_result(curve)
    names = [column.removeprefix(PREFIX) for column in columns if column.removeprefix(PREFIX) in shown.columns]
    checked = bool(shown["validated"].count())
    remarked = shown.select(pl.any_horizontal(pl.col("reason", "verdict").is_not_null()).any()).item()
    rows = []
    for row in shown.iter_rows(named=True):
        fewest = _interval(row["low"], row["high"])
        cells = [
            _number(row["batch_size"]),
            *_promised(curve, row),
            *(_value(row[hyperparameter]) for hyperparameter in names),
            Cell(NOTHING if row["speedup"] is None else f"{number(row['speedup'], 3)}×", row["speedup"]),
            Cell(count(row["examples"]), row["examples"]),
            *([_number(row["steps"]), fewest] if curve.has_fewest else []),
            *(_number(row[number_of]) for number_of in ("reached", "feasible", "trials")),
        ]
        cells += [_checked(row)] if checked else []
        cells += [_remarks(row)] if remarked else []
        rows.append(cells)
    level = percent(curve.level, 3)
    heads = ["batch size", "steps", f"{level} of trainings" if curve.confirmed else f"{level} interval"]
    heads += [*map(name, names), "speedup", "examples"]
    heads += ["fewest of the search", f"{level} of the expected fewest"] if curve.has_fewest else []
    heads += ["reached", "feasible", "trials", *(["validated"] if checked else []), *(["remarks"] if remarked else [])]
    return Table("The curve in numbers; a heading sorts the table by its column", heads, rows)


def _promised(curve: Curve, row: dict[str, Any]) -> list[Cell]:
    """The steps of a fresh training with their interval; else the fewest of the search, which they are at least."""
    if row["shown"] is None:
        return [Cell("not reached"), Cell(NOTHING)]
    steps = count(row["shown"])
    return [
        Cell(steps, row["shown"]) if curve.confirmed else Cell(f"at least {steps}", row["steps"]),
        _interval(row["shown_low"], row["shown_high"]),
    ]


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


def _interval(low: float | None, high: float | None) -> Cell:
    if low is None:
        return Cell(NOTHING)
    return Cell(f"at least {count(low)}" if high is None else f"{count(low)} to {count(high)}", low)


def _checked(row: dict[str, Any]) -> Cell:
    valid = None if row["steps"] is None else row["validated"]
    return Cell(NOTHING if valid is None else "yes" if valid else "no", str(valid))


def _remarks(row: dict[str, Any]) -> Cell:
    """What speaks against a point, in words, apart from its numbers."""
    reason = row["reason"] if row["validated"] is False and row["steps"] is not None else None
    return Cell("", note="; ".join(text for text in (reason, row["verdict"]) if text))
