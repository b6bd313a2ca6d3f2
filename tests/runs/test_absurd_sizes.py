"""A model that no memory holds is refused at the line that asks for it, before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from batchscope.machine.allocation import Bounded

MIB = 2**20


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
