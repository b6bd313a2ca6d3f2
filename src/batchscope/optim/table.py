"""What a study needs to know of every optimizer, without loading torch: names, hyperparameters, defaults."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_MOMENTUM = {"learning_rate": None, "momentum": 0.9, "weight_decay": 0.0}
_ADAM = {"learning_rate": None, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0}
_RADIUS = {"learning_rate": None, "momentum": 0.0, "weight_decay": 0.0, "minimum_radius": 0.01, "maximum_radius": 1e4}

HYPERPARAMETERS: Mapping[str, Mapping[str, float | None]] = MappingProxyType(
    {
        "sgd": {"learning_rate": None, "weight_decay": 0.0},
        "momentum": _MOMENTUM,
        "nesterov": _MOMENTUM,
        "adam": _ADAM,
        "adamw": _ADAM | {"weight_decay": 0.01},
        "rmsprop": {"learning_rate": None, "smoothing": 0.99, "epsilon": 1e-8, "momentum": 0.0, "weight_decay": 0.0},
        "lars": _MOMENTUM | {"trust": 0.001},
        "lamb": _ADAM | {"epsilon": 1e-6},
        "percent_delta": _RADIUS,
        "cblr": _RADIUS,
        "cblr_estimate": _RADIUS,
        "mclr": _RADIUS,
        "mclr_median": _RADIUS,
    }
)
"""Study-file name -> every hyperparameter of the rule with its default; None where one must be given."""
