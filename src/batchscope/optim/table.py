"""Every optimizer's names, defaults, ranges and equivalents, in one table that is read without torch.

A row names a rule of ``batchscope.optim`` (the pure function that a study runs) and its class (the drop-in). What a
study may search, what a class refuses, what a snippet writes and what a test compares with are read from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from batchscope.errors import StudyError
from batchscope.user_file import is_reference


@dataclass(frozen=True)
class Hyperparameter:
    """What a hyperparameter is called by torch, and the values that it may have.

    Attributes:
        argument: Of the class in torch's words; empty if it is called the same.
        low: The least value.
        high: What values are below; infinite if there is no such bound.
        above: Whether ``low`` itself is refused.
    """

    argument: str = ""
    low: float = 0.0
    high: float = math.inf
    above: bool = False

    def check(self, shown: str, value: float) -> None:
        """Refuse a value out of range.

        Raises:
            StudyError: That calls the hyperparameter what the caller does.
        """
        if self.low < value < self.high or (value == self.low and not self.above):
            return
        start = "above" if self.above else "at least"
        rule = f"in {'(' if self.above else '['}{self.low:g}, {self.high:g})" if self.high < math.inf else ""
        raise StudyError(f"{shown} must be {rule or f'{start} {self.low:g}'}, got {value}")


_AVERAGE = Hyperparameter(high=1.0)

HYPERPARAMETERS: Mapping[str, Hyperparameter] = MappingProxyType(
    {
        "learning_rate": Hyperparameter("lr"),
        "momentum": _AVERAGE,
        "weight_decay": Hyperparameter(),
        "beta1": _AVERAGE,
        "beta2": _AVERAGE,
        "epsilon": Hyperparameter("eps"),
        "smoothing": Hyperparameter("alpha", high=1.0),
        "trust": Hyperparameter(above=True),
        "minimum_radius": Hyperparameter(above=True),
        "maximum_radius": Hyperparameter(above=True),
        "decay_exponent": Hyperparameter(above=True),
        "clip_threshold": Hyperparameter(above=True),
        "minimum_scale": Hyperparameter(above=True),
        "clip_gradient_norm": Hyperparameter(above=True),
        "average_weights": Hyperparameter(high=1.0, above=True),
    }
)
"""By the name in a study; the last two go with any optimizer.

Two are one argument in torch: ``betas`` is (beta1, beta2).
"""


@dataclass(frozen=True)
class Row:
    """One optimizer.

    Attributes:
        module: Of ``batchscope.optim``, where the rule and its class are.
        cls: The class.
        defaults: Every hyperparameter with its default; None where one must be given.
        options: Arguments of the class that choose this rule among those of the class.
        torch: The class in ``torch.optim`` that does the same, if there is one.
        torch_options: Its further arguments.
        needs_hessian_diagonal: Whether the rule must be given the diagonal of the Hessian.
        averages: Whether the model is evaluated at an average that the rule keeps.
        ranges: Of hyperparameters whose range is another than elsewhere.
    """

    module: str
    cls: str
    defaults: Mapping[str, float | None]
    options: Mapping[str, str] = field(default_factory=dict)
    torch: str = ""
    torch_options: Mapping[str, Any] = field(default_factory=dict)
    needs_hessian_diagonal: bool = False
    averages: bool = False
    ranges: Mapping[str, Hyperparameter] = field(default_factory=dict)

    def check(self, name: str, value: float, shown: str = "") -> None:
        """Refuse a value that a hyperparameter of this optimizer cannot have.

        A value out of range is a ``StudyError`` that calls the hyperparameter ``shown``, or what torch calls it.
        """
        known = self.ranges.get(name, HYPERPARAMETERS[name])
        known.check(shown or known.argument or name, value)


def arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters by the names of a study as keyword arguments in torch's words."""
    named = {HYPERPARAMETERS[name].argument or name: value for name, value in values.items()}
    if "beta1" in named:
        named["betas"] = (named.pop("beta1"), named.pop("beta2"))
    return named


