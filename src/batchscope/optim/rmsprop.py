"""RMSProp."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from batchscope.optim.adapter import Parameters, RuleOptimizer
from batchscope.optim.momentum import heavy_ball
from batchscope.optim.rule import Hyper, Numbers, Rule, Scalar, Slots


def _rmsprop(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    gradient = gradient + hyper["weight_decay"] * parameter
    square = hyper["smoothing"] * slots["square_average"] + (1 - hyper["smoothing"]) * (gradient * gradient)
    scaled = gradient / (square**0.5 + hyper["epsilon"])
    moved, velocity = heavy_ball(parameter, scaled, slots, hyper)
    return moved, {"square_average": square, **velocity}


def _in_place(
    parameters: list[Tensor], gradients: list[Tensor], slots: Mapping[str, list[Tensor]], step: int, hyper: Numbers
) -> None:
    alpha, decay = hyper["smoothing"], hyper["weight_decay"]
    for w, g, s, v in zip(parameters, gradients, slots["square_average"], slots["momentum_buffer"], strict=True):
        g = g.add(w, alpha=decay) if decay else g
        s.mul_(alpha).addcmul_(g, g, value=1 - alpha)
        v.mul_(hyper["momentum"]).addcdiv_(g, s.sqrt().add_(hyper["epsilon"]))
        w.add_(v, alpha=-hyper["learning_rate"])


rmsprop = Rule("rmsprop", ("square_average", "momentum_buffer"), _rmsprop, _in_place)


class RMSProp(RuleOptimizer):
    """RMSProp (Hinton 2012) as ``torch.optim.RMSprop`` has it, not centred.

    s is the moving average of g'^2, g' = g + weight_decay w, with smoothing ``alpha``;
    v <- momentum v + g' / (sqrt(s) + eps), w <- w - lr v.
    """

    own = rmsprop

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
