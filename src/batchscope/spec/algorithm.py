"""An algorithm: optimizer rule + learning-rate schedule + batch schedule + what else belongs to a trial's training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from batchscope.errors import StudyError
from batchscope.optim.table import HYPERPARAMETERS, TABLE, is_users
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
from batchscope.spec.space import OPTIMIZER, Choice, Dimension, Frozen
from batchscope.user_file import is_reference


def optimizer_name(raw: Any) -> str:
    """A name in the table, ``torch.optim.NAME`` or ``path/to/file.py:NAME``; anything else is a ``ValueError``."""
    if isinstance(raw, str) and is_users(raw):
        if not re.split(r"\.py:|torch\.optim\.", raw)[-1].isidentifier():
            raise ValueError(f"must be torch.optim.NAME or path/to/file.py:NAME, got {raw!r}")
        return raw
    return known(raw, TABLE, "optimizer")


class Algorithm(Frozen):
    """How a trial is trained."""

    optimizer: Annotated[str, BeforeValidator(optimizer_name)] = "nesterov"
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
        if self.learning_rate_schedule.is_function and self.changes_batch_size:
            raise ValueError(
                "learning_rate_schedule: a function of steps does not say when the batch size should change; name a "
                "schedule, or remove batch_schedule and first_epochs"
            )
        if self.users_optimizer and self.scaling_rule is not None and self.scaling_rule.name == "adam_square_root":
            raise ValueError(
                f"scaling_rule: adam_square_root carries beta1, beta2 and epsilon, and does not know those of "
                f"{self.optimizer}; write square_root, or another optimizer"
            )
        if self.weight_decay is not None and not self.users_optimizer and "weight_decay" not in self.defaults:
            raise ValueError(f"weight_decay: {self.optimizer} has none; remove it")
        if self.average_weights is not None:
            self._check_average("average_weights")
        return self

    def _check_average(self, place: str) -> None:
        if not self.users_optimizer and TABLE[self.optimizer].averages:
            raise ValueError(f"{place}: {self.optimizer} is evaluated at an average of its own; remove it")

    @property
    def defaults(self) -> Mapping[str, float | None]:
        """Every hyperparameter of the optimizer with its default; None where one must be given.

        Of a class of the user's, which is not loaded to read a study, the one that it must have.
        """
        return {"learning_rate": None} if self.users_optimizer else TABLE[self.optimizer].defaults

    def with_optimizer(self, name: str) -> Algorithm:
        """The same with another optimizer.

        Raises:
            StudyError: If there is none of that name, or it does not go with the rest.
        """
        try:
            return Algorithm.model_validate({**self.model_dump(), "optimizer": name})
        except ValidationError as error:
            told = "; ".join(str(fault.get("ctx", {}).get("error", fault["msg"])) for fault in error.errors())
            raise StudyError(f"search.optimizers.{name}: {told}") from None

    @property
    def users_optimizer(self) -> bool:
        """Whether the optimizer is a class of the user's, or of torch's."""
        return is_users(self.optimizer)

    @property
    def needs_loop(self) -> str | None:
        """Why only the plain loop can train by it; None where any program may."""
        return f"{self.optimizer} is a class that moves the weights of one model" if self.users_optimizer else None

    @property
    def files(self) -> tuple[str, ...]:
        """What is named as ``path/to/file.py:name``."""
        return tuple(filter(is_reference, (self.optimizer, self.learning_rate_schedule.name)))

    @property
    def changes_batch_size(self) -> bool:
        """Whether the batch size changes during a trial."""
        return self.batch_schedule is not None or self.first_epochs is not None

    @property
    def depends_on_budget(self) -> bool:
        """Whether the same trial would be trained differently under another budget."""
        units = [self.learning_rate_schedule.unit, self.warm_up.settled[1] if self.warm_up else "steps"]
        return "budget" in units or self.changes_batch_size or self.learning_rate_schedule.is_function

    @property
    def searchable(self) -> set[str]:
        """Names that a search space may give."""
        names = {*self.defaults, *self._besides_optimizer}
        return names | {"weight_decay"} if self.users_optimizer else names

    @property
    def _besides_optimizer(self) -> set[str]:
        """Names that a search space may give, whatever the optimizer."""
        names = {*self.learning_rate_schedule.parameter_names, "label_smoothing"}
        names |= {"clip_gradient_norm", "average_weights"}
        if self.warm_up is not None:
            names.add("warm_up_length")
        if self.discard_small_loss is not None:
            names.add("discard_fraction")
        return names

    def check_space(self, space: Mapping[str, Dimension], place: str = "search.space") -> None:
        """Refuse a space that names what the algorithm has not, or lacks what it needs.

        Args:
            space: Of this optimizer.
            place: Where it stands in the study.

        Raises:
            StudyError: With the place, and what to type.
        """
        for name, dimension in space.items():
            try:
                if not self.users_optimizer:
                    known(name, self.searchable, f"hyperparameter of {self.optimizer}")
            except ValueError as error:
                raise StudyError(f"{place}.{name}: {error}") from None
            if isinstance(dimension, Choice) and any(isinstance(value, str) for value in dimension.values):
                raise StudyError(f"{place}.{name}: must be numbers, got {list(dimension.values)}")
            ends = dimension.values if isinstance(dimension, Choice) else (dimension.min, dimension.max)
            for value in ends if name in HYPERPARAMETERS else ():
                if not self.users_optimizer:
                    TABLE[self.optimizer].check(name, float(value), f"{place}.{name}")
                elif name == "learning_rate" or name in self._besides_optimizer:  # the rest is for the class to say
                    HYPERPARAMETERS[name].check(f"{place}.{name}", float(value))
        if "average_weights" in space:
            self._check_average(f"{place}.average_weights")
        schedule = self.learning_rate_schedule
        needed = [name for name, default in self.defaults.items() if default is None]
        needed += [name for name, must in schedule.parameter_names.items() if must and name not in schedule.parameters]
        if self.warm_up is not None and self.warm_up.settled[0] is None:
            needed.append("warm_up_length")
        for name in needed:
            if name not in space:
                raise StudyError(f"{place}: {name} is missing; give a range, a list of values, or one value")
        if self.users_optimizer and ("beta1" in space) != ("beta2" in space):
            raise StudyError(f"{place}: beta1 and beta2 are one argument of a class, betas; give both")
        self._check_given_once(space, place)
        self._check_batch_schedule(space, place)

    def _check_given_once(self, space: Mapping[str, Dimension], place: str) -> None:
        # By value, not by what the file had: the resolved study, which writes every default out, says the same.
        fields = type(self).model_fields
        given = {name for name in fields if name in self.searchable and getattr(self, name) != fields[name].default}
        given |= set(self.learning_rate_schedule.parameters)
        for name in sorted(given & set(space)):
            raise StudyError(f"{place}.{name}: given under algorithm too; keep one of the two")

    def _check_batch_schedule(self, space: Mapping[str, Dimension], place: str) -> None:
        """Trials of one batch size must change it at the same steps."""
        if not self.changes_batch_size:
            return
        for name in space:
            of_schedule = name in self.learning_rate_schedule.parameter_names or name == "warm_up_length"
            if of_schedule and not space[name].is_fixed:
                raise StudyError(f"{place}.{name}: a batch schedule needs it to be one value, the same for all trials")
        if self.batch_schedule is not None and self.batch_schedule.momentum_to is not None:
            if "momentum" not in space or not space["momentum"].is_fixed:
                raise StudyError(f"{place}.momentum: momentum_to needs it to be one value, such as momentum: 0.9")

    def hyperparameters(self, point: Mapping[str, float | str]) -> dict[str, float]:
        """A value for every hyperparameter of the rule: from the point, the study file, or the default.

        Of a class of the user's without its defaults.
        """
        values = {name: value for name, value in self.defaults.items() if value is not None}
        if self.weight_decay is not None:
            values["weight_decay"] = self.weight_decay
        besides = {*self._besides_optimizer, OPTIMIZER}
        own = [name for name in point if name not in besides] if self.users_optimizer else self.defaults
        values.update({name: float(point[name]) for name in own if name in point})
        return values
