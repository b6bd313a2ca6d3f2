"""An algorithm: optimizer rule + learning-rate schedule + batch schedule + what else belongs to a trial's training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from batchscope.errors import StudyError
from batchscope.optim.table import HYPERPARAMETERS, TABLE
from batchscope.spec.extras import (
    BatchPlanned,
    FirstEpochs,
    NamedSchedule,
    Scaling,
    Schedule,
    Size,
    SmallLosses,
    Warming,
    known,
)
from batchscope.spec.space import Choice, Dimension, Frozen


class Algorithm(Frozen):
    """How a trial is trained."""

    optimizer: Annotated[str, BeforeValidator(lambda raw: known(raw, TABLE, "optimizer"))] = "nesterov"
    learning_rate_schedule: Schedule = NamedSchedule(name="constant")
    warm_up: Warming | None = None
    scaling_rule: Scaling | None = None
    batch_schedule: BatchPlanned | None = None
    first_epochs: FirstEpochs | None = None
    ghost_batch_size: Size | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    discard_small_loss: SmallLosses | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    clip_gradient_norm: Annotated[float, Field(gt=0)] | None = None
    average_weights: Annotated[float, Field(gt=0, lt=1)] | None = None
    hessian_probes: Annotated[int, Field(ge=1, le=1000)] = 1

    @model_validator(mode="after")
    def _goes_together(self) -> Algorithm:
        if self.warm_up and self.warm_up.name == "golmant" and self.scaling_rule is None:
            raise ValueError("warm_up: golmant begins at the base rate of a scaling rule; give scaling_rule too")
        if self.weight_decay is not None and "weight_decay" not in self.defaults:
            raise ValueError(f"weight_decay: {self.optimizer} has none; remove it")
        if self.average_weights is not None:
            self._check_average("average_weights")
        return self

    def _check_average(self, place: str) -> None:
        if TABLE[self.optimizer].averages:
            raise ValueError(f"{place}: {self.optimizer} is evaluated at an average of its own; remove it")

    @property
    def defaults(self) -> Mapping[str, float | None]:
        """Every hyperparameter of the optimizer with its default; None where one must be given."""
        return TABLE[self.optimizer].defaults

    @property
    def changes_batch_size(self) -> bool:
        """Whether the batch size changes during a trial."""
        return self.batch_schedule is not None or self.first_epochs is not None

    @property
    def depends_on_budget(self) -> bool:
        """Whether the same trial would be trained differently under another budget."""
        units = [self.learning_rate_schedule.unit, self.warm_up.settled[1] if self.warm_up else "steps"]
        return "budget" in units or self.changes_batch_size

    @property
    def searchable(self) -> set[str]:
        """Names that a search space may give."""
        names = {*self.defaults, *self.learning_rate_schedule.parameter_names, "label_smoothing"}
        names |= {"clip_gradient_norm", "average_weights"}
        if self.warm_up is not None:
            names.add("warm_up_length")
        if self.discard_small_loss is not None:
            names.add("discard_fraction")
        return names

    def check_space(self, space: Mapping[str, Dimension]) -> None:
        """Refuse a space that names what the algorithm has not, or lacks what it needs.

        Raises:
            StudyError: With the place, and what to type.
        """
        for name, dimension in space.items():
            try:
                known(name, self.searchable, f"hyperparameter of {self.optimizer}")
            except ValueError as error:
                raise StudyError(f"search.space.{name}: {error}") from None
            if isinstance(dimension, Choice) and any(isinstance(value, str) for value in dimension.values):
                raise StudyError(f"search.space.{name}: must be numbers, got {list(dimension.values)}")
            ends = dimension.values if isinstance(dimension, Choice) else (dimension.min, dimension.max)
            for value in ends if name in HYPERPARAMETERS else ():
                TABLE[self.optimizer].check(name, float(value), f"search.space.{name}")
        if "average_weights" in space:
            self._check_average("search.space.average_weights")
        schedule = self.learning_rate_schedule
        needed = [name for name, default in self.defaults.items() if default is None]
        needed += [name for name, must in schedule.parameter_names.items() if must and name not in schedule.parameters]
        if self.warm_up is not None and self.warm_up.settled[0] is None:
            needed.append("warm_up_length")
        for name in needed:
            if name not in space:
                raise StudyError(f"search.space: {name} is missing; give a range, a list of values, or one value")
        self._check_given_once(space)
        self._check_batch_schedule(space)

    def _check_given_once(self, space: Mapping[str, Dimension]) -> None:
        # By value, not by what the file had: the resolved study, which writes every default out, says the same.
        fields = type(self).model_fields
        given = {name for name in fields if name in self.searchable and getattr(self, name) != fields[name].default}
        given |= set(self.learning_rate_schedule.parameters)
        for name in sorted(given & set(space)):
            raise StudyError(f"search.space.{name}: given under algorithm too; keep one of the two")

    def _check_batch_schedule(self, space: Mapping[str, Dimension]) -> None:
        """Trials of one batch size must change it at the same steps."""
        if not self.changes_batch_size:
            return
        for name in space:
            of_schedule = name in self.learning_rate_schedule.parameter_names or name == "warm_up_length"
            if of_schedule and not space[name].is_fixed:
                raise StudyError(
                    f"search.space.{name}: a batch schedule needs it to be one value, the same for all trials"
                )
        if self.batch_schedule is not None and self.batch_schedule.momentum_to is not None:
            if "momentum" not in space or not space["momentum"].is_fixed:
                raise StudyError("search.space.momentum: momentum_to needs it to be one value, such as momentum: 0.9")

    def hyperparameters(self, point: Mapping[str, float | str]) -> dict[str, float]:
        """A value for every hyperparameter of the rule: from the point, the study file, or the default."""
        values = {name: value for name, value in self.defaults.items() if value is not None}
        if self.weight_decay is not None:
            values["weight_decay"] = self.weight_decay
        values.update({name: float(point[name]) for name in self.defaults if name in point})
        return values
