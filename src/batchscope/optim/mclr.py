"""MCLR: the learning rate of a layer from the medians of its weights and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from batchscope.errors import StudyError
from batchscope.optim.adapter import Group, Parameters, RuleOptimizer
from batchscope.optim.median import median, medians
from batchscope.optim.momentum import heavy_ball, heavy_balls_at_rates
from batchscope.optim.radius import GUARDS, radius
from batchscope.optim.rule import Hyper, Numbers, Rule, Scalar, Slots


def _rate(weight: Tensor, gradient: Tensor, hyper: Hyper) -> Tensor:
    return radius(weight, gradient + hyper["weight_decay"] * weight, hyper)


def _rule(name: str, *, absolute: bool) -> Rule:
    def change(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
        rate = _rate(median(parameter, absolute=absolute), median(gradient, absolute=absolute), hyper)
        return heavy_ball(parameter, rate * (gradient + hyper["weight_decay"] * parameter), slots, hyper)

    def in_place(
        parameters: list[Tensor], gradients: list[Tensor], slots: Mapping[str, list[Tensor]], step: int, hyper: Numbers
    ) -> None:
        weights, slopes = (torch.stack(medians(layers, absolute=absolute)) for layers in (parameters, gradients))
        rates = _rate(weights, slopes, hyper)
        heavy_balls_at_rates(parameters, gradients, slots["momentum_buffer"], rates.tolist(), hyper)

    return Rule(name, ("momentum_buffer",), change, in_place, by_layer=True)


mclr = _rule("mclr", absolute=True)
mclr_median = _rule("mclr_median", absolute=False)
_RULES = {"absolute": mclr, "literal": mclr_median}


class MCLR(RuleOptimizer):
    """Median-curvature learning rate (GZ20 equations 20 to 22).

    A layer's rate is abs(w_m / (g_m + weight_decay w_m)), w_m and g_m the medians of its weights and gradients;
    v <- momentum v + rate (g + weight_decay w), w <- w - lr v. The medians are lower ones: elements of the layer.

    The paper does not say whether signs count. Weights and gradients are near symmetric about zero, so the median as
    written is near zero over near zero, and the median of absolute values is the default. Either stands for
    R_i = abs(w_i / g_i), which drops (1 + g^2)^(3/2) from the curvature radius and takes the minimum to be at 0. GZ20
    does not recommend the rule for batches of 8192 and more.

    Args:
        params: As for any torch optimizer; a layer is one parameter tensor.
        lr: Multiplies every layer's rate (gamma in GZ20).
        median: "absolute", of absolute values; or "literal", of the values with their signs.
        momentum: Applied after the layer's rate, in [0, 1).
        weight_decay: At least 0 (beta in GZ20).
        minimum_radius: Bounds the rate from below: a layer whose median weight is zero still moves.
        maximum_radius: Bounds the rate from above: a median gradient of zero is no licence for any step.

    Raises:
        StudyError: If ``median`` is neither word.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor,
        *,
        median: Literal["absolute", "literal"] = "absolute",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        minimum_radius: float = GUARDS["minimum_radius"],
        maximum_radius: float = GUARDS["maximum_radius"],
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "median": median}
        super().__init__(params, {**defaults, "minimum_radius": minimum_radius, "maximum_radius": maximum_radius})

    def rule(self, group: Group) -> Rule:
        if group["median"] not in _RULES:
            raise StudyError(f'median must be "absolute" or "literal", got {group["median"]!r}')
        return _RULES[group["median"]]
