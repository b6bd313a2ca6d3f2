"""Words for people: everything that comes from data passes through here on its way to a page."""

from __future__ import annotations

import html
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


def name(identifier: str) -> str:
    """``learning_rate`` as ``learning rate``."""
    return identifier.replace("_", " ")
