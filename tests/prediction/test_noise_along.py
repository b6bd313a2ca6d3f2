"""The noise scale along a training: exact moments of the noisy quadratic, and the average that it makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from batchscope.engine.pack import Pack
from batchscope.engine.training import Loaded, Training
from batchscope.prediction.noise_along import critical_batch_size, noise_along, stretches
from batchscope.runs.one_training import TrainingRequest, training_of


@pytest.mark.parametrize("source", ["signs", "hessian"])
def test_noise_and_signal_are_those_of_the_quadratic(source: str) -> None:
    """At the start, theta = 1: gradients have the mean h and the covariance h, h_i = 1/i."""
    one, workload = training_of(TrainingRequest("noisy_quadratic/6", 8, "sgd", 0.1, steps=10))
    training = Training(Loaded(workload, one.study, torch.device("cpu"), drawn_at_once=8), 8)
    start = Pack.fresh(training, [one.trial(0)])
    noise, signal = noise_along(training, [start] * 12, source, 64)  # type: ignore[arg-type]
    h = 1 / np.arange(1.0, 7)
    weight = h if source == "hessian" else np.ones(6)
    for found, exact in ((noise, (weight * h).sum()), (signal, (weight * h * h).sum())):
        error = found.std(ddof=1) / np.sqrt(found.size)
        assert found.mean() == pytest.approx(exact, abs=4 * error)
        assert error < 0.15 * exact


def test_one_noise_scale_throughout_is_the_critical_batch_size() -> None:
    noise, signal = np.full((3, 4), 60.0), np.full((3, 4), 2.0)
    found = critical_batch_size(noise, signal, np.array([1.0, 5.0, 20.0]), 8)
    assert [found.value, found.low, found.high] == pytest.approx([30, 30, 30])


def test_the_average_gives_the_steps_of_every_batch_size() -> None:
    """Stretches of m_i steps without noise take m_i (1 + B_i / B): the law with B_crit has their sum at any B."""
    whole, scales, base = np.array([10.0, 20.0, 5.0]), np.array([2.0, 20.0, 200.0]), 16
    steps = whole * (1 + scales / base)
    found = critical_batch_size(np.tile(scales[:, None], 3), np.ones((3, 3)), steps, base).value
    assert found is not None
    for size in (1, 16, 500):
        exact = (whole * (1 + scales / size)).sum()
        assert steps.sum() * (1 + found / size) / (1 + found / base) == pytest.approx(exact)


def test_a_checkpoint_without_a_signal_adds_noise_and_leaves_the_rest_open() -> None:
    rng = np.random.default_rng(0)
    signal = np.stack([np.full(16, 1.0), rng.normal(0, 1, 16)])
    found = critical_batch_size(np.full((2, 16), 10.0), signal, np.array([10.0, 10.0]), 8)
    assert found.value is not None and found.low is not None and found.high is not None
    assert 10 < found.low < found.value <= found.high
    nothing = critical_batch_size(np.full((1, 16), 10.0), np.full((1, 16), -1.0), np.array([10.0]), 8)
    assert nothing.value is None and nothing.high is None


def test_checkpoints_stand_for_the_steps_around_them() -> None:
    packs = [Pack((), {}, step) for step in (0, 2, 6, 10)]
    assert stretches(packs).tolist() == [1, 3, 4, 2]
