"""How gradients and steps shrink as the batch grows, at one fixed point of the weights (GZ20 section 2).

For examples whose gradients have mean mu and standard deviation sigma along a parameter, the gradient of a batch of B
is N(mu, sigma^2 / B). Where the noise is all there is (mu = 0, the paper's assumption), E|g| = sigma sqrt(2 / (pi B)):
slope -1/2 against B in logarithms. (The paper's equation 4 prints 2 sigma / sqrt(pi B); the slope is the same.) Where
mu is not zero, slopes are shallower, and are those of the noise only well below the noise scale.

Shapes: S batch sizes, R batches drawn at each, L layers.
"""

from __future__ import annotations

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
Quantity = Literal["gradient", "parameter_stride", "loss_stride"]


@dataclass(frozen=True)
class GradientStatistics:
    """What single batches gave, for plain SGD; every stride is divided by the learning rate.

    ``layers`` names the L parameter tensors. ``gradient`` is the mean of |g| in each, (S, R, L); ``parameter_stride``
    the mean of |dw| / lr over all parameters, (S, R) (GZ20 equation 6); ``loss_stride`` the sum of g^2, which is the
    first-order decrease of the loss of the batch over lr, (S, R) (equation 8, which prints its mean over parameters).
    """

    batch_sizes: tuple[int, ...]
    layers: tuple[str, ...]
    examples: int
    gradient: Array
    parameter_stride: Array
    loss_stride: Array

    def mean(self, quantity: Quantity, layer: str | None = None) -> Array:
        """Over the batches drawn, (S,): of one step."""
        average: Array = self._values(quantity, layer).mean(axis=1)
        return average

    def per_epoch(self, quantity: Quantity, layer: str | None = None) -> Array:
        """The sum over the N / B steps of an epoch, (S,): for the parameter stride, GZ20's search space."""
        total: Array = self.mean(quantity, layer) * self.examples / np.array(self.batch_sizes)
        return total

    def slope(self, quantity: Quantity, layer: str | None = None, *, level: float = 0.9) -> Interval:
        """Of log(mean) against log(B): weighted least squares, with the interval of a bootstrap over batches.

        Noise alone gives -1/2, -1/2 and -1.

        Raises:
            MeterError: If there is one batch size only.
        """
        values = self._values(quantity, layer)
        if len(values) < 2:
            raise MeterError(f"a slope needs at least two batch sizes, got {self.batch_sizes}")
        generator = numpy_generator("gradient statistics", quantity, layer)
        count = values.shape[1]
        weights = values.mean(axis=1) / values.std(axis=1, ddof=1).clip(min=1e-300)  # of log(mean), up to sqrt(R)
        resampled = np.stack([row[generator.integers(0, count, (1000, count))].mean(axis=1) for row in values], axis=1)
        x = np.log(self.batch_sizes)

        def fit(means: Array) -> Array:
            y = np.log(means)
            slopes: Array = np.polyfit(x, y.T, 1, w=weights)[0]
            return slopes

        return Interval.from_samples(float(fit(values.mean(axis=1)[None])[0]), fit(resampled), level)

    def _values(self, quantity: Quantity, layer: str | None) -> Array:
        if quantity != "gradient":
            if layer is not None:
                raise MeterError(f'only "gradient" is known by layer, got {quantity!r} of {layer!r}')
            return self.parameter_stride if quantity == "parameter_stride" else self.loss_stride
        if layer is None:
            raise MeterError(f"the gradient is known by layer: name one of {', '.join(self.layers)}")
        if layer not in self.layers:
            raise MeterError(f"there is no layer {layer!r}: the layers are {', '.join(self.layers)}")
        return self.gradient[:, :, self.layers.index(layer)]


def gradient_statistics(
    model: nn.Module,
    loss: Loss,
    inputs: Tree,
    targets: Tree,
    *,
    batch_sizes: Sequence[int],
    batches: int = 32,
    centred: bool = False,
    seed: int = 0,
    chunk_size: int = 1024,
) -> GradientStatistics:
    """Gradients of batches of several sizes at the model's present weights, which stay as they are.

    Batches are drawn with replacement: without, the noise of B of N examples is smaller by (N - B) / (N - 1), which
    bends the slopes.

    Args:
        model: In training or evaluation mode, as wanted.
        loss: (outputs, targets) -> (B,).
        inputs: N examples, a tensor or a nested structure of them.
        targets: Likewise.
        batch_sizes: At least one.
        batches: How many to draw at every batch size; at least 2.
        centred: Takes off the gradient of all N examples: what is left is noise, with the slopes of the paper.
        seed: Of the draws.
        chunk_size: Examples in memory at a time for the gradient of all.

    Raises:
        MeterError: If there are too few batch sizes or batches.
    """
    if not batch_sizes or min(batch_sizes) < 1 or batches < 2:
        raise MeterError(f"needs batch sizes from 1 on and at least 2 batches, got {list(batch_sizes)} and {batches}")
    objective, pair = Objective(model, loss), (inputs, targets)
    examples, parameters = size(pair), objective.parameters
    counts = np.array([p.numel() for p in parameters.values()])
    whole = objective.gradient_of_all(pair, chunk_size) if centred else {}
    means = np.empty((len(batch_sizes), batches, len(parameters)))
    squares = np.empty((len(batch_sizes), batches))
    for s, batch_size in enumerate(batch_sizes):
        for r in range(batches):
            draw = torch_generator(seed, "gradient statistics", batch_size, r)
            rows = torch.randint(0, examples, (batch_size,), generator=draw)
            gradient = objective.gradient(parameters, take(pair, rows))
            found = [g - whole[name] if centred else g for name, g in gradient.items()]
            means[s, r] = torch.stack([g.abs().mean() for g in found]).double().cpu().numpy()
            squares[s, r] = float(torch.stack([g.square().sum() for g in found]).sum())
    stride: Array = means @ counts / counts.sum()
    return GradientStatistics(tuple(batch_sizes), tuple(parameters), examples, means, stride, squares)
