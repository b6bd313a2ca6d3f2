"""Rows that sum up several trainings: what they say is kept, and intervals hold one training more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batchscope.analysis.question import Refused
from batchscope.analysis.questions import QUESTIONS
from batchscope.analysis.tuned_rows import tuned_rows
from batchscope.cli.main import DONE, MISUSE, invoke
from batchscope.errors import DataError
from batchscope.exchange.importers import import_curve
from batchscope.exchange.importers.several_runs import trainings
from batchscope.runs import Run

BATCH_SIZES = 2 ** np.arange(8)
LAW = 400 * (1 + 24 / BATCH_SIZES)


@pytest.mark.parametrize("runs", [2, 3, 5, 20])
@pytest.mark.parametrize("mean", [True, False])
def test_trainings_agree_with_all_that_a_row_says(runs: int, mean: bool) -> None:
    drawn = np.sort(100 * np.exp(0.2 * np.random.default_rng(runs).standard_normal(runs)))
    middle = float(drawn.mean() if mean else np.median(drawn))
    found = trainings(float(drawn[0]), middle, float(drawn[-1]), runs, mean=mean)
    assert found[[0, -1]] == pytest.approx(drawn[[0, -1]], rel=1e-12)
    assert float(found.mean() if mean else np.median(found)) == pytest.approx(middle, rel=1e-9)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize(("runs", "mean"), [(3, True), (5, False), (10, True)])
def test_intervals_hold_one_training_more(runs: int, mean: bool) -> None:
    generator, held = np.random.default_rng([runs, mean]), []
    for _ in range(60):
        each = np.sort(LAW * np.exp(0.1 * generator.standard_normal((runs, len(LAW)))), axis=0)
        middles = each.mean(0) if mean else np.median(each, axis=0)
        groups = {}
        for size, low, middle, high in zip(BATCH_SIZES.tolist(), each[0], middles, each[-1], strict=True):
            steps = trainings(low, middle, high, runs, mean=mean)
            groups[size] = pl.DataFrame({"trial": [str(row) for row in range(runs)], "goal_step": steps})
        fresh = LAW * np.exp(0.1 * generator.standard_normal(len(LAW)))
        found = tuned_rows(groups, samples=50).values()
        held += [
            (one.steps.low or 0) <= step <= (one.steps.high or np.inf) for one, step in zip(found, fresh, strict=True)
        ]
    assert 0.86 <= np.mean(held) <= 0.94


def table(tmp_path: Path, *more: str) -> Path:
    rows = [
        f"{size},{steps:.0f},{0.8 * steps:.0f},{1.3 * steps:.0f}" for size, steps in zip(BATCH_SIZES, LAW, strict=True)
    ]
    path = tmp_path / "published.csv"
    path.write_text("\n".join(["bs,steps,least,most", *rows, *more]) + "\n")
    return path


def test_a_table_becomes_a_confirmed_curve_of_so_many_trainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path, "512,300,310,400", "1024,,,")
    options = ["--steps", "steps", "--tuned", "--runs", "5", "--low", "least", "--high", "most", "--mean"]
    assert invoke(["import", "curve", str(path), "-o", str(tmp_path / "run"), "--batch-size", "bs", *options]) == DONE
    run = Run(tmp_path / "run")
    point = run.steps_to_result().table.row(0, named=True)
    assert point["batch_size"] == 1 and point["tuned_seeds"] == 5
    assert 0.8 * LAW[0] < point["tuned"] < LAW[0]  # the median lies below the mean
    capsys.readouterr()
    assert invoke(["analyze", str(tmp_path / "run"), "--all"]) == DONE
    shown = capsys.readouterr().out
    assert "search" not in shown and "trained again" not in shown  # for nothing was
    reasons = {question.name: answer.reason for question, answer in run.answers()[0] if isinstance(answer, Refused)}
    assert "no search came with it" in reasons["sensitivity"] and "no values of a metric" in reasons["speedup"]
    assert set(reasons) == {question.name for question in QUESTIONS}
    left_out = run.provenance["imported"]["problems"]
    assert any("between their least and greatest" in str(problem) for problem in left_out)


@pytest.mark.parametrize(
    "options",
    [
        {"runs": 5},
        {"runs": 5, "low": "least"},
        {"low": "least", "high": "most"},
        {"mean": True},
        {"runs": 5, "low": "least", "high": "most", "tuned": False},
        {"runs": 1, "low": "least", "high": "most"},
        {"runs": 5, "low": "least", "high": "most", "trial": "bs"},
    ],
)
def test_half_of_what_it_needs_is_refused_in_words(options: dict[str, object], tmp_path: Path) -> None:
    given: dict[str, object] = {"tuned": True, **options}
    with pytest.raises(DataError, match="--runs N, --low COL and --high COL"):
        import_curve(table(tmp_path), tmp_path / "run", batch_size="bs", steps="steps", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_column_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--steps", "steps", "--tuned", "--runs", "5", "--low", "fewest", "--high", "most"]
    call = ["import", "curve", str(table(tmp_path)), "-o", str(tmp_path / "run"), "--batch-size", "bs", *options]
    assert invoke(call) == MISUSE
    assert "fewest" in capsys.readouterr().err
