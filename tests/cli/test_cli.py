"""The command line as a user meets it: exit statuses, messages, JSON, and interruption."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchscope.cli.main import DONE, FAILED, INTERRUPTED, MISUSE, VERBS, invoke

STUDY = """
workload: digits/softmax
batch_sizes: [16, 128]
search: {trials: 4, confirm: {seeds: 0}, space: {learning_rate: {min: 0.03, max: 1, scale: log}, momentum: 0.9}}
goals: ["validation/error < 0.15"]
budget: {epochs: 6}
engine: {program: vmap, pack_size: 4, threads: 1}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "study.yaml").write_text(STUDY)
    assert invoke(["run", str(folder / "study.yaml"), "-o", str(folder / "run"), "--workers", "0"]) == DONE
    return folder / "run"


def test_a_run_ends_with_curve_regimes_and_report(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    assert invoke(["run", str(study), "-o", str(finished), "--workers", "0"]) == DONE  # done already: only shown
    shown = capsys.readouterr()
    for expected in ("validation/error < 0.15", "perfect scaling until", "critical batch size", "report.html"):
        assert expected in shown.out
    assert "nothing is left to run in" in shown.err
    assert (finished / "report.html").stat().st_size > 10_000


def test_summary_and_analyze_are_the_same_document(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["analyze", str(finished), "--json"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((finished / "summary.json").read_text())
    assert document["schema"] == 1 and document["workload"] == "digits/softmax"
    curve = document["goals"][0]["curve"]
    assert [row["batch_size"] for row in curve] == [16, 128]
    for row in curve:
        if row["tuned"] is not None:
            assert row["tuned"]["low"] <= row["tuned"]["value"] <= (row["tuned"]["high"] or math.inf)
        assert row["expected_fewest"]["low"] <= row["expected_fewest"]["value"] <= row["expected_fewest"]["high"]
        assert set(row["hyperparameters"]) == {"learning_rate", "momentum"}
        assert row["reached"] <= row["feasible"] <= row["trials"]
    assert set(document["goals"][0]["regimes"]) >= {
        "perfect_scaling_until",
        "critical_batch_size",
        "maximum_useful_batch_size",
    }


def test_a_goal_that_no_trial_reached_has_null_steps(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["analyze", str(finished), "--goal", "validation/error < 0.0001", "--json"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert [row["steps"] for row in document["goals"][0]["curve"]] == [None, None]
    assert invoke(["analyze", str(finished), "--goal", "validation/error < 0.0001"]) == DONE


def test_a_run_is_repeated_with_the_choices_of_another(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    small = ["search.trials=1", "batch_sizes=[128]", "budget.epochs=1", "engine.pack_size=auto", "--workers", "0"]
    command = ["run", str(study), *small, "-o", str(tmp_path / "run"), "--replay-choices"]
    assert invoke([*command, str(finished)]) == DONE
    again = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert again["choices"] == {"128": json.loads((finished / "provenance.json").read_text())["choices"]["128"]}
    assert invoke(["run", str(study), "batch_sizes=[64]", "--dry-run", "--replay-choices", str(finished)]) == MISUSE
    assert "no choices for batch size 64 to replay, only for 16, 128" in capsys.readouterr().err


def test_what_does_not_fit_into_the_memory_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    for options in (["--dry-run"], ["-o", str(tmp_path / "run")]):
        assert invoke(["run", str(study), *options, "--max-memory", "64MiB"]) == MISUSE
        assert "--max-memory" in capsys.readouterr().err
    assert invoke(["run", str(study), "--dry-run", "--max-memory", "much"]) == MISUSE
    assert "write 8GiB" in capsys.readouterr().err
    assert invoke(["run", str(study), "--dry-run", "--max-memory", "64GiB"]) == DONE
    assert "x 1 thread," in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_status_shows_trials_and_best_steps(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["status", str(finished), "--json"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert document["driver"] is None
    assert sum(document["batch_sizes"][0]["trials"].values()) == 4
    assert invoke(["status", str(finished)]) == DONE
    assert "nobody is running it" in capsys.readouterr().out


def test_a_dry_run_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    assert invoke(["run", str(study), "-o", str(tmp_path / "run"), "--dry-run"]) == DONE
    shown = capsys.readouterr().out
    assert "Nothing was run" in shown and re.search(r"About [\d.]+ [MG]iB", shown) and "at most" in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["run", "none.yaml"], MISUSE, "no study file at none.yaml"),
        (["run", "bad.yaml"], MISUSE, "algoritm: unknown key; did you mean algorithm?"),
        (["run", "study.yaml", "search.trials=none"], MISUSE, "search.trials: must be a whole number"),
        (["run", "study.yaml", "workload=digits/softmx"], MISUSE, "digits/softmax"),
        (["run", "study.yaml", "workload=mnist/fc-8", "--data-dir", "empty"], FAILED, "empty"),
        (["run", "study.yaml", "--device", "tpu9"], MISUSE, "--device cpu"),
        (["run", "study.yaml", 'goals=["validation/accuracy > 0.9"]'], MISUSE, "does not measure validation/accuracy"),
        (["status", "empty"], FAILED, "is no run folder"),
        (["analyze", "empty"], FAILED, "is no run folder"),
        (["rnu"], MISUSE, "No such command"),
        (["run"], MISUSE, "Missing argument"),
    ],
)
def test_mistakes_are_answered_without_a_traceback(
    arguments: list[str],
    status: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "bad.yaml").write_text(STUDY + "algoritm: {}\n")
    assert invoke(arguments) == status
    shown = capfd.readouterr()
    assert expected in shown.err and "Traceback" not in shown.err and shown.out == ""


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert invoke([verb, "--help"]) == DONE
        assert "Usage" in capsys.readouterr().out


@pytest.mark.slow
def test_init_writes_a_workload_and_a_study_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["init", "mine.py"]) == DONE
    assert (
        invoke(["run", "mine.yaml", "search.trials=2", "batch_sizes=[64]", "budget.epochs=1", "--workers", "0"]) == DONE
    )
    assert "batch size" in capsys.readouterr().out
    assert invoke(["init", "mine.py"]) == MISUSE
    assert "is there already" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.replace("epochs: 6", "epochs: 400").replace("0.15", "0.001"))
    command = [sys.executable, "-m", "batchscope", "run", "study.yaml", "-o", "run", "--workers", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(600):
        if list((tmp_path / "run" / "trials").glob("*.parquet")) or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, shown
    assert "Go on with: batchscope run study.yaml -o run --workers 1" in shown and "Traceback" not in shown
    done = subprocess.run([*command, "budget.epochs=1"], cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == DONE, done.stderr
    assert "report: run/report.html" in done.stdout


def test_an_interrupted_verb_ends_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the version of typer makes of Ctrl-C: an exception, or a status without a word."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("batchscope.cli.workloads.names", interrupted)
    assert invoke(["workloads"]) == INTERRUPTED
    assert capsys.readouterr().err.strip() == "batchscope: interrupted"
