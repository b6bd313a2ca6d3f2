"""Per-example gradients of normalization layers, which an ordinary backward pass gives next to free.

Gray et al. (2024, arXiv 2411.00999): the weight of such a layer has as its gradient the sum, over examples and
positions, of output gradient times normalized input. Summed over positions only it is the gradient of one example. In
transformers the noise scale of these few parameters follows that of all.

Shapes: B examples, P parameter tensors.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.errors import MeterError
from batchscope.meters.backward import Backward
from batchscope.meters.moments import Moments, moments_of_parts
from batchscope.meters.squares import Squares


def norm_layers(model: nn.Module) -> list[nn.Module]:
    """Layers with a weight that normalize every example by itself: ``LayerNorm``, ``GroupNorm``, any ``RMSNorm``."""
    return [
        module
        for module in model.modules()
        if (isinstance(module, nn.LayerNorm | nn.GroupNorm) or type(module).__name__.endswith("RMSNorm"))
        and isinstance(getattr(module, "weight", None), Tensor)
    ]


def parameters_of(modules: list[nn.Module]) -> set[Tensor]:
    """Their weights and biases."""
    return {p for module in modules for p in (module.weight, getattr(module, "bias", None)) if isinstance(p, Tensor)}


class NormLayers:
    """Squared per-example gradients of normalization layers, seen in the backward pass of the training step."""

    def __init__(self, squares: Squares, modules: list[nn.Module]) -> None:
        self.armed = True  # whether the forward pass that comes may be observed
        self._squares = squares
        self._backward: Backward | None = None
        self._listening = False  # while the backward pass of the training step runs
        self._examples: dict[Tensor, Tensor] = {}
        self._handles = [module.register_forward_hook(self._after_forward) for module in modules]
        self._index = {parameter: index for index, parameter in enumerate(squares.parameters)}

    def _after_forward(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self.armed and isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(partial(self._after_backward, module, inputs[0].detach()))  # type: ignore[no-untyped-call]

    def _after_backward(self, module: nn.Module, inputs: Tensor, gradient: Tensor) -> None:
        if self._backward is None or not self._listening:
            return
        if len(gradient) != self._backward.examples:
            raise MeterError(
                f"{type(module).__name__} must get the examples along its first dimension: observe() got "
                f"{self._backward.examples} losses, the layer an input of shape {tuple(inputs.shape)}"
            )
        gradient = gradient.detach()
        normalized, axes = _normalized(module, inputs)
        parts: dict[Any, Tensor] = {module.weight: gradient * normalized.to(gradient.dtype)}
        if isinstance(getattr(module, "bias", None), Tensor):
            parts[module.bias] = gradient
        for parameter, part in parts.items():
            if parameter in self._index:
                dtype = torch.promote_types(part.dtype, torch.float32)
                found = part.sum(dim=axes, dtype=dtype) if axes else part.to(dtype)
                before = self._examples.get(parameter)
                self._examples[parameter] = found if before is None else before + found

    def observe(self, loss: Tensor, generator: torch.Generator) -> None:
        self._backward = Backward(loss, self._squares)
        loss.register_hook(self._at_start)  # type: ignore[no-untyped-call]

    def _at_start(self, gradient: Tensor) -> None:
        """A backward pass begins at the losses: the first one that reaches the parameters counts."""
        self._listening = self._backward is not None and self._backward.waits
        if self._listening:
            self._examples.clear()

    def settle(self) -> Moments | None:
        backward = self._backward
        if backward is None or not backward.done or not self._examples:
            return None
        squares = dict(self._squares_of_examples())
        self.forget()
        weight, count = backward.weight(), backward.examples
        # An example's gradient was multiplied by weight / count, and so was the square of the sum.
        each = np.array([float(squares.get(i, 0.0)) for i in range(len(self._index))]) * count / weight**2
        return moments_of_parts(each, backward.squares() / weight**2, per_part=1.0, whole=1 / count)

    def _squares_of_examples(self) -> dict[int, Tensor]:
        found: defaultdict[int, Any] = defaultdict(float)
        for parameter, gradient in self._examples.items():
            found[self._index[parameter]] += self._squares.one(parameter, gradient)
        return found

    def forget(self) -> None:
        if self._backward is not None:
            self._backward.close()
        self._backward, self._examples = None, {}

    def close(self) -> None:
        """Take the hooks off the layers."""
        for handle in self._handles:
            handle.remove()


def _normalized(module: nn.Module, inputs: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The input as the layer's weight finds it, and the axes of positions."""
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(inputs, module.num_groups, eps=module.eps), tuple(range(2, inputs.ndim))
    weight: Any = module.weight
    axes = tuple(range(1, inputs.ndim - weight.ndim))
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(inputs, module.normalized_shape, eps=module.eps), axes
    epsilon: Any = getattr(module, "eps", getattr(module, "variance_epsilon", None))
    return F.rms_norm(inputs, list(weight.shape), eps=epsilon), axes
