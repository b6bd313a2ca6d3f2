"""Lengths of time and amounts as people write them, and as sentences show them."""

from __future__ import annotations

import math
import re

from batchscope.errors import AnalysisError

_UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"\s*(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>s|min|m|h|d)")


def seconds(text: str | float, what: str = "a deadline") -> float:
    """Read ``90m``, ``2h``, ``1h 30min``, ``1.5d`` or ``45s``; a bare number is in seconds.

    Raises:
        AnalysisError: If the text is no such length of time, or none above 0.
    """
    advice = "write 45s, 90m, 2h, 1h30m or 3d"
    if isinstance(text, str):
        parts = list(_PART.finditer(text))
        if "".join(part[0] for part in parts) == text.rstrip() and parts:
            total = sum(float(part["number"]) * _UNITS[part["unit"]] for part in parts)
        else:
            try:
                total = float(text)
            except ValueError:
                raise AnalysisError(f"{what} is a length of time, got {text!r}: {advice}") from None
    else:
        total = float(text)
    if not 0 < total < math.inf:
        raise AnalysisError(f"{what} must be above 0 and finite, got {text!r}: {advice}")
    return total


def duration(value: float | None) -> str:
    """Seconds with the two largest units: ``0.25 ms``, ``45.2 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if value is None:
        return "-"
    if value < 1:
        return f"{1000 * value:.3g} ms"
    if value < 60:
        return f"{value:.3g} s"
    if value < 3600:
        whole = round(value)
        return f"{whole // 60} min {whole % 60} s"
    if value < 86400:
        minutes = round(value / 60)
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(value / 3600)
    return f"{hours // 24:,} d {hours % 24} h" if hours < 1e6 else f"{hours / 24:.3g} d"


def number(value: float | None) -> str:
    """Three significant digits below 1,000, whole numbers from there on; nothing as a dash."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.3g}"
