"""Text and numbers, and what must never get through them."""

from __future__ import annotations

import html
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from batchscope.report import wording


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_invisible_is_left(raw: str) -> None:
    shown = wording.plain(raw)
    shown.encode("utf-8")
    categories = {unicodedata.category(character) for character in shown if character not in "\n\t"}
    assert not categories & {"Cc", "Cs", "Zl", "Zp"}
    assert not any(unicodedata.bidirectional(character) in BIDIRECTIONAL for character in shown)


BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(st.text())
def test_escaped_text_has_no_markup_and_reads_back(raw: str) -> None:
    escaped = wording.escape(raw)
    assert not set(escaped) & set("<>\"'")
    assert html.unescape(escaped) == wording.plain(raw)


def test_control_characters_are_shown() -> None:
    assert wording.plain("a\x00\x1b[31m\x7f\u202eb\ud800\r\nc") == "a␀␛[31m␡\\u202eb\\ud800\nc"
