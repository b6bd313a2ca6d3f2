"""The ranks of ``torch.distributed``, where it is initialised: all come to the same decision, or all stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from batchscope.errors import ProbeError

Value = TypeVar("Value")


class Ranks:
    """This rank among all; alone where ``torch.distributed`` is not initialised."""

    def __init__(self) -> None:
        """Ask torch."""
        together = dist.is_available() and dist.is_initialized()
        self.size: int = dist.get_world_size() if together else 1
        self.rank: int = dist.get_rank() if together else 0

    @property
    def on_this_machine(self) -> int:
        """Ranks that share its memory: as torchrun says, else all of them."""
        told = os.environ.get("LOCAL_WORLD_SIZE", "")
        return int(told) if self.size > 1 and told.isdigit() and int(told) > 0 else self.size

    def device(self, device: str) -> str:
        """The device of this rank: ``cuda`` is the one that it has made its own."""
        if self.size > 1 and device == "cuda":
            return f"cuda:{torch.cuda.current_device()}"
        return device

    def gather(self, compute: Callable[[], Value]) -> list[Value]:
        """What every rank computed, in their order, on all of them.

        A rank that fails still takes part, so that no other waits for it for ever.

        Raises:
            ProbeError: If another rank failed; this rank's own failure is raised as it is.
        """
        if self.size == 1:
            return [compute()]
        mine: tuple[Any, str | None]
        failure: Exception | None = None
        try:
            mine = compute(), None
        except Exception as error:
            mine, failure = (None, f"{type(error).__name__}: {error}"), error
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, mine)
        if failure is not None:
            raise failure
        for rank, (_, words) in enumerate(everyone):
            if words is not None:
                raise ProbeError(f"rank {rank} could not go on: {words}")
        return [value for value, _ in everyone]
