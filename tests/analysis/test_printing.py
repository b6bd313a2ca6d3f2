"""A curve and a recommendation as they are printed, in a notebook, and in pandas."""

from __future__ import annotations

import io
import sys

import polars as pl
import pytest
from rich.console import Console

from advice.exact_recommendations import curve as exact
from advice.exact_recommendations import probe
from batchscope.advice.recommendation import recommend
from batchscope.errors import AnalysisError
from batchscope.runs.bar import bar
from batchscope.runs.progress import BatchSizeProgress, Progress
from report.report_study import curve

EVIL = "<script>alert(1)</script>"


def test_a_curve_prints_what_matters() -> None:
    title, heads, first, *_, ends = repr(curve()).splitlines()
    assert title == "Steps to validation/error < 0.2, at least: the fewest of a search"
    assert heads.split("  ")[-1].strip() == "momentum" and "90% interval" in heads
    assert first.split() == ["2", "100", "90", "to", "104", "0.1", "0.9"]
    assert ends == (
        "perfect scaling until 3 (2 to 4); critical batch size 4 (at least 3); maximum useful batch size 6 (at most 7)"
    )


def test_a_recommendation_prints_its_answer_first() -> None:
    found = recommend(exact(), probe(), devices=[1, 2], price=2.0)
    lines = repr(found).splitlines()
    assert lines[:2] == ["validation/error < 0.2", found.headline.sentence]
    assert any(line.split()[:1] == ["recommended"] for line in lines)


def test_in_a_notebook_names_from_data_are_text() -> None:
    evil = curve(table=curve().table.rename({"momentum": EVIL}))
    page = evil._repr_html_() + recommend(evil)._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page and page.count("<table>") == 2


def test_pandas_has_the_same_values() -> None:
    pandas = pytest.importorskip("pandas")
    found = curve().to_pandas()
    assert isinstance(found, pandas.DataFrame) and list(found.columns) == curve().table.columns
    assert pl.DataFrame(found.to_dict("list"), strict=False)["batch_size"].to_list() == [2, 8, 32]


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(AnalysisError, match="pip install pandas"):
        curve().to_pandas()


def test_a_run_in_python_shows_a_bar_where_somebody_sees_it() -> None:
    half = Progress((BatchSizeProgress(8, 0.5, 12, 0, {}),), 3.0, 2.0, 1.0)
    for seen in (True, False):
        console = Console(file=io.StringIO(), force_terminal=seen, width=80)
        with bar("runs/[mine]", console) as show:
            show(half)
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert ("50%" in text and "12 trials" in text and "runs/[mine]" in text) if seen else text == ""
