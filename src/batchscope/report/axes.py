"""The axes of the charts: which scale shows a quantity, where its values lie, and what the ticks say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Literal

from batchscope.amounts import number
from batchscope.report.palette import Palette
from batchscope.report.wording import chart_text

Value = float | str | None
_MEMORY_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)
_MEMORY_DECADES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
_MEMORIES = {"momentum", "beta1", "beta2"}


@dataclass(frozen=True)
class Scale:
    """How the values of one hyperparameter are laid out: ``reverse_log`` shows 1 - value in logarithms."""

    kind: Literal["linear", "log", "reverse_log", "choice"]
    values: tuple[Value, ...]

    @classmethod
    def of(cls, name: str, values: Iterable[Value]) -> Scale:
        """The scale that shows ``values`` best: what they are, how far they span, and the name decide."""
        known = tuple(value for value in values if value is not None)
        numbers = [value for value in known if not isinstance(value, str) and math.isfinite(value)]
        if len(numbers) < len([value for value in known if isinstance(value, str)]) or not numbers:
            return cls("choice", tuple(sorted({str(value) for value in known})))
        if name in _MEMORIES and 0 <= min(numbers) and max(numbers) < 1:
            return cls("reverse_log", tuple(numbers))
        if min(numbers) > 0 and ("learning_rate" in name or max(numbers) >= 20 * min(numbers)):
            return cls("log", tuple(numbers))
        return cls("linear", tuple(numbers))

    def place(self, value: Value) -> float | str | None:
        """Where ``value`` lies on the axis; None where it has no place, such as 0 in logarithms."""
        if self.kind == "choice":
            return None if value is None else chart_text(value)
        if value is None or isinstance(value, str) or not math.isfinite(value):
            return None
        if self.kind == "reverse_log":
            return short(1 / (1 - value)) if value < 1 else None
        return short(value) if self.kind == "linear" or value > 0 else None

    def axis(self, title: str, palette: Palette) -> dict[str, Any]:
        """The Plotly axis, with a little room around the values."""
        base = bare_axis(title, palette)
        if self.kind == "choice":
            order = [chart_text(value) for value in self.values]
            labels = [chart_text(shorten(str(value), 16, placeholder="…")) for value in self.values]
            shown = {"tickvals": order, "ticktext": labels}
            return base | {"type": "category", "categoryorder": "array", "categoryarray": order} | shown
        places = [place for value in self.values if isinstance(place := self.place(value), float)]
        if not places:  # an imported run may know nothing within any budget
            return base
        low, high = min(places), max(places)
        if self.kind == "linear":
            room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
            return base | {"type": "linear", "range": [low - room, high + room], "nticks": 7}
        if self.kind == "reverse_log":
            ticks, labels = _momentum_ticks(low, high)
        else:
            ticks = _decade_ticks(low, high, _steps(high / low) if high / low < 30 else (1,))
            labels = [number(tick) for tick in ticks]
        return base | {"type": "log", "range": log_range(low, high), "tickvals": ticks, "ticktext": labels}


def bare_axis(title: str, palette: Palette) -> dict[str, Any]:
    """What all axes have in common."""
    return {
        "title": {"text": title, "standoff": 10},
        "gridcolor": palette.grid,
        "linecolor": palette.grid,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": palette.grid,
        "automargin": True,
        "tickangle": 0,
    }


def batch_axis(batch_sizes: Sequence[int], palette: Palette) -> dict[str, Any]:
    """Batch sizes in logarithms, a tick at every power of two."""
    low, high = min(batch_sizes), max(batch_sizes)
    ends = log_range(low, high, least=4.0)
    powers = [2**power for power in range(high.bit_length() + 2) if ends[0] <= math.log10(2**power) <= ends[1]]
    return bare_axis("batch size (examples)", palette) | {
        "type": "log",
        "range": ends,
        "tickvals": powers,
        "ticktext": [number(power) for power in powers],
    }


def count_axis(title: str, values: Iterable[float | None], palette: Palette) -> dict[str, Any]:
    """Counts in logarithms: 200, 1k, 5k."""
    known = [value for value in values if value is not None and value > 0] or [1.0]
    low, high = min(known), max(known)
    ticks = _decade_ticks(low, high, _steps(high / low))
    text = [
        f"{tick:.0f}" if tick < 1000 else f"{tick / 1000:g}k" if tick < 1e6 else f"{tick / 1e6:g}M" for tick in ticks
    ]
    return bare_axis(title, palette) | {
        "type": "log",
        "range": log_range(low, high, least=4.0),
        "tickformat": "~s",  # where a zoom shows none of these ticks
        "nticks": 7,
        "tickvals": ticks,
        "ticktext": [label if tick >= 1 else number(tick) for tick, label in zip(ticks, text, strict=True)],
    }


def log_range(low: float, high: float, least: float = 2.0) -> list[float]:
    """The range of an axis in powers of ten: 4% of room at both ends, and at least a factor of ``least`` wide."""
    first, last = math.log10(low), math.log10(high)
    room = max(0.04 * (last - first), (math.log10(least) - (last - first)) / 2)
    return [short(first - room), short(last + room)]


def short(value: float) -> float:
    """``value`` to six digits, finer than any screen: half the size of the page."""
    return float(f"{value:.6g}")


def _steps(span: float) -> tuple[float, ...]:
    return (1, 1.5, 2, 3, 4, 5, 6, 8) if span < 6 else (1, 2, 3, 5) if span < 15 else (1, 2, 5) if span < 1e4 else (1,)


def _decade_ticks(low: float, high: float, steps: Sequence[float]) -> list[float]:
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    return [short(step * 10.0**exponent) for exponent in exponents for step in steps]


def _momentum_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    ticks = _MEMORY_TICKS if high / low < 30 else _MEMORY_DECADES
    return [short(1 / (1 - tick)) for tick in ticks], [f"{tick:g}" for tick in ticks]
