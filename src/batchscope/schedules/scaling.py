"""Rules that carry hyperparameters tuned at one batch size to another.

Every rule answers for every hyperparameter: what it becomes, or why the rule leaves it alone.
Legend: k = B / B_0, eta learning rate, wd weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from batchscope.errors import ScheduleError
from batchscope.schedules.compose import Ramp
from batchscope.schedules.learning_rate import Number, holds
from batchscope.schedules.table import SCALING_RULES, ScalingRule

_SGD_ONLY = "a rule for SGD, which says nothing about Adam's averages"
_MOMENTUM = {
    "constant": "the rule changes nothing",
    "linear": "at fixed momentum eta/B keeps the noise scale eta N / (B (1 - momentum)) (S18 equation 5)",
    "square_root": "the rule keeps the noise of one update, which momentum multiplies alike at every batch size",
    "adam_square_root": "no hyperparameter of Adam; its beta1 is scaled",
}
_WEIGHT_DECAY = {
    "constant": "the rule changes nothing, so weights shrink 1/k as much an epoch; wd times k would keep that",
    "linear": "eta wd grows by k while updates an epoch fall by k, so weights shrink as much an epoch as before",
    "square_root": "the rule is silent; weights shrink 1/sqrt(k) as much an epoch, wd times sqrt(k) would keep that",
    "adam_square_root": "the rule is silent; decoupled (AdamW), weights shrink 1/sqrt(k) as much an epoch, "
    "wd times sqrt(k) would keep that",
}


@dataclass(frozen=True)
class Scaled:
    """Hyperparameters for a new batch size; None where none was given.

    ``warm_up`` multiplies the scaled learning rate, in steps at the new batch size. ``changed`` and
    ``kept`` say of every hyperparameter that was given what the rule did to it, and why.
    """

    learning_rate: Number
    momentum: Number | None
    weight_decay: Number | None
    beta1: Number | None
    beta2: Number | None
    epsilon: Number | None
    warm_up: Ramp | None
    changed: Mapping[str, str]
    kept: Mapping[str, str]


def scale_hyperparameters(
    rule: ScalingRule,
    *,
    base_batch_size: int,
    batch_size: int,
    learning_rate: Number,
    momentum: Number | None = None,
    weight_decay: Number | None = None,
    beta1: Number | None = None,
    beta2: Number | None = None,
    epsilon: Number | None = None,
    warm_up_examples: float | None = None,
) -> Scaled:
    """Carry hyperparameters from ``base_batch_size`` to ``batch_size`` (k times it).

    * "constant", base learning rate: unchanged (G18 section 3).
    * "linear", linear: eta k (Goyal 2017; G18). ML18 section 2's constant eta/B is the same rule.
    * "square_root", square root: eta sqrt(k) (G18 section 2, Hoffer 2017).
    * "adam_square_root": eta sqrt(k), 1 - beta1 and 1 - beta2 times k, epsilon / sqrt(k) (Malladi 2022, the
      scaling rule for Adam from its SDE). Where k (1 - beta) would pass 1 the average has no memory left:
      beta is held at 0, and ``changed`` says so.

    Args:
        rule: Which.
        base_batch_size: B_0, where the values were tuned.
        batch_size: B.
        learning_rate: A number or a tensor, like all hyperparameters here.
        momentum: Of SGD.
        weight_decay: Coupled or decoupled.
        beta1: Of Adam.
        beta2: Of Adam.
        epsilon: Of Adam.
        warm_up_examples: Length of the warm-up, W epochs times N; the same at every batch size. "linear" and
            "square_root" warm up from the base rate (G18, W = 10 epochs), "adam_square_root" from 0.

    Raises:
        ScheduleError: If the rule is unknown or a value cannot be scaled.
    """
    if rule not in SCALING_RULES:
        raise ScheduleError(f"a scaling rule is one of {', '.join(SCALING_RULES)}, got {rule!r}")
    for name, size in (("base_batch_size", base_batch_size), ("batch_size", batch_size)):
        if size < 1:
            raise ScheduleError(f"{name} must be at least 1, got {size}")
    if not holds((learning_rate > 0) & (learning_rate < math.inf)):
        raise ScheduleError(f"learning_rate must be > 0 and finite, got {learning_rate}")
    k = batch_size / base_batch_size
    factor = k ** SCALING_RULES[rule]
    given = {
        "momentum": momentum,
        "weight_decay": weight_decay,
        "beta1": beta1,
        "beta2": beta2,
        "epsilon": epsilon,
    }
    kept = {"momentum": _MOMENTUM[rule], "weight_decay": _WEIGHT_DECAY[rule]}
    changed: dict[str, str] = {}
    if rule == "constant":
        kept["learning_rate"] = "one rate for all batch sizes is the rule"
    else:
        changed["learning_rate"] = f"times {'k' if rule == 'linear' else 'sqrt(k)'} = {factor:g}"
    if rule == "adam_square_root":
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if beta is not None:
                given[name], changed[name] = _shorter_memory(name, beta, k)
        if epsilon is not None:
            given["epsilon"], changed["epsilon"] = epsilon / factor, f"divided by sqrt(k) = {factor:g}"
    else:
        kept |= dict.fromkeys(("beta1", "beta2", "epsilon"), _SGD_ONLY)
    warm_up = None
    if warm_up_examples is not None:
        warm_up, reason = _warm_up(rule, warm_up_examples / batch_size, factor)
        (kept if warm_up is None else changed)["warm_up"] = reason
    return Scaled(
        learning_rate=learning_rate * factor,
        warm_up=warm_up,
        changed=changed,
        kept={name: why for name, why in kept.items() if given.get(name, 0) is not None},
        **given,
    )


def _shorter_memory(name: str, beta: Number, k: float) -> tuple[Number, str]:
    if not holds((beta >= 0) & (beta < 1)):
        raise ScheduleError(f"{name} must be at least 0 and less than 1, got {beta}")
    scaled = 1 - k * (1 - beta)
    bounded = scaled.clamp_min(0) if isinstance(scaled, Tensor) else max(scaled, 0.0)
    did = f"1 - {name} times k = {k:g}"
    return bounded, did if holds(scaled >= 0) else f"{did} passes 1: held at 0, beyond the reach of the rule"


def _warm_up(rule: str, steps: float, factor: float) -> tuple[Ramp | None, str]:
    length = f"{steps:g} steps, as many examples as at the base batch size"
    if rule == "adam_square_root":
        return Ramp(steps), f"from 0 over {length}"
    if factor <= 1:
        return None, "not needed: the rate is not above the base rate"
    return Ramp(steps, 1 / factor), f"from the base rate over {length}"
