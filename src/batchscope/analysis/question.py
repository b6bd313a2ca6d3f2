"""What a question about a run is: asked of its tables and one goal, answered by a frozen result, put into words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from batchscope.analysis.budgets import Better
from batchscope.analysis.outcomes import Outcomes, Table, outcomes
from batchscope.analysis.words import Words
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal


@dataclass(frozen=True, eq=False)
class Given:
    """What a question is asked of. What became of every trial is found once, for all questions.

    ``lacks`` has what the source of an imported run did not have, ``search`` or ``metric``, and why.
    """

    trials: Table
    measurements: Table
    goal: Goal
    lacks: Mapping[str, str] = field(default_factory=dict, hash=False)

    @cached_property
    def outcomes(self) -> Outcomes:
        """What became of every trial with respect to the goal."""
        return outcomes(self.trials, self.measurements, self.goal)

    @property
    def better(self) -> Better:
        """Which values of the goal's metric are better."""
        return "lower" if self.goal.side == "<" else "higher"


@dataclass(frozen=True, eq=False)
class Answer:
    """A frozen result, and what it says."""

    result: Any
    words: Words


@dataclass(frozen=True)
class Question:
    """One analysis of a goal beside its curve.

    Attributes:
        name: What it is called where it has no answer, such as "budgets of steps".
        ask: From what is given to a frozen result; an ``AnalysisError`` where the run kept too little for it.
        words: What the result says.
        tables: Name in ``summary.json`` -> which of the result's tables stands there.
        needs: ``search``, settings that were tried beside each other; ``metric``, its values over steps; "" for steps
            to the goal alone.
    """

    name: str
    ask: Callable[[Given], Any]
    words: Callable[[Any], Words]
    tables: Mapping[str, str] = field(hash=False)
    needs: Literal["search", "metric", ""] = ""

    def answer(self, given: Given) -> Answer:
        """The result with its words."""
        if self.needs in given.lacks:
            raise AnalysisError(given.lacks[self.needs])
        result = self.ask(given)
        return Answer(result, self.words(result))


@dataclass(frozen=True)
class Refused:
    """Why there is no answer: ``error`` is an ``AnalysisError`` where the run cannot say, anything else is a fault."""

    error: Exception

    @property
    def is_fault(self) -> bool:
        """Whether the analysis failed, where it should have answered or refused."""
        return not isinstance(self.error, AnalysisError)

    @property
    def reason(self) -> str:
        """In words."""
        return f"failed ({type(self.error).__name__}: {self.error})" if self.is_fault else str(self.error)
