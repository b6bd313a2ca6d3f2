"""Adam and AdamW, and the moments that LAMB shares with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from batchscope.optim.adapter import Parameters, RuleOptimizer
from batchscope.optim.rule import Hyper, InPlace, Numbers, Rule, Scalar, Slots

MOMENTS = ("first_moment", "second_moment")


def normalized_moments(gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Scalar, Slots]:
    """Numerator, factor and slots: factor * numerator is m_hat / (sqrt(v_hat) + epsilon).

    With c1, c2 = 1 - beta^step and m_hat = m / c1, v_hat = v / c2, the ratio is
    (sqrt(c2) / c1) m / (sqrt(v) + epsilon sqrt(c2)): what depends on the step stays out of the tensors.
    """
    first = hyper["beta1"] * slots["first_moment"] + (1 - hyper["beta1"]) * gradient
    second = hyper["beta2"] * slots["second_moment"] + (1 - hyper["beta2"]) * (gradient * gradient)
    root = (1 - hyper["beta2"] ** step) ** 0.5
    ratio = first / (second**0.5 + hyper["epsilon"] * root)
    return ratio, root / (1 - hyper["beta1"] ** step), {"first_moment": first, "second_moment": second}


def _adam(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    decayed = gradient + hyper["weight_decay"] * parameter
    ratio, factor, slots = normalized_moments(decayed, slots, step, hyper)
    return parameter - hyper["learning_rate"] * factor * ratio, slots


def _adamw(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    ratio, factor, slots = normalized_moments(gradient, slots, step, hyper)
    kept = (1 - hyper["learning_rate"] * hyper["weight_decay"]) * parameter
    return kept - hyper["learning_rate"] * factor * ratio, slots


def adam_kernel(kernel: Callable[..., None]) -> InPlace:
    """Torch's ``_fused_adam_`` or ``_fused_adamw_`` as the form in place of a rule."""

    def in_place(
        parameters: list[Tensor],
        gradients: list[Tensor],
        slots: Mapping[str, list[Tensor]],
        step: int,
        hyper: Numbers,
    ) -> None:
        kernel(
            parameters,
            gradients,
            slots["first_moment"],
            slots["second_moment"],
            [],
            [torch.tensor(float(step), device=parameters[0].device)] * len(parameters),
            lr=hyper["learning_rate"],
            beta1=hyper["beta1"],
            beta2=hyper["beta2"],
            weight_decay=hyper["weight_decay"],
            eps=hyper["epsilon"],
            amsgrad=False,
            maximize=False,
        )

    return in_place


adam = Rule("adam", MOMENTS, _adam, adam_kernel(torch._fused_adam_), fused=True)
adamw = Rule("adamw", MOMENTS, _adamw, adam_kernel(torch._fused_adamw_), fused=True)


class Adam(RuleOptimizer):
    """Adam (Kingma and Ba 2015) with the defaults of ``torch.optim.Adam``.

    m and v are moving averages of g' = g + weight_decay w and of its square;
    w <- w - lr m_hat / (sqrt(v_hat) + eps), the hats meaning division by 1 - beta^step.
    """

    own = adam

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})


class AdamW(RuleOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), defaults of ``torch.optim.AdamW``.

    The moments are those of the gradient alone; the weights shrink by the factor 1 - lr weight_decay.
    """

    own = adamw

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
