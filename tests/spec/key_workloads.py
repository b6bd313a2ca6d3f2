"""Workloads that some keys of a study need, in a few lines."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

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
