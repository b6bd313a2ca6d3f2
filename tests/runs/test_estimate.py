"""What a study would cost is said in seconds, however long its steps take."""

from __future__ import annotations

import time
from functools import partial

import pytest
from torch import Tensor

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
    for row in found.rows:  # a step sleeps for so long, and computes almost nothing beside it
        least = row.trials * row.steps * row.batch_size * seconds
        assert row.train_seconds >= 0.99 * least
