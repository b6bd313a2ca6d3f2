"""The one list of analyses: page, terminal and JSON read it, in this order.

A new analysis is a file that computes a frozen result and says it in words, a row here, a chart in ``report.analyses``,
and a row in the test of this list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

from batchscope.analysis import audit, budgets, curve_comparison, scaling_rules, stability
from batchscope.analysis.curve import Curve
from batchscope.analysis.question import Answer, Given, Question, Refused

T = TypeVar("T")


def _of_goal(function: Callable[..., Any]) -> Callable[[Given], Any]:
    return lambda given: function(given.trials, given.measurements, given.goal, found=given.outcomes)


def _of_metric(function: Callable[..., Any], **options: Any) -> Callable[[Given], Any]:
    return lambda given: function(given.trials, given.measurements, given.goal.metric, better=given.better, **options)


QUESTIONS: tuple[Question, ...] = (
    Question("fewer trials", _of_goal(audit.expected_steps), audit.words, {"expected_steps": "table"}, "search"),
    Question(
        "budgets of steps",
        _of_metric(budgets.best_under_budgets, unit="steps"),
        budgets.words,
        {"best_under_step_budgets": "table"},
        "metric",
    ),
    Question(
        "budgets of epochs",
        _of_metric(budgets.best_under_budgets, unit="epochs"),
        budgets.words,
        {"best_under_epoch_budgets": "table"},
        "metric",
    ),
    Question(
        "learning-rate rules",
        _of_goal(scaling_rules.rule_check),
        scaling_rules.words,
        {"learning_rate_rules": "table", "learning_rate_rules_break": "breaks"},
        "search",
    ),
    Question(
        "sensitivity", _of_goal(stability.sensitivity), stability.sensitivity_words, {"sensitivity": "table"}, "search"
    ),
    Question(
        "stability", _of_metric(stability.stability_map), stability.stability_words, {"stability": "bands"}, "metric"
    ),
    Question(
        "speedup", _of_metric(curve_comparison.speedup), curve_comparison.speedup_words, {"speedup": "table"}, "metric"
    ),
    Question(
        "contour", _of_metric(curve_comparison.contour), curve_comparison.contour_words, {"contour": "table"}, "metric"
    ),
)


class Answers:
    """The curve of one goal and the answer to every question about it; each is computed when it is first read, once."""

    def __init__(self, given: Given, curve: Callable[[Given], Curve]) -> None:
        """Of what is ``given``; ``curve`` draws the goal's curve from it."""
        self.given, self.goal = given, given.goal
        self._draw = curve
        self._known: dict[str, Answer | Refused] = {}

    @cached_property
    def curve_or_refusal(self) -> Curve | Refused:
        """The curve, or why there is none."""
        return _asked(self._draw, self.given)

    @property
    def curve(self) -> Curve:
        """The curve; what stands against it is raised."""
        found = self.curve_or_refusal
        if isinstance(found, Refused):
            raise found.error
        return found

    def __iter__(self) -> Iterator[tuple[Question, Answer | Refused]]:
        """Every question of the list with its answer, or why there is none."""
        for question in QUESTIONS:
            if question.name not in self._known:
                self._known[question.name] = _asked(question.answer, self.given)
            yield question, self._known[question.name]

    @property
    def refusals(self) -> tuple[Refused, ...]:
        """Why there is no curve; empty if there is one."""
        found = self.curve_or_refusal
        return (found,) if isinstance(found, Refused) else ()

    @property
    def faults(self) -> Mapping[str, Refused]:
        """What failed, of all that was asked so far: the name of the question, or the goal, and why."""
        known: dict[str, object] = {"the curve": self.__dict__.get("curve_or_refusal"), **self._known}
        return {name: found for name, found in known.items() if isinstance(found, Refused) and found.is_fault}


def answered(answers: Iterable[Answers]) -> list[Answers]:
    """Those that have a curve; if none has, what stands against the first is raised."""
    asked = list(answers)
    found = [one for one in asked if isinstance(one.curve_or_refusal, Curve)]
    if not found and asked:
        raise asked[0].refusals[0].error
    return found


def _asked(ask: Callable[[Given], T], given: Given) -> T | Refused:
    """One answer that fails must not cost the others: what stands against it is kept, to be shown by its name."""
    try:
        return ask(given)
    except Exception as error:
        return Refused(error)
