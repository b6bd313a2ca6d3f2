"""How far a step of SGD leaves the region in which the loss is linear (G18 section 5, figure 2).

Shapes: S batch sizes, R batches drawn at each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from batchscope.errors import MeterError
from batchscope.interval import Interval
from batchscope.meters.objective import Loss, Objective, size, take
from batchscope.seeds import numpy_generator, torch_generator
from batchscope.tensors import Tree

Array = NDArray[np.float64]
EXPONENTS = {"linear": 1.0, "square_root": 0.5, "constant": 0.0}


@dataclass(frozen=True)
class LinearizationError:
    """``errors`` (S, R): |L(w) - [L(w*) + <g, w - w*>]| at w = w* - rate g, infinite where L(w) is not finite."""

    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    errors: Array

    def mean(self) -> Array:
        """Over the batches drawn, (S,)."""
        average: Array = self.errors.mean(axis=1)
        return average

    def passes(self, threshold: float = 1.0, *, level: float = 0.9) -> Interval:
        """The batch size from which on the mean error is above ``threshold``, by a bootstrap over the batches.

        Interpolated in logarithms between the last batch size that is not above and the next. None says that it lies
        outside of the batch sizes measured.
        """
        generator = numpy_generator("linearization error", threshold)
        count = self.errors.shape[1]
        resampled = np.stack(
            [row[generator.integers(0, count, (500, count))].mean(axis=1) for row in self.errors], axis=1
        )
        crossings = np.array([self._crossing(means, threshold) for means in resampled])
        return Interval.from_samples(self._crossing(self.mean(), threshold), crossings, level)

    def _crossing(self, means: Array, threshold: float) -> float:
        below = np.flatnonzero(means <= threshold)
        if len(below) == 0:
            return -math.inf
        last = int(below[-1])
        if last + 1 == len(means):
            return math.inf
        low, high = np.log(np.maximum(means[last : last + 2], 1e-300))
        start, end = np.log(self.batch_sizes[last : last + 2])
        share = (math.log(threshold) - low) / (high - low) if math.isfinite(high) else 0.0
        return float(np.exp(start + share * (end - start)))


def linearization_error(
    model: nn.Module,
    loss: Loss,
    inputs: Tree,
    targets: Tree,
    *,
    batch_sizes: Sequence[int],
    learning_rate: float,
    base_batch_size: int,
    scaling: Literal["linear", "square_root", "constant"] = "linear",
    batches: int = 8,
    seed: int = 0,
    chunk_size: int = 1024,
) -> LinearizationError:
    """At the model's present weights w*, which stay: one SGD step for every batch drawn, at the rate its size asks for.

    L is the mean loss over all N examples, g the gradient of the batch.

    Args:
        model: In training or evaluation mode, as wanted.
        loss: (outputs, targets) -> (B,).
        inputs: N examples, a tensor or a nested structure of them.
        targets: Likewise.
        batch_sizes: In rising order.
        learning_rate: At ``base_batch_size``.
        base_batch_size: Where scaling starts.
        scaling: Of the rate with B / base_batch_size: G18's linear rule, the square-root rule, or none.
        batches: How many to draw at every batch size, without replacement within a batch.
        seed: Of the draws.
        chunk_size: Examples in memory at a time for L.

    Raises:
        MeterError: If the batch sizes do not rise, or exceed the examples.
    """
    objective, pair = Objective(model, loss), (inputs, targets)
    examples, start = size(pair), objective.parameters
    sizes = list(batch_sizes)
    if not sizes or sizes != sorted(set(sizes)) or not 1 <= sizes[0] <= sizes[-1] <= examples or batches < 1:
        raise MeterError(f"batch sizes must rise from at least 1 to at most the {examples} examples, got {sizes}")
    rates = [learning_rate * (batch_size / base_batch_size) ** EXPONENTS[scaling] for batch_size in sizes]
    at_start = objective.mean_loss_of_all(start, pair, chunk_size)
    errors = np.empty((len(sizes), batches))
    for s, (batch_size, rate) in enumerate(zip(sizes, rates, strict=True)):
        for r in range(batches):
            draw = torch_generator(seed, "linearization error", batch_size, r)
            rows = torch.randperm(examples, generator=draw)[:batch_size]
            gradient = objective.gradient(start, take(pair, rows))
            square = float(torch.stack([g.double().square().sum() for g in gradient.values()]).sum())
            there = objective.mean_loss_of_all({n: p - rate * gradient[n] for n, p in start.items()}, pair, chunk_size)
            error = abs(there - (at_start - rate * square))
            errors[s, r] = error if math.isfinite(error) else math.inf
    return LinearizationError(tuple(sizes), tuple(rates), errors)
