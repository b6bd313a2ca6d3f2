"""What a study needs to know of schedules and scaling rules, without loading torch: names and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

_DECAY = {"decay_steps": True, "decay_factor": False}
_PIECES = {"steps": True, "factors": True}

LEARNING_RATE_PARAMETERS: Mapping[str, Mapping[str, bool]] = MappingProxyType(
    {
        "constant": {},
        "linear": _DECAY,
        "cosine": _DECAY,
        "exponential_polynomial": _DECAY | {"power": False},
        "inverse_exponential_polynomial": _DECAY | {"power": False},
        "exponential": _DECAY,
        "piecewise_linear": _PIECES,
        "piecewise_constant": _PIECES,
    }
)
"""Study-file name -> every parameter of the schedule, and whether it must be given."""

ScalingRule = Literal["constant", "linear", "square_root", "adam_square_root"]

SCALING_RULES: Mapping[str, float] = MappingProxyType(
    {"constant": 0.0, "linear": 1.0, "square_root": 0.5, "adam_square_root": 0.5}
)
"""Study-file name -> the power of k that multiplies the learning rate."""
