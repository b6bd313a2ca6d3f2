"""What one training predicts of other batch sizes: the document that ``predict`` writes and ``recommend`` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from batchscope.errors import PredictionError
from batchscope.interval import Interval
from batchscope.spec.faults import explain
from batchscope.spec.space import Frozen, Value

SCHEMA = 1
LEVEL = 0.9

Above = Annotated[float, Field(gt=0)]


def steps_at(batch_size: float, critical: float, base: int, steps: float) -> float:
    """S(B) = S(B_0) (1 + B_crit / B) / (1 + B_crit / B_0): the law of McCandlish et al. (2018) through one point."""
    return steps * (1 + critical / batch_size) / (1 + critical / base)


class Bounds(Frozen):
    """A number with its interval of level 0.9; None is a value, or a side, that is left open."""

    value: Above | None
    low: Annotated[float, Field(ge=0)] | None
    high: Above | None

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        self.interval  # noqa: B018 - refuses bounds out of order
        return self

    @property
    def interval(self) -> Interval:
        """As the analyses have it."""
        return Interval(self.value, self.low, self.high, LEVEL)

    @classmethod
    def of(cls, interval: Interval) -> Bounds:
        """Of an interval."""
        return cls(value=interval.value, low=interval.low, high=interval.high)


class MethodAnswer(Frozen):
    """What one method found, as it was measured: neither corrected nor widened.

    Attributes:
        critical_batch_size: None where there is none.
        reason: Why there is none; empty otherwise.
    """

    critical_batch_size: Bounds | None
    reason: str = ""


class PredictedSteps(Frozen):
    """Steps that are predicted at a batch size."""

    batch_size: Annotated[int, Field(ge=1)]
    steps: Bounds


class TrackRecord(Frozen):
    """How good the method has been where it was scored.

    Attributes:
        trainings: Scored.
        held: Of these, whose measured critical batch size the interval held that the others gave.
        ratio: Median of measured over predicted, by which the value is corrected.
        widened: The factor by which both sides of the interval are widened.
        curve_widened: Likewise of the steps.
    """

    trainings: Annotated[int, Field(ge=0)]
    held: Annotated[int, Field(ge=0)]
    ratio: Above
    widened: Annotated[float, Field(ge=1)]
    curve_widened: Annotated[float, Field(ge=1)]


class PredictionCost(Frozen):
    """In trainings to the goal: examples trained, measured and evaluated over those of the training."""

    trainings: Annotated[float, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    by: dict[str, float]


class Prediction(Frozen):
    """What ``batchscope predict`` writes.

    Attributes:
        workload: Its name.
        goal: That the training reached.
        optimizer: Of the training, like what follows.
        hyperparameters: Its point.
        batch_size: B_0.
        steps: To the goal.
        critical_batch_size: Predicted by ``method``, corrected and widened as its record says.
        method: The one of ``by`` with the best record.
        by: Every method's answer.
        curve: Steps by batch size, for hyperparameters that are tuned at each.
        record: Of the method.
        cost: In trainings.
        versions: Of Python, torch and Batchscope.
    """

    schema_version: Annotated[int, Field(alias="schema", ge=1)] = SCHEMA
    workload: str
    goal: str
    optimizer: str
    hyperparameters: dict[str, Value]
    batch_size: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=1)]
    critical_batch_size: Bounds
    method: str
    by: dict[str, MethodAnswer]
    curve: Annotated[tuple[PredictedSteps, ...], Field(min_length=1)]
    record: TrackRecord
    cost: PredictionCost
    versions: dict[str, str]

    def to_json(self) -> str:
        """The document that ``from_json`` reads."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2)

    @classmethod
    def from_json(cls, path: str | Path) -> Prediction:
        """Read what ``batchscope predict --json`` printed.

        Raises:
            PredictionError: If there is no such file, or it is not of this form; with every fault at once.
        """
        again = f"write one with batchscope predict WORKLOAD --goal GOAL -o {path}"
        try:
            document: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise PredictionError(f"no prediction at {path}; {again}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise PredictionError(f"cannot read the prediction {path}: {error}") from None
        if not isinstance(document, dict) or "critical_batch_size" not in document:
            raise PredictionError(f"{path} is no prediction: {again}")
        if isinstance(document.get("schema"), int) and document["schema"] > SCHEMA:
            raise PredictionError(f"{path} has schema {document['schema']}, this Batchscope reads {SCHEMA}; update it")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise PredictionError(explain(error, cls, str(path))) from None
