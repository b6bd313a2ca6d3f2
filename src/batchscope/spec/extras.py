"""What an algorithm has besides its optimizer: schedules of rate and batch size, scaling, small-loss samples."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from batchscope import schedules
from batchscope.schedules.table import LEARNING_RATE_PARAMETERS, SCALING_RULES
from batchscope.schedules.table import ScalingRule as RuleName
from batchscope.spec.rate_text import is_rate
from batchscope.spec.space import Frozen
from batchscope.user_file import is_reference

Unit = Literal["steps", "epochs", "budget"]
Size = Annotated[int, Field(ge=1, le=2**24)]


def known(name: Any, names: Iterable[str], what: str) -> str:
    """``name`` if it is among ``names``; else a ValueError with the nearest that is."""
    names = sorted(names)
    if name in names:
        return str(name)
    close = difflib.get_close_matches(str(name), names, n=1)
    advice = f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"
    raise ValueError(f"no {what} is called {name!r}; {advice}")


def _schedule_name(raw: Any) -> str:
    if isinstance(raw, str) and is_reference(raw):
        if not raw.rpartition(":")[2].isidentifier():
            raise ValueError(f"must be a schedule or path/to/file.py:function, got {raw!r}")
        return raw
    if is_rate(raw):
        schedules.parse_learning_rate(raw)  # says what is wrong with it
    return known(raw, LEARNING_RATE_PARAMETERS, "schedule")


def _by_name(raw: Any) -> Any:
    return {"name": raw} if isinstance(raw, str) else raw


class NamedSchedule(Frozen):
    """A learning-rate schedule: its name, and those of its parameters that are not searched.

    Times are in ``unit``: weight updates, epochs, or shares of the whole budget.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, float | tuple[float, ...]] = Field(init=False)

    name: Annotated[str, BeforeValidator(lambda raw: _schedule_name(raw))]
    unit: Unit = "steps"

    @property
    def parameters(self) -> dict[str, float | tuple[float, ...]]:
        """The parameters given in the study file."""
        return dict(self.__pydantic_extra__)

    @property
    def parameter_names(self) -> Mapping[str, bool]:
        """Every parameter of the schedule, and whether it must be given."""
        return {} if self.is_function else LEARNING_RATE_PARAMETERS[self.name]

    @property
    def is_function(self) -> bool:
        """Whether it is a function of the user's, (step, total_steps) -> factor."""
        return is_reference(self.name)

    @model_validator(mode="after")
    def _parameters_known(self) -> NamedSchedule:
        if self.is_function and self.unit != "steps":
            raise ValueError(f"unit: {self.name} is a function of steps; remove unit")
        for name in self.parameters:
            known(name, self.parameter_names, f"parameter of the schedule {self.name}")
        return self


class WarmUp(Frozen):
    """A linear rise of the learning rate from ``start`` times its value, over ``length`` of ``unit``.

    ``linear`` is that; ``goyal`` is the first 5% of the budget from 1/32 (ML18 section 3.4); ``golmant`` is the first
    10 epochs from the base rate of a scaling rule (G18 table 1).
    """

    name: Literal["linear", "goyal", "golmant"] = "linear"
    length: Annotated[float, Field(gt=0)] | None = None
    unit: Unit | None = None
    start: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _length_given(self) -> WarmUp:
        if self.name == "golmant" and self.start is not None:
            raise ValueError("golmant begins at the base rate of the scaling rule; remove start, or write name: linear")
        return self

    @property
    def settled(self) -> tuple[float | None, Unit, float | None]:
        """Length, unit and start, with what the name stands for; no length where it must be searched."""
        length, unit, start = {
            "linear": (None, "steps", 0.0),
            "goyal": (0.05, "budget", 1 / 32),
            "golmant": (10.0, "epochs", None),
        }[self.name]
        chosen: Unit = self.unit or unit  # type: ignore[assignment]
        return self.length or length, chosen, start if self.start is None else self.start


class Scaling(Frozen):
    """A rule that carries hyperparameters from a base batch size: then the space is that of the base batch size."""

    name: Annotated[RuleName, BeforeValidator(lambda raw: known(raw, SCALING_RULES, "scaling rule"))]
    base_batch_size: Size


class BatchPlan(Frozen):
    """A batch size that rises where the learning rate would fall (S18); options of the compiler."""

    variant: Literal["increase", "hybrid", "decay"] = "increase"
    max_batch_size: Size | None = None
    granularity: Size = 1
    learning_rate_factor: Annotated[float, Field(gt=0)] = 1.0
    momentum_to: Annotated[float, Field(ge=0, lt=1)] | None = None


class FirstEpochs(Frozen):
    """Another batch size, and a multiple of the learning rate, for the first epochs (GZ20 section 3.2)."""

    batch_size: Size
    learning_rate_factor: Annotated[float, Field(gt=0)] = 1.0
    epochs: Annotated[float, Field(gt=0)] = 1.0


class SmallLosses(Frozen):
    """The share of each batch's smallest losses that is left out for the first epochs (GZ20 section 3.1)."""

    fraction: Annotated[float, Field(ge=0, lt=1)]
    epochs: Annotated[float, Field(gt=0)] | None = None


Schedule = Annotated[NamedSchedule, BeforeValidator(_by_name)]
Warming = Annotated[WarmUp, BeforeValidator(_by_name)]
BatchPlanned = Annotated[BatchPlan, BeforeValidator(lambda raw: {"variant": raw} if isinstance(raw, str) else raw)]
