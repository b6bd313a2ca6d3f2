"""Muon: momentum whose matrices are made orthogonal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from batchscope.optim.adam import adamw
from batchscope.optim.adapter import Parameters, RuleOptimizer
from batchscope.optim.rule import Hyper, Rule, Scalar, Slots

# Of the quintic a x + b x^3 + c x^5: steep at zero, and five of it bring singular values near 1 (Jordan et al. 2024).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_TINY = 1e-7


def orthogonalized(matrix: Tensor) -> Tensor:
    """U V^T of a matrix U S V^T, nearly: five Newton-Schulz iterations leave singular values between 0.7 and 1.2."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.mT if tall else matrix
    x = x / torch.linalg.vector_norm(x).clamp(min=_TINY)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


def _muon(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    momentum = hyper["momentum"] * slots["momentum_buffer"] + (1 - hyper["momentum"]) * gradient
    ahead = hyper["momentum"] * momentum + (1 - hyper["momentum"]) * gradient
    rate = 0.2 * math.sqrt(max(parameter.shape)) * hyper["learning_rate"]
    kept = (1 - hyper["learning_rate"] * hyper["weight_decay"]) * parameter
    return kept - rate * orthogonalized(ahead), {"momentum_buffer": momentum}


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim == 2


muon = Rule("muon", ("momentum_buffer",), _muon, by_layer=True, takes=_is_matrix, otherwise=adamw)


class Muon(RuleOptimizer):
    """Muon (Jordan et al. 2024) for matrices, AdamW for everything else.

    m <- momentum m + (1 - momentum) g; O = NewtonSchulz(momentum m + (1 - momentum) g), which has the singular vectors
    of its argument and singular values near 1; w <- (1 - lr weight_decay) w - lr 0.2 sqrt(max(rows, columns)) O.

    The last factor gives a step the root mean square of AdamW's (Liu et al. 2025, "Muon is scalable for LLM training",
    equation 4), so that one learning rate and one weight decay serve both; it is
    ``torch.optim.Muon(adjust_lr_fn="match_rms_adamw")``, which takes matrices only and iterates in bfloat16, where
    this is in the parameter's own precision, float32 at least.

    A tensor that is not of two dimensions (biases, norms, convolutions) is AdamW's. By the authors' practice so are
    embeddings and the last layer, which are matrices too: give those to an optimizer of their own.

    Args:
        params: As for any torch optimizer.
        lr: Of both.
        momentum: Of the matrices, in [0, 1).
        weight_decay: Decoupled, of both; at least 0.
        betas: AdamW's, in [0, 1).
        eps: AdamW's, at least 0.
    """

    own = muon

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "betas": betas, "eps": eps}
        super().__init__(params, defaults)
