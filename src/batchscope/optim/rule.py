"""What an optimizer is here: a pure function of one tensor, whose hyperparameters are tensors too.

One rule serves three callers: a pack of trials under ``torch.func.vmap``, every hyperparameter with a leading axis of
trials; ``torch.compile``, where hyperparameters are inputs of the graph, so that a new value is no new graph; and a
plain training loop through ``adapter.py``, in place, for which a rule may have a second form on many tensors.

Legend: w parameter, g gradient; a layer is one parameter tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from batchscope.optim.table import TABLE

Scalar = Tensor | float
Slots = dict[str, Tensor]
Hyper = Mapping[str, Scalar]
Numbers = Mapping[str, float]

# (parameter, gradient, slots, step, hyper[, hessian_diagonal]) -> (new parameter, new slots)
Update = Callable[..., tuple[Tensor, Slots]]
# (parameters, gradients, slot name -> its tensors, step, hyper[, hessian_diagonals]), which changes the tensors
InPlace = Callable[..., None]


@dataclass(frozen=True)
class Rule:
    """An update rule.

    Attributes:
        name: The rule's name in study files, and in ``TABLE``.
        slots: Names of the state tensors kept for a parameter: zeros of its shape, unless ``begin`` makes them.
        change: The update of one tensor.
        in_place: The same on many, to rounding. None: ``change``, one tensor after the other.
        fused: Whether ``in_place`` is one kernel of torch, which reads and writes every number once.
        by_layer: Whether the update of a number depends on other numbers of its tensor, as on a norm.
        begin: What makes the slots of a parameter.
        takes: Which parameters the rule is for. None: all.
        otherwise: What updates the others.
        evaluation: (parameter, slots, hyper) -> the parameter to evaluate a model with. None: it is the one that is
            trained.
    """

    name: str
    slots: tuple[str, ...]
    change: Update
    in_place: InPlace | None = None
    fused: bool = False
    by_layer: bool = False
    begin: Callable[[Tensor], Slots] | None = None
    takes: Callable[[Tensor], bool] | None = None
    otherwise: Rule | None = None
    evaluation: Callable[[Tensor, Slots, Hyper], Tensor] | None = None

    @property
    def hyperparameters(self) -> Mapping[str, float | None]:
        """Every hyperparameter with its default; None where one must be given."""
        return TABLE[self.name].defaults

    @property
    def needs_hessian_diagonal(self) -> bool:
        """Whether ``update`` must be given the diagonal of the Hessian."""
        return self.name in TABLE and TABLE[self.name].needs_hessian_diagonal

    def has_kernel(self, device: torch.device) -> bool:
        """Whether updating in place is worth it for one trial after the other.

        On a CPU only: on a GPU a call for every trial costs more than operations on all of them at once.
        """
        return self.fused and device.type == "cpu"

    def of(self, parameter: Tensor) -> Rule:
        """The rule that updates this parameter: this one, or that for what it does not take."""
        return self if self.otherwise is None or self.takes is None or self.takes(parameter) else self.otherwise

    def init(self, parameter: Tensor) -> Slots:
        """The state of a parameter before its first update, in float32 at least."""
        own = self.of(parameter)
        dtype = accumulation_dtype(parameter.dtype)
        if own.begin is not None:
            return own.begin(torch.empty_like(parameter, dtype=dtype).copy_(parameter))
        return {name: torch.zeros_like(parameter, dtype=dtype) for name in own.slots}

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
        curvature = () if hessian_diagonal is None else (hessian_diagonal.to(dtype),)
        change = self.of(parameter).change
        moved, slots = change(parameter.to(dtype), gradient.to(dtype), slots, step, hyper, *curvature)
        return moved.to(parameter.dtype), {name: slot.to(dtype) for name, slot in slots.items()}

    def update_in_place(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        slots: Mapping[str, list[Tensor]],
        step: int,
        hyper: Numbers,
        hessian_diagonals: list[Tensor] | None = None,
    ) -> None:
        """Update many parameters that this rule takes, and their slots.

        Args:
            parameters: Dense, of one device and one dtype, float32 or float64.
            gradients: One for each parameter, laid out as it is.
            slots: For every slot of the rule a tensor for each parameter.
            step: Updates counted from 1.
            hyper: A number for every name in ``hyperparameters``.
            hessian_diagonals: One for each parameter, for rules with ``needs_hessian_diagonal``.
        """
        curvature = () if hessian_diagonals is None else (hessian_diagonals,)
        if self.in_place is not None:
            self.in_place(parameters, gradients, slots, step, hyper, *curvature)
            return
        names = list(slots)
        for weight, gradient, *rest in zip(parameters, gradients, *slots.values(), *curvature, strict=True):
            own = dict(zip(names, rest, strict=False))
            moved, new = self.change(weight, gradient, own, step, hyper, *rest[len(names) :])
            weight.copy_(moved)
            for name, slot in own.items():
                slot.copy_(new[name])


def without_decay(rule: Rule) -> Rule:
    """A rule for which weight decay is zero."""

    def change(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
        return rule.change(parameter, gradient, slots, step, {**hyper, "weight_decay": 0.0})

    def in_place(
        parameters: list[Tensor],
        gradients: list[Tensor],
        slots: Mapping[str, list[Tensor]],
        step: int,
        hyper: Numbers,
    ) -> None:
        rule.update_in_place(parameters, gradients, slots, step, {**hyper, "weight_decay": 0.0})

    return Rule(rule.name, rule.slots, change, in_place)


def is_no_bias_or_norm(parameter: Tensor) -> bool:
    """Whether a tensor has more than one dimension."""
    return parameter.ndim > 1


def clamp(values: Tensor, minimum: Scalar, maximum: Scalar) -> Tensor:
    """Every value within bounds that are both numbers or both 0-dim tensors."""
    return values.clamp(cast(float, minimum), cast(float, maximum))


def norm(values: Tensor) -> Tensor:
    """The Euclidean norm of a tensor.

    A norm of norms where the tensor is large: a reduction to one number is of one thread on a CPU, and slow on that.
    """
    rows = 64 if values.numel() % 64 == 0 and values.numel() >= 2**16 and values.is_contiguous() else 1
    if rows > 1:
        values = torch.linalg.vector_norm(values.view(rows, -1), dim=1)
    return cast(Tensor, torch.linalg.vector_norm(values))


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that a parameter's arithmetic and state are in: its own, but float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor fills its memory, in whatever order of its axes."""
    if tensor.is_contiguous():
        return True
    strides = tensor.stride()
    return tensor.permute(sorted(range(tensor.ndim), key=lambda axis: strides[axis], reverse=True)).is_contiguous()


def laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A tensor of a parameter's shape in its type and layout: kernels go through memory, not through indices."""
    if tensor.shape != parameter.shape:
        return tensor.to(parameter.dtype)
    if tensor.dtype == parameter.dtype and tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter).copy_(tensor)
