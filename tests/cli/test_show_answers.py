"""What a terminal shows of a curve: the answer first, and the columns that matter however narrow it is."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from rich.console import Console

from advice.exact_recommendations import curve as exact
from batchscope.analysis import Curve, Interval
from batchscope.cli.show_answers import interval, print_curve
from report.report_study import curve


def shown(found: Curve, width: int, capsys: pytest.CaptureFixture[str], **options: bool) -> list[str]:
    print_curve(Console(width=width, markup=False, highlight=False, emoji=False), found, **options)
    return capsys.readouterr().out.splitlines()


def wide() -> Curve:
    """Many large batch sizes with three more hyperparameters than anybody can show at once."""
    sizes = [2**power for power in range(4, 18)]
    more: dict[str, Any] = {name: [0.123456] * len(sizes) for name in ("momentum", "weight_decay", "beta2", "epsilon")}
    more |= {name: [48] * len(sizes) for name in ("reached", "feasible", "trials")}
    return exact(sizes, spread=0.3, **more)


def test_the_answer_is_first_and_the_columns_that_matter_fit_into_60(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(wide(), 60, capsys)
    assert lines[0] == "validation/error < 0.2" and lines[1].startswith("Batch size ")
    assert max(map(len, lines)) <= 60
    heads = " ".join(line for line in lines if "batch" in line or "size" in line)
    for column in ("at least", "interval", "rate", "momentum"):
        assert column in heads
    rows = [line for line in lines if line.lstrip().startswith("131,072")]
    assert len(rows) == 1 and "1,311" in rows[0] and "0.1235" in rows[0]  # learning rate 0.01 B, momentum


def test_what_fits_is_shown_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    heads = "\n".join(shown(wide(), 200, capsys))
    for column in ("weight", "beta2", "epsilon", "reached"):
        assert column in heads


def test_a_point_that_something_speaks_against_is_marked_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(curve(), 100, capsys, everything=True)
    assert any(line.split()[:1] == ["8"] and "!" in line for line in lines)
    assert any("! Batch size 8: the best learning_rate is at the edge." in line for line in lines)


def test_nothing_is_obeyed_that_stands_in_data(capsys: pytest.CaptureFixture[str]) -> None:
    evil = curve(table=curve().table.rename({"momentum": "[red]\x1b[2J"}).with_columns(reason=pl.lit("\x1b[31mred")))
    text = "\n".join(shown(evil, 100, capsys, everything=True))
    assert "\x1b" not in text and "[red]" in text


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Interval(29.6, 20.4, 36.7), "30 (20 to 37)"),
        (Interval(29.6, 20.4, None), "30 (at least 20)"),
        (Interval(29.6, None, 36.7), "30 (at most 37)"),
        (Interval(None, 22.4, None), "at least 22"),
        (Interval(None, None, 22.4), "at most 22"),
        (Interval(None, None, None), "not determined"),
    ],
)
def test_ends_of_regimes_in_words(found: Interval, expected: str) -> None:
    assert interval(found) == expected
