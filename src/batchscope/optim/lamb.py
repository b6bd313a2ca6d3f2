"""LAMB: Adam's direction, at every layer's own rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from batchscope.optim.adam import MOMENTS, adam, adam_kernel, normalized_moments
from batchscope.optim.adapter import Group, Parameters, RuleOptimizer
from batchscope.optim.rule import Hyper, Numbers, Rule, Scalar, Slots, is_no_bias_or_norm, norm, without_decay

_moments_in_place = adam_kernel(torch._fused_adam_)


def _lamb(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    ratio, factor, slots = normalized_moments(gradient, slots, step, hyper)
    direction = factor * ratio + hyper["weight_decay"] * parameter
    rate = _rate(norm(parameter), norm(direction))
    return parameter - hyper["learning_rate"] * (rate * direction), slots


def _rate(weight: Tensor, direction: Tensor) -> Tensor:
    return torch.where((weight > 0) & (direction > 0), weight / direction, 1.0)


def _in_place(
    parameters: list[Tensor], gradients: list[Tensor], slots: Mapping[str, list[Tensor]], step: int, hyper: Numbers
) -> None:
    """Torch's kernel of Adam makes the direction, as the step of a weight that is zero at a learning rate of -1."""
    memory = parameters[0].new_empty(max(parameter.numel() for parameter in parameters))
    plain = {**hyper, "learning_rate": -1.0, "weight_decay": 0.0}
    for w, g, m, v in zip(parameters, gradients, slots["first_moment"], slots["second_moment"], strict=True):
        direction = memory.as_strided(w.shape, w.stride()).zero_()
        _moments_in_place([direction], [g], {"first_moment": [m], "second_moment": [v]}, step, plain)
        if hyper["weight_decay"]:
            direction.add_(w, alpha=hyper["weight_decay"])
        w.add_(direction, alpha=-hyper["learning_rate"] * float(_rate(norm(w), norm(direction))))


lamb = Rule("lamb", MOMENTS, _lamb, _in_place, by_layer=True)
_with_exclusions = replace(lamb, takes=is_no_bias_or_norm, otherwise=without_decay(adam))


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
        return _with_exclusions if group["exclude_biases_and_norms"] else lamb
