"""LAMB: Adam's direction, at every layer's own rate."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from batchscope.optim.adam import MOMENTS, normalized_moments
from batchscope.optim.adapter import Group, Parameters, RuleOptimizer
from batchscope.optim.lars import norms
from batchscope.optim.rule import Hyper, LayerRate, Rule, Scalar, Slots


def _direction(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    ratio, factor, slots = normalized_moments(gradient, slots, step, hyper)
    return factor * ratio + hyper["weight_decay"] * parameter, slots


def _rate(measured: tuple[Tensor, ...], hyper: Hyper) -> Tensor:
    weight, direction = measured
    return torch.where((weight > 0) & (direction > 0), weight / direction, 1.0)


def _move(
    parameter: Tensor, direction: Tensor, slots: Slots, rate: Scalar, step: Scalar, hyper: Hyper
) -> tuple[Tensor, Slots]:
    return parameter - hyper["learning_rate"] * (rate * direction), slots


lamb = Rule(
    "lamb",
    {"learning_rate": None, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6, "weight_decay": 0.0},
    MOMENTS,
    _move,
    direction=_direction,
    layer=LayerRate(norms, _rate),
)


class LAMB(RuleOptimizer):
    """Layer-wise adaptive moments (You 2019b, its algorithm 2 with the identity for phi).

    With Adam's bias-corrected moments, u = m_hat / (sqrt(v_hat) + eps) + weight_decay w and
    w <- w - lr (norm(w) / norm(u)) u: a step is lr norm(w) long. Where a layer's weights or its u are all zero, the
    ratio of norms is taken as 1.

    Args:
        params: As for any torch optimizer; a layer is one parameter tensor.
        lr: The length of a step as a share of the layer's norm.
        betas: Of Adam's moments, in [0, 1).
        eps: Added to sqrt(v_hat), at least 0.
        weight_decay: Decoupled from the moments, inside the ratio; at least 0.
        exclude_biases_and_norms: Leave tensors of at most one dimension without layer rate and without weight
            decay: they get plain Adam steps.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        exclude_biases_and_norms: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "exclude_biases_and_norms": exclude_biases_and_norms})

    def rule(self, group: Group) -> Rule:
        return replace(lamb, exclude_biases_and_norms=group["exclude_biases_and_norms"])
