"""Times, quartiles and where more batch no longer helps."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from batchscope.probing.throughput import quartiles, saturation, seconds_per_call


def test_quartiles_are_those_of_the_samples() -> None:
    samples = np.random.default_rng(0).exponential(size=101)
    found = quartiles(list(samples))
    ordered = np.sort(samples)
    assert (found.low, found.median, found.high) == pytest.approx((ordered[25], ordered[50], ordered[75]))
    one = quartiles([2.0])
    assert one.low == one.median == one.high == 2.0


def test_seconds_are_those_of_one_call() -> None:
    found = seconds_per_call(lambda: time.sleep(0.01), 3, torch.device("cpu"))
    assert 0.01 <= found < 0.1


def test_saturation_is_the_first_batch_size_near_the_best() -> None:
    rates = {1: 100.0, 8: 700.0, 64: 950.0, 512: 1000.0, 1024: 980.0}
    assert saturation({size: size / rate for size, rate in rates.items()}) == 64
    falling = {1: 100.0, 8: 90.1, 64: 10.0}
    assert saturation({size: size / rate for size, rate in falling.items()}) == 1
    rising = {1: 100.0, 8: 700.0, 64: 1000.0}
    assert saturation({size: size / rate for size, rate in rising.items()}) is None
    assert saturation({8: 1.0}) is None


@pytest.mark.gpu
def test_the_device_is_waited_for() -> None:
    """Queueing a product takes microseconds; at the H100's peak of 67 TFLOP/s in float32 this takes 2 ms."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")
    matrix = torch.randn(4096, 4096, device=device)
    seconds_per_call(lambda: matrix @ matrix, 3, device)
    assert seconds_per_call(lambda: matrix @ matrix, 1, device) > 2e-4
