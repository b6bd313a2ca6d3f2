"""Seconds of a piece of work: the device is waited for, warm-up is the caller's, and many blocks give a spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

# Throughput within this share of the best is as good as the best.
NEAR_BEST = 0.1


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles of some times in seconds."""

    median: float
    low: float
    high: float


def quartiles(samples: Sequence[float]) -> Quartiles:
    """Of at least one sample; between two of them, linear."""
    low, median, high = np.quantile(np.asarray(samples, dtype=np.float64), [0.25, 0.5, 0.75])
    return Quartiles(float(median), float(low), float(high))


def clock(device: torch.device) -> float:
    """Seconds of a clock, once everything that was queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_per_call(work: Callable[[], object], calls: int, device: torch.device) -> float:
    """The mean over a block of calls, between two waits for the device."""
    started = clock(device)
    for _ in range(calls):
        work()
    return (clock(device) - started) / calls


def saturation(seconds: Mapping[int, float]) -> int | None:
    """The smallest batch size whose examples per second are within a tenth of the best.

    Args:
        seconds: Batch size to seconds of one update.

    Returns:
        None if only the largest one is, so that more would still help, or if there are fewer than two.
    """
    rates = {size: size / time for size, time in seconds.items()}
    if len(rates) < 2:
        return None
    first = min(size for size, rate in rates.items() if rate >= (1 - NEAR_BEST) * max(rates.values()))
    return first if first < max(rates) else None
