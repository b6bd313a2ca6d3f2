"""A model that no memory holds is refused at the line that asks for it, and a data set before it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from batchscope import runs
from batchscope.errors import StudyError
from batchscope.machine.allocation import Bounded
from batchscope.runs.estimate import estimate
from engine.workbench import classification, study

MIB = 2**20


class Endless(Dataset[tuple[torch.Tensor, int]]):
    """So many examples, of which none is read before it is asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(6), index % 3


@pytest.mark.parametrize("role", ["train", "validation", "test"])
def test_a_dataset_that_no_memory_holds_is_refused_before_it_is_read(role: str, tmp_path: Path) -> None:
    # Held-out examples are read once, and for those that are trained on an order is drawn.
    workload = replace(classification(), **{role: Endless(2**40)})  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="needs about [0-9.]+ [TP]iB"):
        runs.run(study(), tmp_path / "run", workload=workload)
    fits = replace(classification(), **{role: Endless(300)})  # type: ignore[arg-type]
    assert estimate(study("engine.program=loop"), workload=fits).rows


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Linear(8, 10**9),
        lambda: nn.Embedding(10**9, 64),
        lambda: nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(10))),  # 16 MiB each
        lambda: torch.randn(10**10),
        lambda: torch.full((10**6, 10**6), 1.0),
        lambda: torch.zeros(2**30, dtype=torch.uint8),
    ],
)
def test_what_does_not_fit_is_refused(build: Callable[[], object]) -> None:
    with pytest.raises(MemoryError, match=r"where 100 MiB are free"), Bounded(100 * MIB):
        build()


def test_what_fits_is_built_with_the_same_numbers() -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(512, 512), nn.LSTM(512, 64), nn.Conv2d(3, 8, 3))

    with Bounded(100 * MIB):
        inside = build()
    for ours, theirs in zip(inside.parameters(), build().parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with Bounded(100 * MIB):
        torch.ones(1000).expand(10**6, 1000).sum(0)  # what is not made anew takes nothing
