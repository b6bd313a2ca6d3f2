"""What a probe asks of a device, and the answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What is known of a workload and its device once it is loaded; ``cuda_name`` is None on a CPU."""

    train_size: int | None
    parameters: int
    gradient_bytes: int
    cuda_name: str | None


@dataclass(frozen=True)
class Attempt:
    """The request to run a few updates of ``share`` examples, ``micro_batch_size`` at a time."""

    share: int
    micro_batch_size: int


@dataclass(frozen=True)
class Visit:
    """The request to time a block of updates, and one with data loading."""

    share: int
    micro_batch_size: int
    updates: int
    with_data: bool


@dataclass(frozen=True)
class Fits:
    """An attempt that ran.

    Attributes:
        seconds: Of its last update.
        fetch_seconds: About what fetching the examples of one update takes.
        peak_bytes: None where the device does not tell.
    """

    seconds: float
    fetch_seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Timed:
    """A visit that ran: seconds of an update in each block, and of the whole visit."""

    step: float
    step_with_data: float | None
    spent: float


@dataclass(frozen=True)
class DoesNotFit:
    """Memory was not enough."""

    reason: str


@dataclass(frozen=True)
class Fails:
    """The update cannot be computed at this batch size, however much memory there is."""

    reason: str


Request = Attempt | Visit
Reply = Fits | Timed | DoesNotFit | Fails
