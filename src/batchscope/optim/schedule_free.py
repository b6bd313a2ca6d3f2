"""Schedule-free AdamW: trained at one point, evaluated at an average, and no schedule to choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import overload

import torch
from torch import Tensor

from batchscope.errors import StudyError
from batchscope.optim.adapter import Parameters, RuleOptimizer, hyperparameters
from batchscope.optim.rule import Hyper, Numbers, Rule, Scalar, Slots


def _schedule_free(
    parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper
) -> tuple[Tensor, Slots]:
    y, z = parameter, slots["iterate"]
    second = hyper["beta2"] * slots["second_moment"] + (1 - hyper["beta2"]) * (gradient * gradient)
    rate = hyper["learning_rate"] * (1 - hyper["beta2"] ** step) ** 0.5
    direction = gradient / (second**0.5 + hyper["epsilon"]) + hyper["weight_decay"] * y
    total = slots["rate_sum"] + rate * rate
    share = torch.where(total > 0, rate * rate / total, 0.0)
    moved = y + share * (z - y) - rate * (1 - hyper["beta1"] * (1 - share)) * direction
    return moved, {"iterate": z - rate * direction, "second_moment": second, "rate_sum": total}


def _in_place(
    parameters: list[Tensor], gradients: list[Tensor], slots: Mapping[str, list[Tensor]], step: int, hyper: Numbers
) -> None:
    beta1, beta2 = hyper["beta1"], hyper["beta2"]
    rate = hyper["learning_rate"] * (1 - beta2**step) ** 0.5
    columns = (slots["iterate"], slots["second_moment"], slots["rate_sum"])
    for y, g, z, v, total in zip(parameters, gradients, *columns, strict=True):
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        direction = torch.div(g, v.sqrt().add_(hyper["epsilon"]))
        if hyper["weight_decay"]:
            direction.add_(y, alpha=hyper["weight_decay"])
        weight = float(total.add_(rate * rate))
        share = rate * rate / weight if weight > 0 else 0.0
        y.lerp_(z, share).add_(direction, alpha=-rate * (1 - beta1 * (1 - share)))
        z.add_(direction, alpha=-rate)


def _begin(parameter: Tensor) -> Slots:
    zero = parameter.new_zeros(())
    return {"iterate": parameter.clone(), "second_moment": torch.zeros_like(parameter), "rate_sum": zero}


def _evaluation(parameter: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
    return parameter + (1 - 1 / hyper["beta1"]) * (slots["iterate"] - parameter)


schedule_free_adamw = Rule(
    "schedule_free_adamw",
    ("iterate", "second_moment", "rate_sum"),
    _schedule_free,
    _in_place,
    begin=_begin,
    evaluation=_evaluation,
)


class ScheduleFreeAdamW(RuleOptimizer):
    """Schedule-free AdamW (Defazio et al. 2024, "The road less scheduled", algorithm 1).

    Gradients are taken at y = (1 - beta1) z + beta1 x, and the model is evaluated at x, an average of the iterates z:
    v <- beta2 v + (1 - beta2) g^2, rate = lr sqrt(1 - beta2^t), d = g / (sqrt(v) + eps) + weight_decay y,
    z <- z - rate d, x <- (1 - c) x + c z with c = rate^2 / (sum of rate^2 so far). A warm-up is the learning rate's.

    The parameters are y while training. ``eval()`` puts x in their place, for evaluation and for what is kept of the
    model, and ``train()`` puts y back, bit for bit. Of batch norm, whose statistics are those of y, the authors advise
    to pass some training batches through the model after ``eval()`` and before evaluation.

    Args:
        params: As for any torch optimizer.
        lr: Constant after the warm-up.
        betas: beta1, how near y is to the average, in (0, 1); beta2 of the second moment, in [0, 1).
        eps: Added to sqrt(v), at least 0.
        weight_decay: Decoupled, at y; at least 0.
    """

    own = schedule_free_adamw

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "evaluated": False}
        )

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average x where the parameters are."""
        for group in self.param_groups:
            if group["evaluated"]:
                continue
            group["evaluated"], hyper = True, hyperparameters(self.own, group)
            for parameter in group["params"]:
                state = self.state.get(parameter, {})
                if "step" in state:
                    state["training_point"] = parameter.detach().clone()
                    at = parameter.to(state["iterate"].dtype)
                    parameter.copy_(_evaluation(at, {"iterate": state["iterate"]}, hyper))

    @torch.no_grad()
    def train(self) -> None:
        """Put the training point y back."""
        for group in self.param_groups:
            group["evaluated"] = False
            for parameter in group["params"]:
                if "training_point" in self.state.get(parameter, {}):
                    parameter.copy_(self.state[parameter].pop("training_point"))

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient, which must have been taken at y.

        Raises:
            StudyError: After ``eval()``, without ``train()``.
        """
        if any(group["evaluated"] for group in self.param_groups):
            raise StudyError("the parameters are those to evaluate: call optimizer.train() before training on")
        return super().step(closure)
