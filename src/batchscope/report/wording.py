"""Words and numbers for people: everything that comes from data passes through here on its way to a page."""

from __future__ import annotations

import html
import math
import re

_NEWLINE = re.compile(r"\r\n?")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def plain(value: object) -> str:
    r"""The text of ``value`` with what is not seen made visible: ``\x00`` as ␀, ``\u202e`` spelt out.

    Tabs and newlines stay. Control and direction characters, which could hide or reorder what a reader
    sees, and lone surrogates, which cannot be encoded, do not.
    """
    return _INVISIBLE.sub(_spell, _NEWLINE.sub("\n", str(value)))


def _spell(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape(value: object) -> str:
    """``value`` as text for HTML and SVG, in an element or a quoted attribute."""
    return html.escape(plain(value), quote=True)


def chart_text(value: object) -> str:
    """``value`` as text for Plotly, which reads tags and entities in every label."""
    return html.escape(plain(value), quote=False).replace("\n", " ")


def number(value: float | int | None, digits: int = 4) -> str:
    """``1234.5`` as ``1,234``, ``0.000015`` as ``1.5e-05``, ``None`` as a dash."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int) or (value == round(value) and abs(value) < 1e15):
        return _minus(f"{round(value):,}")
    if abs(value) >= 10 ** (digits - 1):
        return _minus(f"{value:,.0f}")
    return _minus(f"{value:.{digits}g}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}") if text.startswith("-") else text


def count(value: float | None) -> str:
    """A number of steps or examples: whole from 10 on."""
    return number(value if value is None or abs(value) < 10 or math.isinf(value) else round(value), 3)


def size(value: float | None) -> str:
    """A batch size, also one between the measured ones: a whole number."""
    return number(None if value is None else max(1, round(value)))


def percent(share: float | None) -> str:
    """``0.123`` as ``12.3%``."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.3g}%"


def duration(seconds: float | None) -> str:
    """``4000`` as ``1 h 7 min``; below two minutes in seconds."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [
        f"{days:,} d" if days else "",
        f"{hours} h" if hours else "",
        f"{minutes} min" if minutes else "",
    ]
    return " ".join([part for part in parts if part][:2])


def name(identifier: str) -> str:
    """``learning_rate`` as ``learning rate``."""
    return identifier.replace("_", " ")


def counted(things: int, noun: str) -> str:
    """``1 trial``, ``1,234 trials``."""
    return f"{number(things)} {noun}{'' if things == 1 else 's'}"
