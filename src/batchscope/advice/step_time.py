"""Seconds of one weight update on N devices: what a probe measured on one, and the exchange of gradients.

Legend: N devices, B batch size over all of them, b = ceil(B/N) examples of the device that has most.

Synchronous data parallelism: every device computes the gradient of its own examples, the gradients are averaged, and
all devices make the same update. The update takes as long as b examples on one device, then the exchange.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from batchscope.amounts import bounds, number
from batchscope.errors import AnalysisError
from batchscope.spec.probe import Probe, ProbedBatch, Spread

_QUARTILES = 1.349  # the quartiles of a normal distribution are that many standard deviations apart
_CENTRAL_90 = 1.645


@dataclass(frozen=True)
class Link:
    """What joins the devices.

    Attributes:
        bandwidth: GB/s (10^9 bytes) that every device sends to its neighbour, and receives from the other, at once;
            None where bytes are taken as free.
        latency: Microseconds from one device to its neighbour, however little is sent.
    """

    bandwidth: float | None = None
    latency: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no bandwidth or latency."""
        if self.bandwidth is not None and not 0 < self.bandwidth < math.inf:
            raise AnalysisError(f"a bandwidth is above 0 GB/s, got {self.bandwidth:g}: --bandwidth 25, say")
        if not 0 <= self.latency < math.inf:
            raise AnalysisError(f"a latency is at least 0 microseconds, got {self.latency:g}: --latency 5, say")

    def all_reduce(self, size: int, devices: int) -> float:
        """Seconds to sum ``size`` bytes over ``devices`` by the ring algorithm; 0 for one device.

        2 (N - 1) messages of size/N bytes follow each other, half of them to sum and half to share the sums
        (Patarasuk & Yuan 2009): 2 (N-1)/N size/bandwidth + 2 (N-1) latency.
        """
        messages = 2 * (devices - 1)
        transfer = 0.0 if self.bandwidth is None else size / devices / (self.bandwidth * 1e9)
        return messages * (transfer + self.latency * 1e-6)


@dataclass(frozen=True)
class StepTime:
    """One update of one device, without communication.

    Attributes:
        seconds: The median.
        deviation: Standard deviation of its logarithm: what is not known of it.
        micro_batch_size: Examples of one forward and backward pass.
        accumulation_steps: Passes in one update.
        measured: Whether this very size was measured; else the probe's time model tells it.
        beyond: Whether the size lies outside those that were measured.
    """

    seconds: float
    deviation: float
    micro_batch_size: int
    accumulation_steps: int
    measured: bool = True
    beyond: bool = False


def step_time(probe: Probe, examples: int, *, extrapolate: bool = False) -> StepTime:
    """Of an update with ``examples`` on one device: as measured, else by the time model within its range.

    The error of a measured time is the spread of the single updates: that their mean is known better is no help where
    a machine is slower on another day. That of the model is in addition its largest error at a measured size that was
    left out, taken as the half-width of a 90% interval. A probe of several ranks tells what each did with its share.

    Raises:
        AnalysisError: If no micro batch fits, or the size is outside the measured ones and ``extrapolate`` is not set.
    """
    whole = examples * probe.world_size  # ranks that measured together had equal shares of every batch
    row = next((row for row in probe.batches if row.batch_size == whole), None)
    if row is not None and row.step and row.micro_batch_size and row.accumulation_steps:
        return StepTime(row.step.median, _deviation(row.step), row.micro_batch_size, row.accumulation_steps)
    if row is not None:
        raise AnalysisError(f"{examples} examples do not fit on a device: {row.reason or 'nothing was measured'}")
    known, model = _known(probe), probe.time_model
    if not known or model is None:
        raise AnalysisError(f"the probe did not measure {examples} examples, and has too few sizes for a time model")
    beyond = not model.smallest <= whole <= model.largest
    if beyond and not extrapolate:
        smallest, largest = (size / probe.world_size for size in (model.smallest, model.largest))
        raise AnalysisError(
            f"{number(examples)} examples on a device are outside what the probe measured, {bounds(smallest, largest)}"
        )
    # A pass holds at most what was really run in one; how many passes an update needs follows from that.
    largest = max(row.micro_batch_size or 1 for row in known)
    passes = -(-examples // largest)
    spread = float(np.median([_deviation(row.step) for row in known if row.step]))
    error = math.hypot(math.log1p(model.error) / _CENTRAL_90, spread)
    return StepTime(model.seconds(whole), error, -(-examples // passes), passes, False, beyond)


def loading_share(probe: Probe) -> float:
    """How much longer the worst measured update is where the device waits for its data: 0.2 is 20%."""
    both = [(row.step, row.step_with_data) for row in _known(probe)]
    return max((other.median / step.median - 1 for step, other in both if step and other), default=0.0)


def shares(probe: Probe) -> list[int]:
    """How many examples a device had in every update that was timed, ascending."""
    return [row.batch_size // probe.world_size for row in _known(probe)]


def _known(probe: Probe) -> list[ProbedBatch]:
    return [row for row in probe.batches if row.step is not None]


def _deviation(spread: Spread) -> float:
    return math.log(spread.high / spread.low) / _QUARTILES if spread.high > spread.low else 0.0
