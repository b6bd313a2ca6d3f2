"""Plain SGD, SGD with heavy-ball momentum, and Nesterov momentum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from batchscope.optim.adapter import Parameters, RuleOptimizer
from batchscope.optim.rule import Hyper, InPlace, Numbers, Rule, Scalar, Slots


def heavy_ball(parameter: Tensor, direction: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
    """V <- momentum v + d, w <- w - learning_rate v."""
    velocity = hyper["momentum"] * slots["momentum_buffer"] + direction
    return parameter - hyper["learning_rate"] * velocity, {"momentum_buffer": velocity}


def heavy_balls_at_rates(
    parameters: list[Tensor],
    gradients: list[Tensor],
    velocities: list[Tensor],
    rates: Sequence[float],
    hyper: Numbers,
) -> None:
    """V <- momentum v + r (g + weight_decay w), w <- w - learning_rate v in place, with a rate r for each layer.

    Torch's kernel has no r. But v / r obeys its equations, with the momentum divided by r and the learning rate
    multiplied by it: so the kernel is given v, makes v / r of it, and that is multiplied by r.
    """
    momentum, rate, decay = hyper["momentum"], hyper["learning_rate"], hyper["weight_decay"]
    for w, g, v, r in zip(parameters, gradients, velocities, rates, strict=True):
        if 1e-20 < r < 1e20 and momentum:
            _fused_sgd([w], [g], [v], decay=decay, momentum=momentum / r, rate=rate * r, nesterov=False)
            v.mul_(r)
        else:
            v.mul_(momentum).add_(g.add(w, alpha=decay), alpha=r)
            w.add_(v, alpha=-rate)


def _sgd(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    return parameter - hyper["learning_rate"] * (gradient + hyper["weight_decay"] * parameter), slots


def _momentum(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    return heavy_ball(parameter, gradient + hyper["weight_decay"] * parameter, slots, hyper)


def _nesterov(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    decayed = gradient + hyper["weight_decay"] * parameter
    velocity = hyper["momentum"] * slots["momentum_buffer"] + decayed
    ahead = decayed + hyper["momentum"] * velocity
    return parameter - hyper["learning_rate"] * ahead, {"momentum_buffer": velocity}


def _kernel(*, nesterov: bool) -> InPlace:
    def in_place(
        parameters: list[Tensor],
        gradients: list[Tensor],
        slots: Mapping[str, list[Tensor]],
        step: int,
        hyper: Numbers,
    ) -> None:
        momentum, decay = hyper.get("momentum", 0.0), hyper["weight_decay"]
        velocities = slots.get("momentum_buffer", [])
        if velocities and not momentum:  # the kernel then refuses velocities, which are the gradients
            for velocity, gradient, parameter in zip(velocities, gradients, parameters, strict=True):
                velocity.copy_(torch.add(gradient, parameter, alpha=decay))
        _fused_sgd(
            parameters,
            gradients,
            velocities if momentum else [],
            decay=decay,
            momentum=momentum,
            rate=hyper["learning_rate"],
            nesterov=nesterov and bool(momentum),
        )

    return in_place


def _fused_sgd(
    parameters: list[Tensor],
    gradients: list[Tensor],
    velocities: list[Tensor],
    *,
    decay: float,
    momentum: float,
    rate: float,
    nesterov: bool,
) -> None:
    torch._fused_sgd_(
        parameters,
        gradients,
        velocities,
        weight_decay=decay,
        momentum=momentum,
        lr=rate,
        dampening=0.0,
        nesterov=nesterov,
        maximize=False,
        is_first_step=False,
    )


sgd = Rule("sgd", (), _sgd, _kernel(nesterov=False), fused=True)
momentum = Rule("momentum", ("momentum_buffer",), _momentum, _kernel(nesterov=False), fused=True)
nesterov = Rule("nesterov", ("momentum_buffer",), _nesterov, _kernel(nesterov=True), fused=True)


class SGD(RuleOptimizer):
    """Stochastic gradient descent: w <- w - lr (g + weight_decay w); Sh19 equation 5.

    Raises:
        StudyError: If a hyperparameter is out of its range.
    """

    own = sgd

    def __init__(self, params: Parameters, lr: float, *, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})


class Momentum(RuleOptimizer):
    """SGD with heavy-ball momentum: v <- momentum v + g + weight_decay w, w <- w - lr v; Sh19 section 2.2.

    S18's accumulation (equations 6 and 7), A <- A - (1 - m) A + g with the step lr A, is the same iteration. The
    effective learning rate is lr / (1 - momentum), reached after about 1 / (1 - momentum) steps (S18 appendix A);
    momentum 0 is plain SGD.

    Raises:
        StudyError: If a hyperparameter is out of its range.
    """

    own = momentum

    def __init__(self, params: Parameters, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})


class Nesterov(RuleOptimizer):
    """SGD with Nesterov momentum: v <- momentum v + g', w <- w - lr (g' + momentum v); Sh19 section 2.2.

    g' is g + weight_decay w. It is the form of ``torch.optim.SGD(nesterov=True)``; momentum 0 is plain SGD.

    Raises:
        StudyError: If a hyperparameter is out of its range.
    """

    own = nesterov

    def __init__(self, params: Parameters, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
