"""One training: a study of one batch size whose space is one point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batchscope.errors import StudyError
from batchscope.schedules.table import SCALING_RULES, ScalingRule
from batchscope.spec.space import OPTIMIZER, Choice, Value
from batchscope.spec.study import Study
from batchscope.spec.trial import Trial
from batchscope.user_file import is_reference

# Whose step grows in proportion to the gradient; that of all others is divided by the gradient's size, so that noise
# moves it by the square root of the batch size.
LINEAR = ("sgd", "momentum", "nesterov", "torch.optim.SGD", "torch.optim.ASGD")


@dataclass(frozen=True)
class OneTraining:
    """What is trained, how, and for how long.

    Attributes:
        study: One batch size, one optimizer, and one value for every hyperparameter that it searches.
    """

    study: Study

    def __post_init__(self) -> None:
        """Refuse a study of several trainings.

        Raises:
            StudyError: With what is not one value.
        """
        study = self.study
        if len(study.batch_sizes) != 1:
            sizes = ", ".join(map(str, study.batch_sizes))
            raise StudyError(f"one training has one batch size, got {sizes}; choose one with --batch-size")
        several = [name for name, dimension in study.search.space.items() if not dimension.is_fixed]
        if study.search.optimizers or several:
            named = several or list(study.search.optimizers)
            raise StudyError(
                f"one training has one value for everything, and the study searches {', '.join(named)}: run it and "
                "give the run's folder, or write one value for each"
            )
        if study.algorithm.changes_batch_size:
            raise StudyError("the batch size of the training changes already; remove batch_schedule and first_epochs")

    @property
    def batch_size(self) -> int:
        """Of the training."""
        return self.study.batch_sizes[0]

    @property
    def point(self) -> Mapping[str, Value]:
        """Its hyperparameters."""
        space = self.study.search.space
        return {name: one.values[0] for name, one in space.items() if isinstance(one, Choice)}

    @property
    def momentum(self) -> float:
        """Of the optimizer; Adam's beta1; 0 where it has none."""
        values = self.study.algorithm.hyperparameters(self.point)
        return values.get("momentum") or values.get("beta1", 0.0)

    def at(self, learning_rate: float) -> OneTraining:
        """The same at another learning rate."""
        return self._with(search={"trials": 1, "space": {**self.point, "learning_rate": learning_rate}})

    def for_steps(self, steps: int) -> OneTraining:
        """The same for so long; what depends on the budget stays as it is, and only ends there."""
        return self if self.study.algorithm.depends_on_budget else self._with(budget={"steps": steps})

    def _with(self, **keys: object) -> OneTraining:
        return OneTraining(Study.from_mapping(self.study.model_dump(mode="json", exclude_none=True) | keys))

    def trial(self, replicate: int) -> Trial:
        """With the initial values and the order of examples of a replicate."""
        return Trial(self.batch_size, 0, self.point, self.study.seed, replicate=replicate)


def one_training(study: Study, batch_size: int | None = None) -> OneTraining:
    """The training that a study of one point is, at its batch size or at a given one.

    What is several trainings is a ``StudyError``.
    """
    if len(study.search.optimizers) == 1:
        study = study.of({OPTIMIZER: next(iter(study.search.optimizers))})
    return OneTraining(study if batch_size is None else study.model_copy(update={"batch_sizes": (batch_size,)}))


def rate_rule(optimizer: str, rule: str | None = None) -> ScalingRule:
    """How the learning rate moves with the batch size: as asked for, or linear for SGD and square root for Adam.

    Raises:
        StudyError: If there is no such rule, or nothing is known of a class of the user's.
    """
    if rule is None:
        if is_reference(optimizer):
            raise StudyError(f"how the rate of {optimizer} moves with the batch size is not known; add --rule linear")
        return "linear" if optimizer in LINEAR else "square_root"
    known = [name for name in SCALING_RULES if name != "adam_square_root"]
    for name in known:
        if rule == name:
            return name  # type: ignore[return-value]
    raise StudyError(f"a rule for the rate is one of {', '.join(known)}, got {rule!r}")
