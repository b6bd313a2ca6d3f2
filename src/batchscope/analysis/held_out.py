"""What test examples say of the points of a curve: shown beside them, used by no decision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import polars as pl

from batchscope.spec.goal import TEST

Table = pl.DataFrame | pl.LazyFrame


def on_test(measurements: Table, chosen: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Test values of trials at the evaluations at which they reached the goal; none where nothing was measured there.

    Args:
        measurements: Of the run.
        chosen: Rows of outcomes: for every batch size its winner and the runs of its point with new seeds.

    Returns:
        ``batch_size``, ``replicate`` (0 for the winner), ``trial``, ``step``, and a column for every metric.
    """
    evaluations = measurements.lazy()
    names = [name for name in evaluations.collect_schema().names() if name.startswith(TEST)]
    keys = {"batch_size": pl.Int64, "replicate": pl.Int64, "trial": pl.String, "step": pl.Int64}
    columns = [pl.col(name).cast(kind) for name, kind in keys.items()]
    rows = [group.rename({"goal_step": "step"}).select(columns).drop_nulls("step") for group in chosen]
    if not names or not rows:
        return pl.DataFrame(schema=keys | dict.fromkeys(names, pl.Float64))
    measured = evaluations.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in names))
    found = measured.select("trial", "step", *names).collect(engine="streaming")
    return pl.concat(rows).join(found, on=["trial", "step"]).sort("batch_size", "replicate")


def by_batch_size(table: pl.DataFrame) -> dict[int, dict[str, Any]]:
    """Batch size to metric to the winner's value, with those of its confirmations under ``confirmations``."""
    names = [name for name in table.columns if name.startswith(TEST)]
    found: dict[int, dict[str, Any]] = {}
    for row in table.iter_rows(named=True):
        values = {name.removeprefix(TEST): row[name] if math.isfinite(row[name]) else None for name in names}
        entry = found.setdefault(row["batch_size"], {"confirmations": []})
        if row["replicate"]:
            entry["confirmations"].append(values)
        else:
            entry |= values
    return found


def in_words(values: Mapping[str, Any], number: Callable[[Any], str]) -> str:
    """An entry of ``by_batch_size``: every metric of the winner, and of its confirmations behind it."""
    parts = []
    for name, value in values.items():
        again = [number(one[name]) for one in values["confirmations"]] if name != "confirmations" else []
        if name != "confirmations":
            parts.append(f"{name} {number(value)}" + (f" (confirmed {', '.join(again)})" if again else ""))
    return "; ".join(parts) or "measured of confirmations only"
