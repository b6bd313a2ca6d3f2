"""Plain SGD, SGD with heavy-ball momentum, and Nesterov momentum."""

from __future__ import annotations

from torch import Tensor

from batchscope.optim.adapter import Group, Parameters, RuleOptimizer
from batchscope.optim.rule import Hyper, Rule, Scalar, Slots


def heavy_ball(
    parameter: Tensor, direction: Tensor, slots: Slots, rate: Scalar, step: Scalar, hyper: Hyper
) -> tuple[Tensor, Slots]:
    """V <- momentum v + rate d, w <- w - learning_rate v: the momentum comes after the layer's own rate."""
    velocity = hyper["momentum"] * slots["momentum_buffer"] + rate * direction
    return parameter - hyper["learning_rate"] * velocity, {"momentum_buffer": velocity}


def decayed_heavy_ball(
    parameter: Tensor, direction: Tensor, slots: Slots, rate: Scalar, step: Scalar, hyper: Hyper
) -> tuple[Tensor, Slots]:
    """Heavy ball along the gradient of the loss plus weight_decay/2 norm(w)^2."""
    return heavy_ball(parameter, direction + hyper["weight_decay"] * parameter, slots, rate, step, hyper)


def _sgd(
    parameter: Tensor, direction: Tensor, slots: Slots, rate: Scalar, step: Scalar, hyper: Hyper
) -> tuple[Tensor, Slots]:
    return parameter - hyper["learning_rate"] * (direction + hyper["weight_decay"] * parameter), slots


def _nesterov(
    parameter: Tensor, direction: Tensor, slots: Slots, rate: Scalar, step: Scalar, hyper: Hyper
) -> tuple[Tensor, Slots]:
    decayed = direction + hyper["weight_decay"] * parameter
    velocity = hyper["momentum"] * slots["momentum_buffer"] + decayed
    ahead = decayed + hyper["momentum"] * velocity
    return parameter - hyper["learning_rate"] * ahead, {"momentum_buffer": velocity}


_WITH_MOMENTUM = {"learning_rate": None, "momentum": 0.9, "weight_decay": 0.0}

sgd = Rule("sgd", {"learning_rate": None, "weight_decay": 0.0}, (), _sgd)
momentum = Rule("momentum", _WITH_MOMENTUM, ("momentum_buffer",), decayed_heavy_ball)
nesterov = Rule("nesterov", _WITH_MOMENTUM, ("momentum_buffer",), _nesterov)


class SGD(RuleOptimizer):
    """Stochastic gradient descent: w <- w - lr (g + weight_decay w); Sh19 equation 5.

    Raises:
        StudyError: If a hyperparameter is out of its range.
    """

    def __init__(self, params: Parameters, lr: float, *, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def rule(self, group: Group) -> Rule:
        return sgd


class Momentum(RuleOptimizer):
    """SGD with heavy-ball momentum: v <- momentum v + g + weight_decay w, w <- w - lr v; Sh19 section 2.2.

    S18's accumulation (equations 6 and 7), A <- A - (1 - m) A + g with the step lr A, is the same iteration. The
    effective learning rate is lr / (1 - momentum), reached after about 1 / (1 - momentum) steps (S18 appendix A);
    momentum 0 is plain SGD.

    Raises:
        StudyError: If a hyperparameter is out of its range.
    """

    def __init__(self, params: Parameters, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def rule(self, group: Group) -> Rule:
        return momentum


class Nesterov(RuleOptimizer):
    """SGD with Nesterov momentum: v <- momentum v + g', w <- w - lr (g' + momentum v); Sh19 section 2.2.

    g' is g + weight_decay w. It is the form of ``torch.optim.SGD(nesterov=True)``; momentum 0 is plain SGD.

    Raises:
        StudyError: If a hyperparameter is out of its range.
    """

    def __init__(self, params: Parameters, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def rule(self, group: Group) -> Rule:
        return nesterov
