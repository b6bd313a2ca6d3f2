"""Runs killed with SIGKILL, from outside and inside: the end is the undisturbed end, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchscope import runs
from batchscope.runs import driver
from batchscope.spec.study import Study
from batchscope.store.disk import Files
from engine.workbench import classification, study
from runs import killing
from runs.killing import FOLDER, PHASES, Plan
from runs.same import assert_same_run

STUDY = """
workload: noisy_quadratic/8
algorithm: {optimizer: sgd}
batch_sizes: [4, 16]
search:
  trials: 4
  space: {learning_rate: {min: 0.005, max: 0.02, scale: log}}
  widen: {edge: 0.3, rounds: 1}
  confirm: {seeds: 1}
goals: ["validation/loss < 0.3"]
budget: {steps: 120}
engine: {program: loop, pack_size: 2, threads: 1}
"""
HOOKED, PLAIN = [killing.__file__], ["-m", "batchscope"]


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.slow
def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    """The command itself: its process group killed at once at any time, and driver or workers inside every phase."""
    kills = 10
    (tmp_path / "study.yaml").write_text(STUDY)
    runs.run(Study.from_text(STUDY), tmp_path / "undisturbed", workers=0)
    plan, generator = Plan.make(tmp_path / "plan", seed=kills), random.Random(kills)
    environment = os.environ | {FOLDER: str(tmp_path / "plan"), "OMP_NUM_THREADS": "1"}
    outside = finished = 0
    while True:
        done = outside + len(plan.deaths())
        plan.among(list(PHASES) if done < kills else [])
        from_outside = done % 2 == 0 and done < kills
        command = [sys.executable, *(PLAIN if from_outside else HOOKED), "run", "study.yaml", "--workers", "2"]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "-o", f"run-{finished}"],
                cwd=tmp_path,
                env=environment,
                start_new_session=True,
                stdout=log,
                stderr=log,
            )
        if from_outside:
            moment = generator.uniform(1, 5)
            time.sleep(moment)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                outside += 1
        status = process.wait(timeout=120)
        assert status in {0, -signal.SIGKILL}, (tmp_path / "log").read_text()
        if status == 0:
            assert_same_run(tmp_path / f"run-{finished}", tmp_path / "undisturbed")
            finished += 1
            if done >= kills:
                return


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the soak forks a process that has imported everything")
def test_a_handful_of_kills_of_the_soak(tmp_path: Path) -> None:
    soak = Path(__file__).parents[2] / "benchmarks" / "soak.py"
    command = [sys.executable, str(soak), "--kills", "5", "--study", "race"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["differences"] == 0 and result["kills"] >= 5
    assert sum(result["by_phase"].values()) == sum(result["by_victim"].values()) == result["kills"]


class KilledError(BaseException):
    """Stands for the death of the process: nothing in the package may catch it for good."""


class Disk:
    """Counts the primitives of the file layer; after ``most`` of them nothing reaches the disk any more."""

    def __init__(self, patch: pytest.MonkeyPatch, most: int = 10**9) -> None:
        self.count = 0
        for name in ("_write", "_rename", "_sync", "_unlink"):
            patch.setattr(Files, name, self._counted(getattr(Files, name), most))

    def _counted(self, primitive: object, most: int) -> object:
        def counted(files: Files, *arguments: object) -> None:
            self.count += 1
            if self.count > most:
                raise KilledError
            primitive(files, *arguments)  # type: ignore[operator]

        return counted


def drive(folder: Path) -> None:
    found = study(
        "engine.program=loop",
        "engine.pack_size=2",
        "search.trials=3",
        "batch_sizes=[8, 16]",
        "search.confirm.seeds=1",
        "search.widen={edge: 0.3, rounds: 1}",
        "budget.steps=30",
    )
    runs.run(found, folder, workload=classification())


@pytest.mark.usefixtures("without_page")
@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_death_between_any_two_system_calls_of_a_run(
    tmp_path: Path, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr("batchscope.executors.worker.CHECKPOINT_SECONDS", 0.0)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        drive(tmp_path / "undisturbed")
    moments = range(0, disk.count, max(1, disk.count // kills))
    assert disk.count > 100
    for moment in moments:
        folder = tmp_path / str(moment)
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, moment)
            # How many calls a run makes differs by a few, with what its clock groups: near the end it may be alive.
            with pytest.raises(KilledError):
                drive(folder)
                if disk.count <= moment:
                    raise KilledError
        drive(folder)
        assert_same_run(folder, tmp_path / "undisturbed")
