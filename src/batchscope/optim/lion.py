"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from batchscope.optim.adapter import Parameters, RuleOptimizer
from batchscope.optim.rule import Hyper, Numbers, Rule, Scalar, Slots


def _lion(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    momentum = slots["momentum_buffer"]
    blend = hyper["beta1"] * momentum + (1 - hyper["beta1"]) * gradient
    direction = torch.sign(blend) + 0 * blend  # torch calls the sign of a NaN zero, and a diverged weight would stand
    kept = (1 - hyper["learning_rate"] * hyper["weight_decay"]) * parameter
    momentum = hyper["beta2"] * momentum + (1 - hyper["beta2"]) * gradient
    return kept - hyper["learning_rate"] * direction, {"momentum_buffer": momentum}


def _in_place(
    parameters: list[Tensor], gradients: list[Tensor], slots: Mapping[str, list[Tensor]], step: int, hyper: Numbers
) -> None:
    rate, beta1, beta2 = hyper["learning_rate"], hyper["beta1"], hyper["beta2"]
    for w, g, m in zip(parameters, gradients, slots["momentum_buffer"], strict=True):
        w.mul_(1 - rate * hyper["weight_decay"])
        # As written above, so that a sum that is zero stays zero: an interpolation in one call rounds otherwise.
        blend = torch.mul(m, beta1).add_(g, alpha=1 - beta1)
        w.add_(torch.sign(blend).add_(blend, alpha=0), alpha=-rate)
        m.mul_(beta2).add_(g, alpha=1 - beta2)


lion = Rule("lion", ("momentum_buffer",), _lion, _in_place)


class Lion(RuleOptimizer):
    """Lion (Chen et al. 2023, "Symbolic discovery of optimization algorithms", program 1).

    c = beta1 m + (1 - beta1) g, w <- w - lr (sign(c) + weight_decay w), then m <- beta2 m + (1 - beta2) g. Every weight
    moves by lr in a step, so lr is usually 3 to 10 times smaller than AdamW's, and weight_decay as much larger
    (section 5 there).

    Args:
        params: As for any torch optimizer.
        lr: How far a weight moves in a step.
        betas: beta1 of the direction, beta2 of the momentum, in [0, 1).
        weight_decay: Decoupled, at least 0.
    """

    own = lion

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
