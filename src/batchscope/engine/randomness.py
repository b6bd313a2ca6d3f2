"""Randomness inside a step, such as dropout: keyed by the step, and shared by all trials of a replicate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from batchscope.engine.training import Cell
from batchscope.seeds import key


def seed_step(cell: Cell, step: int) -> None:
    """Seed torch's global generator of the cell's device for one step."""
    seed = key(cell.loaded.study.seed, "step", cell.replicate, step)
    device = cell.loaded.device
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def keeping_generators(device: torch.device) -> Iterator[None]:
    """Leave the global generators as they were found."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
