"""What an optimizer is here: pure functions of one tensor, whose hyperparameters are tensors too.

One rule serves three callers: a plain training loop, in place, through ``adapter.py``; a pack of trials under
``torch.func.vmap``, every hyperparameter with a leading axis of trials; and ``torch.compile``, where
hyperparameters are inputs of the graph, so that a new value is no new graph.

Legend: w parameter, g gradient, d direction; a layer is one parameter tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

Scalar = Tensor | float
Slots = dict[str, Tensor]
Hyper = Mapping[str, Scalar]


@dataclass(frozen=True)
class LayerRate:
    """A layer's own learning rate, from a few numbers measured on the whole layer.

    Attributes:
        measure: (parameter, direction, hyper) -> 0-dim tensors; built from the functions of ``reduce.py``.
        rate: (what was measured, hyper) -> rate; elementwise, so that it takes many layers in one vector.
    """

    measure: Callable[[Tensor, Tensor, Hyper], tuple[Tensor, ...]]
    rate: Callable[[tuple[Tensor, ...], Hyper], Tensor]


@dataclass(frozen=True)
class Rule:
    """An update rule in up to three stages: direction, layer rate, move.

    ``direction`` and ``move`` are elementwise arithmetic (operators, ``abs``, ``clamp``), so that they give the
    same whether run on a tensor, on a part of it, or on many tensors at once. Only ``layer`` sees a whole layer.

    Attributes:
        name: The rule's name in study files.
        hyperparameters: Every hyperparameter with its default; None where one must be given.
        slots: Names of the state tensors kept for a parameter, each of the parameter's shape.
        move: (parameter, direction, slots, rate, step, hyper) -> (new parameter, new slots). The rate is 1.0 where
            there is no ``layer``.
        direction: (parameter, gradient, slots, step, hyper[, hessian_diagonal]) -> (direction, new slots). None:
            the direction is the gradient.
        layer: How a layer's rate is found. None: the rule is not layer-wise.
        needs_hessian_diagonal: Whether ``update`` must be given the diagonal of the Hessian.
        exclude_biases_and_norms: Whether tensors of at most one dimension are updated without layer rate and
            without weight decay.
    """

    name: str
    hyperparameters: Mapping[str, float | None]
    slots: tuple[str, ...]
    move: Callable[[Tensor, Tensor, Slots, Scalar, Scalar, Hyper], tuple[Tensor, Slots]]
    direction: Callable[..., tuple[Tensor, Slots]] | None = None
    layer: LayerRate | None = None
    needs_hessian_diagonal: bool = False
    exclude_biases_and_norms: bool = False

    def init(self, parameter: Tensor) -> Slots:
        """The state of a parameter before its first update: zeros, in float32 at least."""
        dtype = accumulation_dtype(parameter.dtype)
        return {name: torch.zeros_like(parameter, dtype=dtype) for name in self.slots}

    def excludes(self, parameter: Tensor) -> bool:
        """Whether this parameter is updated without layer rate and weight decay."""
        return self.exclude_biases_and_norms and parameter.ndim <= 1

    def update(
        self,
        parameter: Tensor,
        gradient: Tensor,
        slots: Slots,
        step: Scalar,
        hyper: Hyper,
        hessian_diagonal: Tensor | None = None,
    ) -> tuple[Tensor, Slots]:
        """One update of one parameter; nothing is changed in place.

        Parameters of less than float32 are computed with in float32 and rounded once, at the end.

        Args:
            parameter: Of any shape.
            gradient: Of the parameter's shape.
            slots: What ``init`` or the last update gave.
            step: Updates counted from 1: a number or a 0-dim tensor.
            hyper: A number or 0-dim tensor for every name in ``hyperparameters``.
            hessian_diagonal: Of the parameter's shape, for rules with ``needs_hessian_diagonal``.
        """
        if parameter.numel() == 0:
            return parameter, slots
        dtype = accumulation_dtype(parameter.dtype)
        weight, direction = parameter.to(dtype), gradient.to(dtype)
        rate: Scalar = 1.0
        excluded = self.excludes(parameter)
        if excluded:
            hyper = {**hyper, "weight_decay": 0.0}
        if self.direction is not None:
            curvature = () if hessian_diagonal is None else (hessian_diagonal.to(dtype),)
            direction, slots = self.direction(weight, direction, slots, step, hyper, *curvature)
        if self.layer is not None and not excluded:
            rate = self.layer.rate(self.layer.measure(weight, direction, hyper), hyper)
        moved, slots = self.move(weight, direction, slots, rate, step, hyper)
        return moved.to(parameter.dtype), {name: slot.to(dtype) for name, slot in slots.items()}


def clamp(values: Tensor, minimum: Scalar, maximum: Scalar) -> Tensor:
    """Every value within bounds that are both numbers or both 0-dim tensors."""
    return values.clamp(cast(float, minimum), cast(float, maximum))


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that a parameter's arithmetic and state are in: its own, but float32 at least."""
    return torch.promote_types(dtype, torch.float32)
