"""LARS: every layer moves by the same share of its own norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from batchscope.optim.adapter import Group, Parameters, RuleOptimizer
from batchscope.optim.momentum import heavy_ball, heavy_balls_at_rates, momentum
from batchscope.optim.rule import Hyper, Numbers, Rule, Scalar, Slots, is_no_bias_or_norm, norm, without_decay


def _lars(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    rate = _rate(norm(parameter), norm(gradient), hyper)
    return heavy_ball(parameter, rate * (gradient + hyper["weight_decay"] * parameter), slots, hyper)


def _rate(weight: Tensor, gradient: Tensor, hyper: Hyper) -> Tensor:
    rate = hyper["trust"] * weight / (gradient + hyper["weight_decay"] * weight)
    return torch.where((weight > 0) & (gradient > 0), rate, 1.0)


def _in_place(
    parameters: list[Tensor], gradients: list[Tensor], slots: Mapping[str, list[Tensor]], step: int, hyper: Numbers
) -> None:
    weights, slopes = (torch.stack([norm(layer) for layer in layers]) for layers in (parameters, gradients))
    rates = _rate(weights, slopes, hyper).tolist()
    heavy_balls_at_rates(parameters, gradients, slots["momentum_buffer"], rates, hyper)


lars = Rule("lars", ("momentum_buffer",), _lars, _in_place, by_layer=True)
_with_exclusions = replace(lars, takes=is_no_bias_or_norm, otherwise=without_decay(momentum))


class LARS(RuleOptimizer):
    """Layer-wise adaptive rate scaling (You 2017a; GZ20 equation 23).

    A layer's rate is trust norm(w) / (norm(g) + weight_decay norm(w)), and
    v <- momentum v + rate (g + weight_decay w), w <- w - lr v. Without weight decay and momentum, a step is
    lr trust norm(w) long whatever the gradient.

    Where a layer's weights or gradients are all zero the ratio says nothing, and the rate is 1: a layer that starts at
    zero leaves it by a plain SGD step.

    Args:
        params: As for any torch optimizer; a layer is one parameter tensor.
        lr: Multiplies every layer's rate.
        momentum: Applied after the layer's rate, in [0, 1).
        weight_decay: At least 0.
        trust: The trust coefficient, above 0.
        exclude_biases_and_norms: Leave tensors of at most one dimension without layer rate and without weight
            decay, as many published recipes do.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        exclude_biases_and_norms: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, {**defaults, "exclude_biases_and_norms": exclude_biases_and_norms})

    def rule(self, group: Group) -> Rule:
        return _with_exclusions if group["exclude_biases_and_norms"] else lars
