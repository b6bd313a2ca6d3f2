"""Randomness inside a step, such as dropout: keyed by the step, and shared by all trials of a replicate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from batchscope.engine.training import Training
from batchscope.seeds import keeping_python, key, seed_python


def seed_step(training: Training, step: int, *, python: bool = False) -> None:
    """Seed the global generators for one step: torch's of the training's device, and Python's and numpy's where
    asked.
    """
    _seed(training, key(training.loaded.study.seed, "step", training.replicate, step), python)


def seed_part(training: Training, place: int, *, python: bool = False) -> None:
    """Seed them for the evaluation of the validation examples from a place on."""
    _seed(training, key(training.loaded.study.seed, "evaluation", place), python)


def _seed(training: Training, seed: int, python: bool) -> None:
    device = training.loaded.device
    if python:
        seed_python(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def keeping_generators(device: torch.device) -> Iterator[None]:
    """Leave the global generators as they were found."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with keeping_python(), torch.random.fork_rng(devices=devices):
        yield
