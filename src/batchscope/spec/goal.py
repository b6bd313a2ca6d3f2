"""A goal: the metric, the side, and the threshold that must be passed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from batchscope.errors import StudyError

_GOAL = re.compile(r"\s*(?P<metric>[A-Za-z][\w.-]*/[\w.-]+)\s*(?P<side>[<>])(?P<equal>=?)\s*(?P<threshold>\S+)\s*")

# Columns of the measurements where evaluations may end early: how many validation examples an evaluation took, and
# behind the name of a metric what was found of it.
EXAMPLES = "evaluation/examples"
AT_LEAST = "/at_least"
AT_MOST = "/at_most"

# What begins the names of metrics of the test examples, which no goal may have.
TEST = "test/"

# The mean of the batches' losses since the last evaluation, which no goal may have: of weights that have moved since.
RUNNING_LOSS = "train/running_loss"


@dataclass(frozen=True, order=True)
class Goal:
    """Reached at the first evaluation where ``metric`` is strictly beyond ``threshold`` (Sh19 section 4)."""

    metric: str
    side: Literal["<", ">"]
    threshold: float

    def __post_init__(self) -> None:
        """Refuse a threshold that nothing, or everything, is beyond."""
        if not math.isfinite(self.threshold):
            raise StudyError(f"a goal needs a finite threshold, got {self.threshold}")

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Read ``"validation/error < 0.15"``.

        Raises:
            StudyError: If the text is not metric, ``<`` or ``>``, and a number.
        """
        match = _GOAL.fullmatch(text)
        advice = 'write a goal as METRIC < NUMBER or METRIC > NUMBER, for example "validation/error < 0.15"'
        if match is None:
            raise StudyError(f"cannot read the goal {text!r}: {advice}")
        if match["equal"]:
            raise StudyError(
                f"cannot read the goal {text!r}: a goal is reached strictly beyond its threshold; write < or >"
            )
        try:
            threshold = float(match["threshold"])
        except ValueError:
            raise StudyError(f"cannot read the goal {text!r}: {match['threshold']!r} is no number; {advice}") from None
        return cls(match["metric"], "<" if match["side"] == "<" else ">", threshold)

    def is_reached(self, value: float) -> bool:
        """Whether ``value`` is strictly beyond the threshold; NaN never is."""
        return value < self.threshold if self.side == "<" else value > self.threshold

    @property
    def data(self) -> str:
        """Which examples its metric is measured on: ``validation`` or ``train``; a command may report others."""
        return self.metric.partition("/")[0]

    @property
    def measure(self) -> str:
        """The name of its metric without the data: ``error``."""
        return self.metric.partition("/")[2]

    @property
    def bound(self) -> str:
        """The column that says, where an evaluation ended early, how far the metric was away: at least, or at most,
        that.
        """
        return self.metric + (AT_LEAST if self.side == "<" else AT_MOST)

    def decides(self, other: Goal) -> bool:
        """Whether what is not beyond ``other`` cannot be beyond this goal: it is as hard, on the same metric."""
        return self.bound == other.bound and self.better(self.threshold, other.threshold) == self.threshold

    def better(self, one: float, other: float) -> float:
        """The one of two values that is nearer to the goal, or farther beyond it."""
        return min(one, other) if self.side == "<" else max(one, other)

    def __str__(self) -> str:
        """The form that ``parse`` reads back to the same goal."""
        return f"{self.metric} {self.side} {self.threshold!r}"


def is_metric(column: str) -> bool:
    """Whether a column of the measurements is a metric that goals can name."""
    apart = column == EXAMPLES or column.startswith(TEST) or column.endswith((AT_LEAST, AT_MOST))
    return "/" in column and not apart
