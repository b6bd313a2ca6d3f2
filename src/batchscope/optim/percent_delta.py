"""PercentDelta: every layer changes its weights by the same mean percentage."""

from __future__ import annotations

from torch import Tensor

from batchscope.optim.adapter import Group, Parameters, RuleOptimizer
from batchscope.optim.momentum import decayed_heavy_ball
from batchscope.optim.radius import GUARDS, curvature
from batchscope.optim.reduce import mean
from batchscope.optim.rule import Hyper, LayerRate, Rule


def _measure(parameter: Tensor, gradient: Tensor, hyper: Hyper) -> tuple[Tensor, ...]:
    def decayed_curvature(w: Tensor, g: Tensor) -> Tensor:
        return curvature(w, g + hyper["weight_decay"] * w, hyper)

    return (mean(decayed_curvature, parameter, gradient),)


def _rate(measured: tuple[Tensor, ...], hyper: Hyper) -> Tensor:
    return 1 / measured[0]


percent_delta = Rule(
    "percent_delta",
    {"learning_rate": None, "momentum": 0.0, "weight_decay": 0.0, **GUARDS},
    ("momentum_buffer",),
    decayed_heavy_ball,
    layer=LayerRate(_measure, _rate),
)


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

    def rule(self, group: Group) -> Rule:
        return percent_delta
