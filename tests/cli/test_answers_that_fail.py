"""One goal, or one analysis, without an answer: it is named with its reason, and costs the others nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchscope.analysis import questions
from batchscope.analysis.question import Given, Question
from batchscope.cli.main import DONE, FAILED, MISUSE, invoke

GOALS = ("validation/loss < 0.6", "validation/error < 0.3")


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """Rates as trackers have them: 0 for a schedule of its own, and a word; one goal on a metric nobody measured."""
    rows = [
        f"{size},{size}-{trial},{step},{1 - step * (trial + 1) / 100},{rate}"
        for size in (32, 64, 128)
        for trial, rate in enumerate(("auto", "0", "0.1"))
        for step in (10, 20, 30, 40, 50)
    ]
    (tmp_path / "data.csv").write_text("\n".join(["bs,run,step,loss,lr", *rows]))
    options = "--batch-size bs --trial run --step step --metric validation/loss=loss --hyperparameter learning_rate=lr"
    command = ["import", "csv", str(tmp_path / "data.csv"), "-o", str(tmp_path / "run"), *options.split()]
    assert invoke([*command, "--goal", GOALS[0]]) == DONE
    return tmp_path / "run"


def test_rates_that_are_no_numbers_cost_their_analyses_only(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert invoke(["analyze", str(imported), "--json"]) == DONE
    analyses = json.loads(capsys.readouterr().out)["goals"][0]["analyses"]
    for name in ("learning_rate_rules", "learning_rate_rules_break", "stability"):
        assert "learning rates that are numbers above 0, got 0, 0.1, auto" in analyses[name]["refused"]
    assert isinstance(analyses["expected_steps"], list) and isinstance(analyses["contour"], list)
    assert invoke(["analyze", str(imported), "--all"]) == DONE
    assert "not answered by this run (analyze --json says why)" in capsys.readouterr().out
    assert invoke(["report", str(imported)]) == DONE
    page = (imported / "report.html").read_text()
    assert "Stability: a map of base rates needs learning rates that are numbers above 0" in page
    assert invoke(["recommend", str(imported)]) == DONE


def test_an_analysis_that_fails_is_named_and_costs_nothing_else(
    imported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(given: Given) -> object:
        return 1 / 0

    row = Question("broken", broken, lambda result: result, {"broken": "table"})
    monkeypatch.setattr(questions, "QUESTIONS", (row, *questions.QUESTIONS[-1:]))
    capsys.readouterr()
    assert invoke(["analyze", str(imported)]) == FAILED
    shown = capsys.readouterr().out
    assert "broken: failed (ZeroDivisionError: division by zero)" in shown and "critical batch size" in shown
    assert invoke(["analyze", str(imported), "--json"]) == FAILED
    document = json.loads(capsys.readouterr().out)["goals"][0]
    assert document["analyses"]["broken"] == {"refused": "failed (ZeroDivisionError: division by zero)"}
    assert document["curve"] and document["analyses"]["contour"]
    assert invoke(["report", str(imported)]) == FAILED
    assert "broken: failed (ZeroDivisionError" in capsys.readouterr().err
    page = (imported / "report.html").read_text()
    assert "Broken: failed (ZeroDivisionError: division by zero)." in page and "by batch size and steps" in page


def test_a_goal_without_a_curve_is_named_and_costs_nothing_else(
    imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = imported / "study.yaml"
    study.write_text(study.read_text().replace(GOALS[0], f"{GOALS[1]}\n- {GOALS[0]}"))
    capsys.readouterr()
    assert invoke(["analyze", str(imported)]) == FAILED
    shown = capsys.readouterr().out
    assert f"{GOALS[1]} has no answer: a goal needs a metric that the run measured" in shown
    assert "critical batch size" in shown
    assert invoke(["analyze", str(imported), "--json"]) == FAILED
    without, other = json.loads(capsys.readouterr().out)["goals"]
    assert "validation/error" in without["refused"] and other["curve"][0]["steps"]
    assert invoke(["report", str(imported)]) == FAILED
    assert "Goals without an answer" in (imported / "report.html").read_text()
    assert invoke(["analyze", str(imported), "--goal", GOALS[1]]) == MISUSE
