"""A goal that nothing comes to, and training that diverges everywhere: said while the run goes on, and at its end."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import nn

import batchscope as bs
from batchscope.analysis.reach import diverging
from batchscope.runs import Progress
from batchscope.spec.study import Study

STUDY = """
workload: mine
algorithm: {optimizer: sgd}
batch_sizes: [8, 16]
search: {trials: 4, space: {learning_rate: [0.1, 0.2]}}
goals: ["validation/loss < 1e-30"]
budget: {steps: 12}
engine: {program: loop, pack_size: 4, threads: 1}
"""


def workload(factor: float = 1.0) -> bs.Workload:
    data = (torch.linspace(-1, 1, 32)[:, None], torch.zeros(32, 1))
    return bs.Workload(
        model=lambda: nn.Linear(1, 1),
        loss=lambda outputs, targets: factor * ((outputs - targets) ** 2).mean(-1),
        train=data,
        validation=data,
        metrics={"positive": lambda outputs, targets: (outputs > 0).float().mean(-1)},
        version="1",
    )


def ran(folder: Path, factor: float = 1.0, *overrides: str) -> tuple[bs.Run, list[Progress]]:
    seen: list[Progress] = []
    result = bs.run(Study.from_text(STUDY, overrides), folder, workload=workload(factor), on_progress=seen.append)
    return result, seen


def test_a_goal_out_of_reach_is_told_with_the_best_value(tmp_path: Path) -> None:
    result, seen = ran(tmp_path / "run")
    assert seen[0].remarks == () and len(seen[-1].remarks) == 2
    assert seen[-1].remarks[0].startswith("no trial at batch size 8 reached validation/loss < 1e-30; the best")
    best = result.measurements.select(pl.col("validation/loss").min()).collect().item()
    (note,) = [note for note in result.steps_to_result().notes if "best validation/loss" in note]
    assert f"was {best:.4g}, at batch size" in note and "train longer (budget)" in note
    assert note in json.loads((tmp_path / "run" / "summary.json").read_text())["goals"][0]["notes"]
    assert "train longer (budget)" in (tmp_path / "run" / "report.html").read_text()


def test_training_that_diverges_everywhere_is_told_early(tmp_path: Path) -> None:
    result, seen = ran(tmp_path / "run", factor=float("nan"))
    told = [progress for progress in seen if any("have diverged so far" in remark for remark in progress.remarks)]
    assert told
    assert any("no validation/loss was a finite number" in note for note in result.steps_to_result().notes)


def test_where_every_trial_diverges_nobody_is_told_to_train_longer(tmp_path: Path) -> None:
    result, _ = ran(tmp_path / "run", float("nan"), "goals=['validation/positive > 0.9']")
    (note,) = [note for note in result.steps_to_result().notes if "best validation/positive" in note]
    assert "every trial diverged after that: is the loss a number?" in note and "train longer" not in note


@pytest.mark.parametrize(("trials", "diverged", "said"), [(8, 7, False), (20, 9, False), (16, 8, True), (8, 8, True)])
def test_it_takes_eight_and_half_of_all(trials: int, diverged: int, said: bool) -> None:
    assert (diverging(trials, diverged) is not None) == said
