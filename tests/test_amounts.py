"""Amounts: one way to read them and one to write them, and nobody else who does."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope import amounts
from batchscope.errors import AnalysisError, StudyError

ROOT = Path(__file__).parents[1] / "src" / "batchscope"
# Where numbers are no text for a person: coordinates of a picture, and ticks, which must be short.
DRAWN = {"amounts.py", "report/picture.py", "report/axes.py"}
# A value as a user has typed it, all digits of one that a program reads, and text.
QUOTED = re.compile(r"g|\.1\dg|.?[<>^]?\d*x?|\.\d+")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (float("inf"), "inf"),
        (0, "0"),
        (-0.0, "0"),
        (12.0, "12"),
        (1234567, "1,234,567"),
        (12345.6, "12,346"),
        (999.96, "1,000"),
        (0.0123456, "0.01235"),
        (0.00001, "1e-05"),
        (-3.0, "-3"),
        (0.1, "0.1"),
        (1e20, "1e+20"),
        (-(10**400), "-inf"),
    ],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert amounts.number(value) == shown


@given(st.floats(-1e300, 1e300) | st.integers() | st.none(), st.integers(2, 6))
def test_a_number_reads_back_as_it_was_to_its_digits(value: float | None, digits: int) -> None:
    shown = amounts.number(value, digits)
    if value is None or math.isnan(value):
        assert shown == amounts.NOTHING
    else:
        assert float(shown.replace(",", "")) == pytest.approx(float(value), rel=10.0 ** (1 - digits))
        assert "," in shown or abs(float(shown)) < 1000 or "e" in shown or math.isinf(float(value))


def test_counts_are_whole_from_ten_on_and_batch_sizes_always() -> None:
    values = (0.3, 3.14159, 12.6, 1234.5, math.inf, None)
    assert list(map(amounts.count, values)) == ["0.3", "3.14", "13", "1,234", "inf", "-"]
    assert list(map(amounts.batch_size, values)) == ["1", "3", "13", "1,234", "inf", "-"]


def test_shares_bounds_and_things() -> None:
    shares = (0.9, 0.29, 0.567, 0.0123, 0, 1, 12.5, None)
    assert list(map(amounts.percent, shares)) == ["90%", "29%", "57%", "1.2%", "0%", "100%", "1,250%", "-"]
    assert [amounts.percent(level, 3) for level in (0.9, 0.975)] == ["90%", "97.5%"]
    sides = [(1, 2000), (1, None), (None, 2), (None, None)]
    assert [amounts.bounds(*pair) for pair in sides] == ["1 to 2,000", "at least 1", "at most 2", "-"]
    assert [amounts.counted(n, "trial") for n in (0, 1, 1234)] == ["0 trials", "1 trial", "1,234 trials"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.0123, "12.3 ms"),
        (0.9999, "1 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min"),
        (119, "1 min 59 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
        (86399, "1 d"),
        (273_600, "3 d 4 h"),
        (1e12, "11,574,074 d 2 h"),
        (None, "-"),
        (math.inf, "-"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert amounts.duration(seconds) == shown


@given(st.floats(1e-6, 1e9))
def test_a_duration_reads_back_as_about_what_it_was(seconds: float) -> None:
    shown = amounts.duration(seconds)
    if shown.endswith(" ms"):
        assert float(shown.removesuffix(" ms").replace(",", "")) / 1000 == pytest.approx(seconds, rel=0.006)
    else:
        assert amounts.parse_seconds(shown.replace(",", "")) == pytest.approx(seconds, rel=0.03)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (512, "512 bytes"), (40.5 * 1024, "40.5 KiB"), (953 * 2**20, "953 MiB"), (None, "-")],
)
def test_memory(size: float | None, shown: str) -> None:
    assert amounts.memory(size) == shown


@given(st.integers(1, 2**62))
def test_memory_reads_back(size: int) -> None:
    shown = amounts.memory(size).replace(",", "").removesuffix(" bytes").removesuffix(" byte")
    assert amounts.parse_size(shown) == pytest.approx(size, rel=0.006)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("45s", 45), ("90m", 5400), ("90min", 5400), ("2h", 7200), ("1h 30m", 5400), ("1.5d", 129600), ("60", 60), (5, 5)],
)
def test_lengths_of_time(text: str | float, expected: float) -> None:
    assert amounts.parse_seconds(text) == expected


@pytest.mark.parametrize("text", ["soon", "", "2 hours", "h", "-1h", "0", 0, -3, "nan", "inf", "1h2x", f"{'9' * 400}h"])
def test_what_is_no_length_of_time(text: str | float) -> None:
    with pytest.raises(AnalysisError, match="write 45s, 90m, 2h"):
        amounts.parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("8GiB", 8 * 2**30), ("1.5 GB", 1_500_000_000), ("500mb", 500_000_000), ("2MiB", 2 * 2**20), ("4096", 4096)),
        *((7, 7), ("1.5k", 1536), ("2G", 2**31)),
    ],
)
def test_sizes_are_read(text: str | int, size: int) -> None:
    assert amounts.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "8 parsecs", "-1GiB", "0", "GiB", "1e9", "0.1", "9" * 400, f"{'9' * 30}TiB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(StudyError, match="write 8GiB"):
        amounts.parse_size(text)


def test_nobody_else_decides_how_a_number_reads() -> None:
    found = [
        f"{path.relative_to(ROOT)}, line {line}: {spec!r}"
        for path in sorted(ROOT.rglob("*.py"))
        if str(path.relative_to(ROOT)) not in DRAWN
        for line, spec in specifications(path)
        if not QUOTED.fullmatch(spec)
    ]
    assert not found, "write these with batchscope.amounts"


def specifications(path: Path) -> Iterator[tuple[int, str]]:
    """How the f-strings of a module want their values written, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FormattedValue) and isinstance(node.format_spec, ast.JoinedStr):
            parts = node.format_spec.values
            yield node.lineno, "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
