"""LARS: every layer moves by the same share of its own norm."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from batchscope.optim.adapter import Group, Parameters, RuleOptimizer
from batchscope.optim.momentum import decayed_heavy_ball
from batchscope.optim.reduce import norm
from batchscope.optim.rule import Hyper, LayerRate, Rule


def norms(parameter: Tensor, direction: Tensor, hyper: Hyper) -> tuple[Tensor, ...]:
    """Those of a layer's weights and of the direction that they are to move in."""
    return norm(parameter), norm(direction)


def _rate(measured: tuple[Tensor, ...], hyper: Hyper) -> Tensor:
    weight, gradient = measured
    rate = hyper["trust"] * weight / (gradient + hyper["weight_decay"] * weight)
    return torch.where((weight > 0) & (gradient > 0), rate, 1.0)


lars = Rule(
    "lars",
    {"learning_rate": None, "momentum": 0.9, "weight_decay": 0.0, "trust": 0.001},
    ("momentum_buffer",),
    decayed_heavy_ball,
    layer=LayerRate(norms, _rate),
)


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
        return replace(lars, exclude_biases_and_norms=group["exclude_biases_and_norms"])
