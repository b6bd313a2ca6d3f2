"""A learning-rate schedule that is a function of the user's, of the step and of how many there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from batchscope import user_file
from batchscope.errors import ScheduleError
from batchscope.schedules.learning_rate import Schedule, require_positive


@dataclass(frozen=True)
class Function(Schedule):
    """d(t) = function(t, total_steps): a number, at least 0.

    Attributes:
        function: Of the 0-based step, a whole number, and of ``total_steps``.
        total_steps: Of the training.
    """

    function: Callable[[int, int], float]
    total_steps: int

    def __post_init__(self) -> None:
        """Check the steps."""
        require_positive(self, total_steps=self.total_steps)

    @property
    def knots(self) -> tuple[float, ...]:
        """None that are known."""
        return ()

    def _at(self, t: Tensor) -> Tensor:
        factors = [self._one(int(step)) for step in t.flatten().tolist()]
        return torch.tensor(factors, dtype=t.dtype, device=t.device).reshape(t.shape)

    def _one(self, step: int) -> float:
        found: Any = self.function(step, self.total_steps)
        try:
            factor = float(found)
        except (TypeError, ValueError):
            factor = math.nan
        if not 0 <= factor < math.inf:
            raise ScheduleError(
                f"{self.function!r}({step}, {self.total_steps}) must give a factor of the learning rate, at least 0 "
                f"and finite, got {found!r}"
            )
        return factor


@dataclass(frozen=True)
class FileFunction:
    """The function that ``path/to/file.py:name`` names, which is loaded when it is called; written as its name."""

    reference: str

    def __repr__(self) -> str:
        """As in a program that has imported it."""
        return self.reference.rpartition(":")[2]

    def __call__(self, step: int, total_steps: int) -> float:
        """What the function gives.

        Errors:
            WorkloadError: If it is not there, or fails.
        """
        path, name = user_file.parted(self.reference)
        function = _function(self.reference, path.stat().st_mtime_ns if path.is_file() else 0)
        with user_file.named_failure(path, f"{name}({step}, {total_steps}) failed"):
            return function(step, total_steps)


@lru_cache(maxsize=16)
def _function(reference: str, written_at: int) -> Callable[[int, int], float]:
    found = user_file.member(reference, "schedule")
    if not callable(found):
        raise ScheduleError(
            f"algorithm.learning_rate_schedule: {reference} must be a function (step, total_steps), got {found!r}"
        )
    return found  # type: ignore[no-any-return]
