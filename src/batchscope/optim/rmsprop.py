"""RMSProp."""

from __future__ import annotations

from torch import Tensor

from batchscope.optim.adapter import Group, Parameters, RuleOptimizer
from batchscope.optim.momentum import heavy_ball
from batchscope.optim.rule import Hyper, Rule, Scalar, Slots


def _rmsprop(
    parameter: Tensor, direction: Tensor, slots: Slots, rate: Scalar, step: Scalar, hyper: Hyper
) -> tuple[Tensor, Slots]:
    gradient = direction + hyper["weight_decay"] * parameter
    square = hyper["smoothing"] * slots["square_average"] + (1 - hyper["smoothing"]) * (gradient * gradient)
    scaled = gradient / (square**0.5 + hyper["epsilon"])
    moved, velocity = heavy_ball(parameter, scaled, slots, rate, step, hyper)
    return moved, {"square_average": square, **velocity}


rmsprop = Rule(
    "rmsprop",
    {"learning_rate": None, "smoothing": 0.99, "epsilon": 1e-8, "momentum": 0.0, "weight_decay": 0.0},
    ("square_average", "momentum_buffer"),
    _rmsprop,
)


class RMSProp(RuleOptimizer):
    """RMSProp (Hinton 2012) as ``torch.optim.RMSprop`` has it, not centred.

    s is the moving average of g'^2, g' = g + weight_decay w, with smoothing ``alpha``;
    v <- momentum v + g' / (sqrt(s) + eps), w <- w - lr v.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, defaults)

    def rule(self, group: Group) -> Rule:
        return rmsprop
