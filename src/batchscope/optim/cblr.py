"""CBLR: the learning rate of every single parameter from the curvature of the loss along it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor

from batchscope.errors import StudyError
from batchscope.hutchinson import hessian_diagonal_of_graph, signs
from batchscope.optim.adapter import Group, Parameters, RuleOptimizer
from batchscope.optim.momentum import heavy_ball
from batchscope.optim.radius import GUARDS, TINY, radius
from batchscope.optim.rule import Hyper, Numbers, Rule, Scalar, Slots, clamp
from batchscope.seeds import torch_generator


def _exact(
    parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper, hessian_diagonal: Tensor
) -> tuple[Tensor, Slots]:
    slope = gradient + hyper["weight_decay"] * parameter
    square = slope * slope + 1
    curvature_radius = square * square**0.5 / abs(hessian_diagonal + hyper["weight_decay"])
    bounded = clamp(curvature_radius, hyper["minimum_radius"], hyper["maximum_radius"])
    return heavy_ball(parameter, bounded * slope, slots, hyper)


def _estimate(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    slope = gradient + hyper["weight_decay"] * parameter
    return heavy_ball(parameter, radius(parameter, slope, hyper) * slope, slots, hyper)


def _estimate_in_place(
    parameters: list[Tensor], gradients: list[Tensor], slots: Mapping[str, list[Tensor]], step: int, hyper: Numbers
) -> None:
    for w, g, v in zip(parameters, gradients, slots["momentum_buffer"], strict=True):
        slope = g.add(w, alpha=hyper["weight_decay"])
        bounded = torch.div(w, slope + TINY).abs_().clamp_(hyper["minimum_radius"], hyper["maximum_radius"])
        v.mul_(hyper["momentum"]).addcmul_(bounded, slope)
        w.add_(v, alpha=-hyper["learning_rate"])


cblr = Rule("cblr", ("momentum_buffer",), _exact)
cblr_estimate = Rule("cblr_estimate", ("momentum_buffer",), _estimate, _estimate_in_place)
_RULES = {"hessian": cblr, "estimate": cblr_estimate}


class CBLR(RuleOptimizer):
    """Curvature-based learning rate (GZ20 equations 9 to 11 and 17): every parameter's rate is its radius R_i.

    ``curvature="hessian"`` is the definition, R_i = (1 + g_i^2)^(3/2) / abs(h_ii), with the Hessian's diagonal
    h_ii by Hutchinson's estimator from seeded probes. It needs second derivatives, so ``backward`` takes the place of
    ``loss.backward()``:

        optimizer.zero_grad()
        optimizer.backward(loss_function(model(inputs), targets))
        optimizer.step()

    ``curvature="estimate"`` is the paper's cheap form, R_i = abs(w_i / g_i). It is called a curvature radius there, but
    drops (1 + g_i^2)^(3/2) and takes the minimum to be at w_i = 0; its step is lr abs(w_i) against the sign of g_i
    wherever the bounds do not act.

    v <- momentum v + R_i (g + weight_decay w), w <- w - lr v; with weight decay, g and h stand for those of
    the decayed loss.

    Args:
        params: As for any torch optimizer.
        lr: Multiplies every R_i (gamma in GZ20).
        curvature: "hessian" or "estimate".
        probes: Hessian-vector products for one estimate; each costs about one more backward pass.
        seed: Of the probes.
        momentum: Applied after R_i, in [0, 1).
        weight_decay: At least 0.
        minimum_radius: Bounds R_i from below, for w_i -> 0 (GZ20 equation 18).
        maximum_radius: Bounds R_i from above, for g_i -> 0 (GZ20 equation 19), and for h_ii -> 0.

    Raises:
        StudyError: If ``curvature`` is neither word.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor,
        *,
        curvature: Literal["hessian", "estimate"] = "hessian",
        probes: int = 1,
        seed: int = 0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        minimum_radius: float = GUARDS["minimum_radius"],
        maximum_radius: float = GUARDS["maximum_radius"],
    ) -> None:
        if probes < 1:
            raise StudyError(f"probes must be at least 1, got {probes}")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "curvature": curvature}
        defaults |= {"minimum_radius": minimum_radius, "maximum_radius": maximum_radius}
        super().__init__(params, {**defaults, "probes": probes, "seed": seed, "backward_calls": 0})

    def rule(self, group: Group) -> Rule:
        if group["curvature"] not in _RULES:
            raise StudyError(f'curvature must be "hessian" or "estimate", got {group["curvature"]!r}')
        return _RULES[group["curvature"]]

    def backward(self, loss: Tensor, *, loss_scale: float = 1.0) -> None:
        """Add the gradients of ``loss`` to ``.grad``, and the Hessian's diagonal to what ``step`` will use.

        Several calls before a step add up, as gradients do. Gradient hooks, and so DistributedDataParallel, see nothing
        of it.

        Args:
            loss: A scalar.
            loss_scale: What the loss was multiplied by: ``scaler.get_scale()`` under a GradScaler, which divides
                the gradients by it again but knows nothing of the Hessian.
        """
        found = torch.autograd.grad(loss, self._parameters(), create_graph=True, allow_unused=True)
        used = {p: g for p, g in zip(self._parameters(), found, strict=True) if g is not None}
        options = self.param_groups[0]
        identity = (options["seed"], "hutchinson", options["backward_calls"])
        options["backward_calls"] += 1
        generators = {p.device: torch_generator(*identity, device=p.device) for p in used}
        probes = [[signs(p, generators[p.device]) for p in used] for _ in range(options["probes"])]
        diagonals = hessian_diagonal_of_graph(list(used.values()), list(used), probes)
        with torch.no_grad():
            for (parameter, gradient), diagonal in zip(used.items(), diagonals, strict=True):
                state = self.state[parameter]
                state["hessian_diagonal"] = state.get("hessian_diagonal", 0) + diagonal / loss_scale
                before = 0 if parameter.grad is None else parameter.grad
                parameter.grad = before + gradient.detach()

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def hessian_diagonal(self, parameter: Tensor) -> Tensor:
        """What ``backward`` estimated since the last step; used once.

        Raises:
            StudyError: If ``backward`` was not called.
        """
        diagonal = self.state[parameter].pop("hessian_diagonal", None)
        if diagonal is None:
            raise StudyError(
                'CBLR with curvature="hessian" found a gradient without second derivatives: call '
                'optimizer.backward(loss) in place of loss.backward(), or choose curvature="estimate"'
            )
        return cast(Tensor, diagonal)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients, and with them what is known of the Hessian."""
        super().zero_grad(set_to_none)
        for parameter in self._parameters():
            self.state.get(parameter, {}).pop("hessian_diagonal", None)
