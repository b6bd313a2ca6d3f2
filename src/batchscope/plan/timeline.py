"""The clock of a trial: which batch size and which multiple of the learning rate every step has.

Step t is the update after t others; examples are counted from the start of training. Shapes: T steps, K trials.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from batchscope.errors import StudyError
from batchscope.schedules import (
    LEARNING_RATE_SCHEDULES,
    SCALING_RULES,
    BatchSchedule,
    Constant,
    Function,
    Ramp,
    Schedule,
    Stretched,
    compile_batch_schedule,
    scale_hyperparameters,
    with_first_epochs,
)
from batchscope.schedules.function import FileFunction
from batchscope.spec.extras import Unit
from batchscope.spec.space import Choice
from batchscope.spec.study import Study

Searched = Mapping[str, Tensor]


@dataclass(frozen=True)
class Timeline:
    """Batch size and learning-rate factor by step, for the trials at one of the study's batch sizes.

    Attributes:
        study: Algorithm and budget.
        batch_size: The study's; the one that a batch schedule begins from.
        train_size: Examples in an epoch; None where the data has none.
        given: A batch schedule instead of the algorithm's, whose rates are multiples of the trials'.
    """

    study: Study
    batch_size: int
    train_size: int | None
    given: BatchSchedule | None = None

    @cached_property
    def batches(self) -> BatchSchedule | None:
        """The batch schedule, given or compiled; None where the batch size stays.

        Errors:
            StudyError: If the data has no epochs.
            ScheduleError: If the schedule cannot be compiled.
        """
        algorithm = self.study.algorithm
        if self.given is not None or not algorithm.changes_batch_size:
            return self.given
        size, plan, first = self._epoch_examples(), algorithm.batch_schedule, algorithm.first_epochs
        schedule = compile_batch_schedule(
            self.rate({}),
            self.batch_size,
            plan.max_batch_size if plan else None,
            train_size=size,
            epochs=self._budget_examples() / size,
            momentum=self._fixed_momentum() if plan and plan.momentum_to is not None else 0.0,
            momentum_to=plan.momentum_to if plan else None,
            granularity=plan.granularity if plan else 1,
            variant=plan.variant if plan else "decay",
            learning_rate_factor=plan.learning_rate_factor if plan else 1.0,
        )
        if first is None:
            return schedule
        rate = first.learning_rate_factor
        return with_first_epochs(schedule, batch_size=first.batch_size, learning_rate=rate, epochs=first.epochs)

    @property
    def searched(self) -> set[str]:
        """Names of the space that are parameters of the learning-rate schedule."""
        names = {*self.study.algorithm.learning_rate_schedule.parameter_names, "warm_up_length"}
        return names & set(self.study.search.space)

    @cached_property
    def last(self) -> int:
        """Steps that the budget allows."""
        if self.batches is not None:
            return self.batches.total_updates
        return max(1, math.ceil(self._budget_examples() / self.batch_size))

    def examples(self, step: int) -> int:
        """Examples seen after ``step`` updates."""
        if self.batches is None:
            return step * self.batch_size
        phase = self.batches.phases[max(bisect.bisect_right(self._phase_steps, step) - 1, 0)]
        return phase.example_start + (step - phase.step_start) * phase.batch_size

    def epoch(self, step: int) -> float:
        """Epochs seen after ``step`` updates; NaN for data without epochs."""
        return self.examples(step) / self.train_size if self.train_size else math.nan

    def factors(self, start: int, until: int, searched: Searched) -> Tensor:
        """(T, K) or (T, 1) multiples of the learning rate for the steps from ``start`` up to ``until``, in float64."""
        if self.batches is not None:
            rates = [self.batches.learning_rate_multiplier(self.examples(step)) for step in range(start, until)]
            return torch.tensor(rates, dtype=torch.float64)[:, None]
        device = next(iter(searched.values())).device if searched else None
        steps = torch.arange(start, until, dtype=torch.float64, device=device)[:, None]
        return self.rate(searched).factor(steps)

    def scaled(self, hyper: dict[str, Tensor]) -> dict[str, Tensor]:
        """Hyperparameters as they apply at this batch size, from those of the trials' points."""
        algorithm, plan = self.study.algorithm, self.study.algorithm.batch_schedule
        if algorithm.scaling_rule is not None:
            names = {"learning_rate", "momentum", "weight_decay", "beta1", "beta2", "epsilon"} & set(hyper)
            found = scale_hyperparameters(
                algorithm.scaling_rule.name,
                base_batch_size=algorithm.scaling_rule.base_batch_size,
                batch_size=self.batch_size,
                **{name: hyper[name] for name in names},  # type: ignore[arg-type]
            )
            hyper = {**hyper, **{name: torch.as_tensor(getattr(found, name)) for name in names}}
        if plan is not None and plan.momentum_to is not None:
            hyper = {**hyper, "momentum": torch.full_like(hyper["momentum"], plan.momentum_to)}
        return hyper

    @cached_property
    def _phase_steps(self) -> list[int]:
        assert self.batches is not None
        return [phase.step_start for phase in self.batches.phases]

    def rate(self, searched: Searched) -> Schedule:
        """The learning-rate schedule in steps at the study's batch size, warm-up included."""
        named = self.study.algorithm.learning_rate_schedule
        values: dict[str, Any] = {**named.parameters, **self._fixed(self.searched), **searched}
        mine = {name: value for name, value in values.items() if name in named.parameter_names}
        schedule: Schedule
        if named.is_function:
            schedule = Function(FileFunction(named.name), self.last)
        else:
            schedule = LEARNING_RATE_SCHEDULES[named.name](**mine)
        if not isinstance(schedule, Constant) and named.unit != "steps":
            schedule = Stretched(schedule, self._steps_in(named.unit))
        warm_up = self.study.algorithm.warm_up
        if warm_up is None:
            return schedule
        length, unit, start = warm_up.settled
        length = values.get("warm_up_length", length)
        start = self._base_rate_share() if start is None else start
        if start >= 1 or length is None:
            return schedule
        return Ramp(length * self._steps_in(unit), start) * schedule

    def _base_rate_share(self) -> float:
        """The base rate as a share of the scaled one."""
        rule = self.study.algorithm.scaling_rule
        assert rule is not None
        return math.pow(rule.base_batch_size / self.batch_size, SCALING_RULES[rule.name])

    def _fixed(self, names: Container[str]) -> dict[str, Any]:
        """Values of the space that are one and the same for all trials."""
        space = self.study.search.space
        fixed = {name: d.values[0] for name, d in space.items() if isinstance(d, Choice) and d.is_fixed}
        return {name: float(value) for name, value in fixed.items() if name in names}

    def _fixed_momentum(self) -> float:
        return float(self._fixed(["momentum"])["momentum"])

    def _steps_in(self, unit: Unit) -> float:
        if unit == "epochs":
            return self._epoch_examples() / self.batch_size
        return self._budget_examples() / self.batch_size if unit == "budget" else 1.0

    def _budget_examples(self) -> int:
        return self.study.budget.examples_at(self.batch_size, self.train_size)

    def _epoch_examples(self) -> int:
        if self.train_size is None:
            raise StudyError(
                f"algorithm: a schedule in epochs, or of the batch size, needs data with epochs; {self.study.workload} "
                "has none; write unit: steps"
            )
        return self.train_size
