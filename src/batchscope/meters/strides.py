"""What the steps of a training add up to: gradients, parameter strides and loss strides, step by step (GZ20 fig 5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from batchscope.errors import MeterError


class Stride(NamedTuple):
    """One step. ``gradient`` and ``parameter_stride`` are the means of |g| and |dw| by layer.

    ``loss_stride`` is -g'dw, the decrease of the loss that the gradient promises for the step that was taken.
    """

    epoch: int
    gradient: dict[str, float]
    parameter_stride: dict[str, float]
    loss_stride: float


class Strides:
    """Records every step that an optimizer takes, whatever its rule.

        strides = Strides(model)
        for inputs, targets in loader:
            ...
            loss.backward()
            with strides.step():
                optimizer.step()
        strides.end_epoch()

    It keeps a copy of the parameters during a step, and reads ``.grad`` as it is then: after ``scaler.unscale_``, and
    clipped if it was clipped.
    """

    def __init__(self, model: nn.Module) -> None:
        self.steps: list[Stride] = []
        self._epoch = 0
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self._parameters:
            raise MeterError("the model must have a parameter that requires a gradient, got none")

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around ``optimizer.step()``.

        Raises:
            MeterError: If there are no gradients.
        """
        used = {name: p for name, p in self._parameters.items() if p.grad is not None}
        if not used:
            raise MeterError("step() must come after the backward pass, got parameters without gradients")
        before = {name: p.detach().clone() for name, p in used.items()}
        gradients = {name: _gradient(p).clone() for name, p in used.items()}
        yield
        moved = {name: p.detach() - before[name] for name, p in used.items()}
        loss_stride = -sum(float((gradients[name] * moved[name]).sum()) for name in used)
        self.steps.append(Stride(self._epoch, _means(gradients), _means(moved), loss_stride))

    def end_epoch(self) -> None:
        """The steps that follow belong to the next epoch."""
        self._epoch += 1

    def search_space(self, layer: str) -> list[float]:
        """The parameter strides of every epoch, added up: GZ20's search space is their sum."""
        totals = [0.0] * (self._epoch + 1)
        for stride in self.steps:
            totals[stride.epoch] += stride.parameter_stride.get(layer, 0.0)
        return totals if any(stride.epoch == self._epoch for stride in self.steps) else totals[:-1]


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.detach().to(torch.promote_types(parameter.dtype, torch.float32))


def _means(values: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value.abs().mean()) for name, value in values.items()}
