"""A second run of a finished study: the same answer without torch, and every reason for which a driver looks again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batchscope import runs
from batchscope.cli.main import DONE, invoke
from batchscope.runs import finished_run
from batchscope.spec.study import Study
from runs.same import tables

FILE = """\
import torch
import batchscope as bs
DATA = torch.arange(8.0).reshape(8, 1) / 8, torch.zeros(8)
def make():
    return bs.Workload(lambda: torch.nn.Linear(1, 1), lambda o, t: (o[:, 0] - t) ** 2, DATA, DATA)
"""
STUDY = """\
workload: mine.py:make
batch_sizes: [2, 4]
search: {trials: 2, space: {learning_rate: {min: 0.1, max: 0.5}, momentum: 0}}
goals: ["validation/loss < 0.1"]
budget: {steps: 20}
engine: {program: loop}
"""
AGAIN = """\
import sys
from batchscope.cli.main import invoke
status = invoke(["run", "study.yaml"])
heavy = {"torch", "sklearn", "scipy.stats", "batchscope.executors.local"} & set(sys.modules)
sys.exit(f"it loads {heavy}" if heavy else status)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with a finished run, whose answer is captured."""
    assert capsys.readouterr().out == ""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(FILE)
    Path("study.yaml").write_text(STUDY)
    assert invoke(["run", "study.yaml", "--workers", "0"]) == DONE
    return tmp_path / "runs/study"


def test_the_same_answer_without_torch_data_and_workers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, summary = capsys.readouterr().out, (here / "summary.json").read_bytes()
    (here / "report.html").unlink()
    again = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=False)
    assert again.returncode == DONE, again.stderr
    assert again.stdout == first and "nothing is left to run in runs/study" in again.stderr
    assert (here / "summary.json").read_bytes() == summary and (here / "report.html").exists()


def test_a_driver_looks_again_where_anything_changed(here: Path) -> None:
    study = Study.from_text(STUDY)
    assert finished_run(study, here) and finished_run(study, here, "cpu")
    assert finished_run(study, here, "cuda") is None
    assert finished_run(Study.from_text(STUDY, ["seed=1"]), here) is None
    assert finished_run(study, here / "other") is None
    Path("mine.py").write_text(FILE + "# a comment\n")
    assert finished_run(study, here)
    for other in (FILE.replace("** 2", "** 4"), "def make(:\n", None):
        Path("mine.py").unlink() if other is None else Path("mine.py").write_text(other)
        assert finished_run(study, here) is None
    Path("mine.py").write_text(FILE)
    (here / "provenance.json").write_text('{"schema": 1, "finished": [], "device": 3}')
    assert finished_run(study, here) is None


@pytest.mark.parametrize("folder", ["trials", "measurements"])
def test_what_is_lost_is_computed_again(folder: str, here: Path) -> None:
    study, before = Study.from_text(STUDY), tables(here)
    next((here / folder).iterdir()).unlink()
    assert finished_run(study, here) is None
    runs.run(study, here, workers=0)
    assert finished_run(study, here)
    assert all(ours.equals(theirs) for ours, theirs in zip(before, tables(here), strict=True))
