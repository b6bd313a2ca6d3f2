"""Rules for which torch has one kernel that reads and writes every number once.

A small step is bound by memory, not by arithmetic: as separate operations a Nesterov update passes a dozen times over
what one kernel passes over five times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from batchscope.optim.adam import adam, adamw
from batchscope.optim.momentum import momentum, nesterov, sgd
from batchscope.optim.rule import Rule

_Apply = Callable[[list[Tensor], list[Tensor], list[list[Tensor]], int, Mapping[str, float]], None]


@dataclass(frozen=True)
class FusedUpdate:
    """An update of many tensors in place, equal to the rule's own to rounding."""

    rule: Rule
    _apply: _Apply

    def __call__(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        slots: Sequence[Sequence[Tensor]],
        step: int,
        hyper: Mapping[str, float],
    ) -> None:
        """Update parameters and slots.

        Args:
            parameters: Dense, of one dtype, float32 or float64.
            gradients: One for each parameter, of its shape.
            slots: For every slot of the rule, in its order, one tensor for each parameter, laid out as it is.
            step: Updates counted from 1.
            hyper: A number for every hyperparameter of the rule.
        """
        like = [_laid_out_as(parameter, gradient) for parameter, gradient in zip(parameters, gradients, strict=True)]
        self._apply(list(parameters), like, [list(slot) for slot in slots], step, hyper)


def fused_update(rule: Rule, device: torch.device) -> FusedUpdate | None:
    """The kernel for a rule on a device; None where there is none that is worth it.

    On a CPU only: on a GPU a call for every trial costs more than operations on all of them at once.
    """
    apply = _KERNELS.get(rule.name) if device.type == "cpu" else None
    return FusedUpdate(rule, apply) if apply else None


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the parameter's layout: the kernels go through memory, not through indices."""
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)


def _sgd_kernel(*, nesterov: bool) -> _Apply:
    def apply(
        parameters: list[Tensor],
        gradients: list[Tensor],
        slots: list[list[Tensor]],
        step: int,
        hyper: Mapping[str, float],
    ) -> None:
        momentum, decay = hyper.get("momentum", 0.0), hyper["weight_decay"]
        velocities = slots[0] if slots else []
        if velocities and not momentum:  # the kernel then refuses velocities, which are the gradients
            for velocity, gradient, parameter in zip(velocities, gradients, parameters, strict=True):
                velocity.copy_(torch.add(gradient, parameter, alpha=decay))
        torch._fused_sgd_(
            parameters,
            gradients,
            velocities if momentum else [],
            weight_decay=decay,
            momentum=momentum,
            lr=hyper["learning_rate"],
            dampening=0.0,
            nesterov=nesterov and bool(momentum),
            maximize=False,
            is_first_step=False,
        )

    return apply


def _adam_kernel(kernel: Callable[..., None]) -> _Apply:
    def apply(
        parameters: list[Tensor],
        gradients: list[Tensor],
        slots: list[list[Tensor]],
        step: int,
        hyper: Mapping[str, float],
    ) -> None:
        first, second = slots
        kernel(
            parameters,
            gradients,
            first,
            second,
            [],
            [torch.tensor(float(step))] * len(parameters),
            lr=hyper["learning_rate"],
            beta1=hyper["beta1"],
            beta2=hyper["beta2"],
            weight_decay=hyper["weight_decay"],
            eps=hyper["epsilon"],
            amsgrad=False,
            maximize=False,
        )

    return apply


_KERNELS: dict[str, _Apply] = {
    sgd.name: _sgd_kernel(nesterov=False),
    momentum.name: _sgd_kernel(nesterov=False),
    nesterov.name: _sgd_kernel(nesterov=True),
    adam.name: _adam_kernel(torch._fused_adam_),
    adamw.name: _adam_kernel(torch._fused_adamw_),
}
