"""Discarding the examples of a batch that have the smallest losses (GZ20 section 3.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from batchscope.errors import ScheduleError
from batchscope.schedules.learning_rate import Number, holds


@dataclass(frozen=True)
class SmallLossDiscard:
    """Weights that drop the ``fraction`` smallest losses of each batch during the first ``epochs``.

    GZ20 drops 30% for 100 epochs. The mean is then over the examples that are left, which is how we read
    "discard"; the paper does not say. Both values may be tensors, one for each trial, and nothing depends
    on data but the
    values: the same shapes whatever is dropped, so that it runs under ``torch.func.vmap``.

    Raises:
        ScheduleError: At birth, unless 0 <= fraction < 1 and epochs >= 0.
    """

    fraction: Number
    epochs: Number = math.inf

    def __post_init__(self) -> None:
        """Check both."""
        if not holds((self.fraction >= 0) & (self.fraction < 1)):
            raise ScheduleError(f"SmallLossDiscard needs 0 <= fraction < 1, got {self.fraction}")
        if not holds(self.epochs >= 0):
            raise ScheduleError(f"SmallLossDiscard needs epochs >= 0, got {self.epochs}")

    def weights(self, losses: Tensor, epoch: Number) -> Tensor:
        """What to multiply each loss with before the mean over the batch.

        Args:
            losses: (B,), one for each example.
            epoch: 0-based, whole or not; may be a tensor.

        Returns:
            (B,) without gradient: 0 for the round(fraction B) smallest losses, of equal ones the first, and
            B over the number left for the others; their mean is 1. All 1 from ``epochs`` on.
        """
        batch = losses.shape[0]
        order = torch.argsort(losses.detach(), stable=True)
        rank = torch.argsort(order)  # its own inverse permutation: the place of each loss in ascending order
        fraction = torch.as_tensor(self.fraction, dtype=torch.float64, device=losses.device)
        dropped = torch.round(fraction * batch).clamp_max(batch - 1)
        active = torch.as_tensor(epoch, device=losses.device) < self.epochs
        dropped = torch.where(active, dropped, torch.zeros_like(dropped))
        return torch.where(rank >= dropped, batch / (batch - dropped), 0.0).to(losses.dtype)

    def mean(self, losses: Tensor, epoch: Number) -> Tensor:
        """The mean of the losses that are left: what a plain loop calls ``backward`` on."""
        # A dropped loss that is infinite must not come back as 0 * inf.
        weights = self.weights(losses, epoch)
        return torch.where(weights > 0, weights * losses, 0.0).mean()
