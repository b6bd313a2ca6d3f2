"""What more devices bring, and where they stop helping (strong scaling: the goal stays, the devices grow)."""

from __future__ import annotations

import polars as pl

from batchscope.advice.options import Option, Options
from batchscope.advice.verdicts import NEAR
from batchscope.amounts import number, percent

_KINDS: dict[str, type[pl.DataType]] = {
    "devices": pl.Int64,
    "batch_size": pl.Int64,
    **dict.fromkeys(("time", "time_low", "time_high", "cost", "speedup", "efficiency"), pl.Float64),
}


def scaling(options: Options) -> pl.DataFrame:
    """The fastest option for each number of devices; the columns are those of ``Recommendation.scaling``."""
    best: dict[int, Option] = {}
    for option in options.all:
        known = best.get(option.devices)
        if known is None or (option.time.value or 0.0) < (known.time.value or 0.0):
            best[option.devices] = option
    rows = []
    for count, option in sorted(best.items()):
        first = best[min(best)]
        speedup = (first.time.value or 0.0) / (option.time.value or 1.0)
        row: dict[str, object] = {"devices": count, "batch_size": option.batch_size, "time": option.time.value}
        row |= {"time_low": option.time.low, "time_high": option.time.high, "cost": option.cost.value}
        rows.append(row | {"speedup": speedup, "efficiency": speedup * first.devices / count})
    return pl.DataFrame(rows, schema=_KINDS)


def useful_devices(lines: pl.DataFrame) -> int | None:
    """The devices from which on more save at most a tenth of the time; None if that is the largest number there."""
    if lines.height < 2:
        return None
    useful = lines.filter(pl.col("time") <= NEAR * pl.col("time").min()).item(0, "devices")
    return None if useful == lines.item(-1, "devices") else int(useful)


def sentence(lines: pl.DataFrame) -> str:
    """Where more devices stop helping, in words; empty for fewer than two numbers of devices."""
    if lines.height < 2:
        return ""
    last = lines.row(-1, named=True)
    stop = useful_devices(lines)
    if stop is None:
        return (
            f"More devices help up to {last['devices']}, the most asked for: {number(last['speedup'], 3)} times as "
            f"fast, at {percent(last['efficiency'])} efficiency. Where they stop helping was not seen."
        )
    if stop == lines.item(0, "devices"):
        return f"More devices than {stop} save at most a tenth of the time."
    row = lines.filter(pl.col("devices") == stop).row(0, named=True)
    return (
        f"Beyond {stop} devices more save at most a tenth of the time; with {stop} it is "
        f"{number(row['speedup'], 3)} times as fast as with {lines.item(0, 'devices')}, at "
        f"{percent(row['efficiency'])} efficiency."
    )