def hyperparameter(name: str, given: Mapping[str, Any]) -> Any:
    """The value of a hyperparameter among arguments in torch's words."""
    if name in ("beta1", "beta2") and "betas" in given:
        return given["betas"][name == "beta2"]
    return given[HYPERPARAMETERS[name].argument or name]


TORCH = "torch.optim."


def is_users(name: str) -> bool:
    """Whether an optimizer is a class of the user's or of torch's, not one of the table."""
    return name.startswith(TORCH) or is_reference(name)


def may_take(optimizer: str, name: str) -> bool:
    """Whether a name of a search space can mean something to an optimizer.

    No if it is a hyperparameter of others in the table alone; what a class of the user's takes, the class says.
    """
    if optimizer not in TABLE or name in TABLE[optimizer].defaults:
        return True
    return not any(name in row.defaults for row in TABLE.values())


def own_arguments(values: Mapping[str, float]) -> dict[str, Any]:
    """Hyperparameters of such a class as its keyword arguments, which a study calls the same but for lr, betas, eps."""
    named: dict[str, Any] = {{"learning_rate": "lr", "epsilon": "eps"}.get(name, name): values[name] for name in values}
    if "beta1" in named:
        named["betas"] = (named.pop("beta1"), named.pop("beta2"))
    return named


_DECAYED = {"learning_rate": None, "weight_decay": 0.0}
_HEAVY = {"learning_rate": None, "momentum": 0.9, "weight_decay": 0.0}
_ADAM = {"learning_rate": None, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
_GUARDED = {
    "learning_rate": None,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "minimum_radius": 1e-2,
    "maximum_radius": 1e4,
}

TABLE: Mapping[str, Row] = MappingProxyType(
    {
        "sgd": Row("momentum", "SGD", _DECAYED, torch="SGD"),
        "momentum": Row("momentum", "Momentum", _HEAVY, torch="SGD"),
        "nesterov": Row("momentum", "Nesterov", _HEAVY, torch="SGD", torch_options={"nesterov": True}),
        "adam": Row("adam", "Adam", _ADAM | {"weight_decay": 0.0}, torch="Adam"),
        "adamw": Row("adam", "AdamW", _ADAM | {"weight_decay": 0.01}, torch="AdamW"),
        "rmsprop": Row(
            "rmsprop",
            "RMSProp",
            {"learning_rate": None, "smoothing": 0.99, "epsilon": 1e-8, "momentum": 0.0, "weight_decay": 0.0},
            torch="RMSprop",
        ),
        "lars": Row("lars", "LARS", _HEAVY | {"trust": 0.001}),
        "lamb": Row("lamb", "LAMB", _ADAM | {"epsilon": 1e-6, "weight_decay": 0.0}),
        "percent_delta": Row("percent_delta", "PercentDelta", _GUARDED),
        "cblr": Row("cblr", "CBLR", _GUARDED, needs_hessian_diagonal=True),
        "cblr_estimate": Row("cblr", "CBLR", _GUARDED, options={"curvature": "estimate"}),
        "mclr": Row("mclr", "MCLR", _GUARDED),
        "mclr_median": Row("mclr", "MCLR", _GUARDED, options={"median": "literal"}),
        "lion": Row("lion", "Lion", {"learning_rate": None, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0}),
        "muon": Row("muon", "Muon", _ADAM | {"beta2": 0.95, "momentum": 0.95, "weight_decay": 0.1}),
        "adafactor": Row(
            "adafactor",
            "Adafactor",
            {
                "learning_rate": None,
                "decay_exponent": 0.8,
                "minimum_scale": 1e-3,
                "clip_threshold": 1.0,
                "weight_decay": 0.0,
            },
        ),
        "schedule_free_adamw": Row(
            "schedule_free",
            "ScheduleFreeAdamW",
            _ADAM | {"weight_decay": 0.0},
            averages=True,
            ranges={"beta1": Hyperparameter(high=1.0, above=True)},
        ),
    }
)
