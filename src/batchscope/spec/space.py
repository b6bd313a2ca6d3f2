"""Search spaces: for every hyperparameter a range with a scale, a list of choices, or one fixed value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

Value = float | str
Scale = Literal["linear", "log", "reverse_log"]


class Frozen(BaseModel):
    """A value of a study file: never changes, knows no other keys than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(f"true and false are no value here, got {str(value).lower()}")
        return value


class Range(Frozen):
    """An interval on a scale; sampling is uniform on the scale.

    ``linear``: uniform in x. ``log``: uniform in log x. ``reverse_log``: uniform in log(1 - x), for a momentum whose
    distance from 1 is what matters (Sh19 section 4). ``points`` is how many a grid takes of it, evenly on the scale.
    """

    min: float
    max: float
    scale: Scale = "linear"
    points: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _ordered_and_on_scale(self) -> Range:
        if not self.min < self.max:
            raise ValueError(f"min must be below max, got min {self.min:g} and max {self.max:g}")
        if self.scale == "log" and self.min <= 0:
            raise ValueError(f"a log scale needs min above 0, got {self.min:g}; write min: 1e-5, say, or scale: linear")
        if self.scale == "reverse_log" and self.max >= 1:
            raise ValueError(
                f"a reverse_log scale needs max below 1, got {self.max:g}; write max: 0.999, say, or scale: linear"
            )
        return self

    @property
    def is_fixed(self) -> bool:
        """Whether there is only one value."""
        return False

    def from_unit(self, u: float) -> float:
        """The value at ``u`` in [0, 1]: 0 is ``min``, 1 is ``max``, even on the scale between."""
        if u in (0.0, 1.0):
            return self.max if u else self.min
        low, high = self.to_scale(self.min), self.to_scale(self.max)
        return self.from_scale(low + u * (high - low))

    def from_scale(self, x: float) -> float:
        """The inverse of ``to_scale``."""
        match self.scale:
            case "log":
                return math.exp(x)
            case "reverse_log":
                return -math.expm1(-x)
        return x

    def to_unit(self, value: float) -> float:
        """The inverse of ``from_unit``; outside [0, 1] for a value outside the range."""
        low, high = self.to_scale(self.min), self.to_scale(self.max)
        return (self.to_scale(value) - low) / (high - low)

    def to_scale(self, value: float) -> float:
        """The coordinate on which sampling is uniform; increases with the value."""
        match self.scale:
            case "log":
                return math.log(value)
            case "reverse_log":
                return -math.log1p(-value)
        return value


class Choice(Frozen):
    """One of some values, each as likely."""

    values: Annotated[tuple[Annotated[Value, BeforeValidator(lambda raw: _number(raw))], ...], Field(min_length=1)]

    @property
    def is_fixed(self) -> bool:
        """Whether there is only one value."""
        return len(self.values) == 1

    def from_unit(self, u: float) -> Value:
        """The value at ``u`` in [0, 1)."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]


def _dimension(raw: Any) -> Any:
    """A bare number is a fixed value and a bare list a choice."""
    if isinstance(raw, list | tuple):
        return {"values": raw}
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return raw
    return {"values": [_number(raw)]}


def _number(raw: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text."""
    if isinstance(raw, str):
        try:
            return float(raw)
        except ValueError:
            return raw
    return raw


def _kind(raw: Any) -> str:
    given = raw if isinstance(raw, Mapping) else vars(raw) if isinstance(raw, BaseModel) else ()
    return "choice" if "values" in given else "range"


Dimension = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choice, Tag("choice")],
    Discriminator(_kind),
    BeforeValidator(_dimension),
]
Space = dict[str, Dimension]

OPTIMIZER = "optimizer"
"""Of a trial's point, where a search chooses among optimizers: the one that it has."""
