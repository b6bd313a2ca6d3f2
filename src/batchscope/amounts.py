"""Amounts as people write them, and as everything that is shown writes them: terminal, page, sentences and messages.

One style, in plain ASCII, so that what is read can be typed. A value that a user has given is quoted as ``:g`` instead,
and what a program reads keeps all its digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from batchscope.errors import AnalysisError, StudyError

NOTHING = "-"
"""What stands where there is no value."""

_UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"\s*(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>s|min|m|h|d)")
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*(?:([KMGT]?)(I?)B|([KMGT]?))\s*", re.IGNORECASE)
# Two units of a length of time, in seconds: the larger, and the smaller in which it is rounded.
_PAIRS = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))


def parse_seconds(text: str | float, what: str = "a deadline") -> float:
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


def parse_size(text: str | int) -> int:
    """Bytes of ``8GiB`` (2^30), ``500 MB`` (10^6), ``2G`` (as GiB) or a plain number of them.

    Raises:
        StudyError: If it is no size of at least one byte.
    """
    match = _SIZE.fullmatch(str(text))
    if match is not None:
        prefix = (match[2] or match[4] or "").upper()
        base = 1024 if match[3] or match[4] else 1000
        size = float(match[1]) * base ** " KMGT".index(prefix or " ")
        if 1 <= size < 2**63:
            return int(size)
    raise StudyError(f"a size of memory is a number with MB, GB, MiB or GiB, got {str(text)!r:.60}; write 8GiB, say")


def number(value: int | float | None, digits: int = 4) -> str:
    """``1234.5`` as ``1,234``, ``0.0123456`` as ``0.01235``, ``12.0`` as ``12``; nothing as a dash.

    Args:
        value: The number.
        digits: How many are significant; whole numbers and the whole part of larger ones are shown in full.
    """
    if isinstance(value, int) and abs(value) > 1e300:
        value = math.inf if value > 0 else -math.inf  # beyond what a float holds
    if value is None or math.isnan(value):
        return NOTHING
    rounded = f"{value:.{digits}g}"
    if abs(value) < 1e15 and (abs(float(rounded)) >= 10 ** (digits - 1) or value == round(value)):
        return f"{round(value):,}"
    return rounded


def count(value: float | None) -> str:
    """Steps or examples, which a median or a law gives as no whole number: whole from 10 on."""
    return number(value if value is None or not 10 <= abs(value) < math.inf else round(value), 3)


def batch_size(value: float | None) -> str:
    """A batch size, also one between the measured ones: whole, as one has to type it."""
    return number(value if value is None or not math.isfinite(value) else max(1, round(value)))


def percent(share: float | None, digits: int = 2) -> str:
    """``0.123`` as ``12%``, ``0.0123`` as ``1.2%``.

    Args:
        share: What is 1 for all.
        digits: How many are significant: two of an estimate, three of a level of confidence.
    """
    return NOTHING if share is None or math.isnan(share) else f"{number(100 * share, digits)}%"


def below_one(value: float) -> str:
    """A number just below 1, as a momentum is, to two digits of what it lacks: ``0.99873`` as ``0.9987``."""
    return f"{value:.{1 - math.floor(math.log10(1 - value))}f}".rstrip("0")


def duration(seconds: float | None) -> str:
    """``0.25 ms``, ``45.2 s``, ``3 min 20 s``, ``2 h``, ``3 d 4 h``: two units at the most."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if abs(seconds) < 0.9995 and seconds:
        return f"{number(1000 * seconds, 3)} ms"
    for large, unit, small, part in _PAIRS:
        parts = round(seconds / part)
        if parts * part >= unit and seconds >= 59.95:
            whole, rest = divmod(parts, unit // part)
            return f"{number(whole)} {large}" + (f" {rest} {small}" if rest else "")
    return f"{number(seconds, 3)} s"


def memory(size: float | None) -> str:
    """Bytes as ``953 MiB`` or ``1.5 GiB``."""
    if size is None:
        return NOTHING
    power = min(int(math.log2(size)) // 10, 4) if size >= 1 else 0
    unit = ("byte" if size == 1 else "bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{number(size / 1024**power, 3)} {unit}"


def bounds(low: float | None, high: float | None, show: Callable[[float | None], str] = number) -> str:
    """``94 to 134``; ``at least 94`` or ``at most 134`` where the other side is open, a dash for two."""
    if low is not None and high is not None:
        return f"{show(low)} to {show(high)}"
    if low is None and high is None:
        return NOTHING
    return f"at most {show(high)}" if low is None else f"at least {show(low)}"


def counted(things: int, noun: str) -> str:
    """``1 trial``, ``1,234 trials``."""
    return f"{number(things)} {noun}{'' if things == 1 else 's'}"
