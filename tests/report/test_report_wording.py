"""Text and numbers, and what must never get through them."""

from __future__ import annotations

import html
import unicodedata

import pytest
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


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (1234567, "1,234,567"),
        (12345.6, "12,346"),
        (0.0123456, "0.01235"),
        (0.00001, "1e-05"),
        (-3.0, "−3"),
        (0.1, "0.1"),
    ],
)
def test_number(value: float | None, shown: str) -> None:
    assert wording.number(value) == shown


def test_counts_are_whole_from_ten_on() -> None:
    assert [wording.count(value) for value in (3.14159, 12.6, 1234.5, None)] == ["3.14", "13", "1,234", "–"]


def test_batch_sizes_are_whole() -> None:
    assert [wording.size(value) for value in (0.3, 2.6, 1023.7, None)] == ["1", "3", "1,024", "–"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.1234, "0.123 s"), (119, "119 s"), (3600, "1 h"), (4000, "1 h 7 min"), (90_061, "1 d 1 h"), (None, "–")],
)
def test_duration(seconds: float | None, shown: str) -> None:
    assert wording.duration(seconds) == shown
