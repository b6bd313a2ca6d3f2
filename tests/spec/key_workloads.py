"""Workloads that some keys of a study need, in a few lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import batchscope as bs
from batchscope import workloads


def batch_norm() -> bs.Workload:
    """The digits with a batch norm, which ghost batches are for."""
    net = nn.Sequential
    return replace(
        workloads.load("digits/softmax"),
        model=lambda: net(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10)),
        version="1",
    )


class Decayed(torch.optim.Optimizer):
    """Steps along an average of the gradients, and decays the weights at every other step."""

    def __init__(self, params: Iterable[Tensor], lr: float, strength: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "strength": strength, "seen": 0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the weights."""
        for group in self.param_groups:
            group["seen"] += 1
            for parameter in (parameter for parameter in group["params"] if parameter.grad is not None):
                state = self.state[parameter]
                average = state.setdefault("average", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 0.5)
                if group["seen"] % 2:
                    parameter.mul_(1 - group["lr"] * group["strength"])
                parameter.add_(average, alpha=-group["lr"])


class Needy(Decayed):
    """The same, with a number that must be given."""

    def __init__(self, params: Iterable[Tensor], lr: float, strength: float) -> None:
        super().__init__(params, lr, strength)


def convolution() -> bs.Workload:
    """The digits with a convolution, which has channels to lay out last."""
    net = nn.Sequential
    return replace(
        workloads.load("digits/softmax"),
        model=lambda: net(nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 4, 3, stride=2), nn.Flatten(), nn.Linear(36, 10)),
        version="1",
    )


def falling(step: int, total_steps: int) -> float:
    """From 1 to nearly 0."""
    return 1 - step / total_steps
