"""What a study would cost is said in seconds, however long its steps take."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from batchscope import runs
from batchscope.runs.estimate import estimate
from engine.workbench import Plain, classification, study


class Slow(Plain):
    """Takes so many seconds for an example."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(self.seconds * len(inputs))
        return super().forward(inputs)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.002, 0.01, 0.05])
def test_a_dry_run_answers_within_ten_seconds(seconds: float) -> None:
    asked = study("batch_sizes=[8, 32, 128, 512]", "budget.steps=4000", "engine={program: auto}")
    started = time.perf_counter()
    found = estimate(asked, workload=classification(partial(Slow, seconds)))
    assert time.perf_counter() - started < 10
    # A step sleeps for so long, and computes almost nothing beside it; a graph, where there was time for one, does not.
    slept = [row for row in found.rows if row.choice.program == "loop"]
    assert slept or seconds < 0.05
    for row in slept:
        assert row.train_seconds >= 0.99 * row.trainings * row.steps * row.batch_size * seconds


def test_trainings_again_count_as_a_run_may_take_them(tmp_path: Path) -> None:
    changes = ["batch_sizes=[8, 32]", "search.trials=3", "search.confirm={seeds: 2, candidates: 2}", "budget.steps=30"]
    changes += ["engine.program=loop"]
    asked = study(*changes, "policy=full", 'goals=["validation/error < 0.99", "validation/error < 0.98"]')
    found = estimate(asked, workload=classification())
    run = runs.run(asked, tmp_path / "run", workload=classification())
    for row in found.rows:
        trained = run.trials.filter(batch_size=row.batch_size)
        assert row.trials == 3 == len(trained.filter(replicate=0))
        assert row.confirmations == 2 * 3 >= len(trained) - 3 > 0  # two candidates of each goal, of three points
