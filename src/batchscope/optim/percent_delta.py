"""PercentDelta: every layer changes its weights by the same mean percentage."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from batchscope.optim.adapter import Parameters, RuleOptimizer
from batchscope.optim.momentum import heavy_ball, heavy_balls_at_rates
from batchscope.optim.radius import GUARDS, TINY, curvature
from batchscope.optim.rule import Hyper, Numbers, Rule, Scalar, Slots


def _percent_delta(
    parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper
) -> tuple[Tensor, Slots]:
    decayed = gradient + hyper["weight_decay"] * parameter
    rate = 1 / curvature(parameter, decayed, hyper).mean()
    return heavy_ball(parameter, rate * decayed, slots, hyper)


def _in_place(
    parameters: list[Tensor], gradients: list[Tensor], slots: Mapping[str, list[Tensor]], step: int, hyper: Numbers
) -> None:
    """With weight decay the curvature is abs(g / w + weight_decay), but for a weight of zero."""
    memory = parameters[0].new_empty(max(parameter.numel() for parameter in parameters))
    low, high, decay = 1 / hyper["maximum_radius"], 1 / hyper["minimum_radius"], hyper["weight_decay"]
    rates = []
    for w, g in zip(parameters, gradients, strict=True):
        curvatures = memory.as_strided(w.shape, w.stride())
        torch.add(w, TINY, out=curvatures)
        torch.div(g, curvatures, out=curvatures)
        rates.append(curvatures.add_(decay).abs_().clamp_(low, high).mean())
    found = torch.stack(rates).reciprocal().tolist()
    heavy_balls_at_rates(parameters, gradients, slots["momentum_buffer"], found, hyper)


percent_delta = Rule("percent_delta", ("momentum_buffer",), _percent_delta, _in_place, by_layer=True)


class PercentDelta(RuleOptimizer):
    """PercentDelta (Abu-El-Haija 2017; GZ20 equation 24): a layer's rate is size(w) / norm1(g / w).

    That is the harmonic mean of the layer's R_i = abs(w_i / g_i), the estimate that drops (1 + g^2)^(3/2) and takes the
    minimum to be at 0. v <- momentum v + rate (g + weight_decay w), w <- w - lr v; with weight decay, g stands for
    g + weight_decay w in the rate too. Without momentum the mean of abs(change of w_i / w_i) is lr.

    Args:
        params: As for any torch optimizer; a layer is one parameter tensor.
        lr: The mean relative change in a step (gamma in GZ20).
        momentum: Applied after the layer's rate, in [0, 1).
        weight_decay: At least 0.
        minimum_radius: Bounds R_i from below. One zero weight makes norm1(g / w) infinite and would stop its
            layer (GZ20 equation 18).
        maximum_radius: Bounds R_i from above, for vanishing gradients (GZ20 equation 19).
    """

    own = percent_delta

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        minimum_radius: float = GUARDS["minimum_radius"],
        maximum_radius: float = GUARDS["maximum_radius"],
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "minimum_radius": minimum_radius, "maximum_radius": maximum_radius})
