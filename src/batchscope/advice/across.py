"""One recommendation out of those of several runs, such as of two optimizers: which of them to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchscope.advice.options import Option
from batchscope.advice.recommendation import Recommendation
from batchscope.amounts import number
from batchscope.errors import AnalysisError


@dataclass(frozen=True, eq=False)
class Across:
    """The choice among runs.

    Attributes:
        run: The name of the chosen one.
        found: By the name of a run its recommendation.
        sentence: What to do.
        trust: How far behind the others are, and whether that is more than their intervals leave open.
    """

    run: str
    found: Mapping[str, Recommendation]
    sentence: str
    trust: str

    @property
    def chosen(self) -> Recommendation:
        """The recommendation of the chosen run."""
        return self.found[self.run]


def across(found: Mapping[str, Recommendation]) -> Across:
    """The run whose recommended option has the least product of time and cost.

    With a deadline the least cost of those that meet it, with a budget the least time within it.

    Args:
        found: By the name of a run its recommendation, all for one goal and in one unit.

    Raises:
        AnalysisError: If the goals or the units differ.
    """
    goals = {str(one.goal) for one in found.values()}
    if len(goals) > 1:
        raise AnalysisError(f"the runs have different goals, {', '.join(sorted(goals))}: give one with --goal")
    if len({(one.idealised, one.cost_unit) for one in found.values()}) > 1:
        raise AnalysisError("the runs are compared in one unit: give all of them a probe, or none")
    run = min(found, key=lambda name: _merit(found[name]))
    best = found[run].recommended
    others = [_behind(name, one, best) for name, one in found.items() if name != run]
    lucky = [name for name, one in found.items() if one.recommended.lower_bound]
    if lucky and len(lucky) < len(found):
        others.append(f"Not trained again, so that its steps are a lower bound, which favours it: {', '.join(lucky)}.")
    answer = found[run].headline
    return Across(run, found, f"Take {run}. {answer.sentence}", " ".join([*others, answer.trust]))


def _merit(found: Recommendation) -> tuple[bool, float]:
    option = found.recommended
    time, cost = option.time.value or 0.0, option.cost.value or 0.0
    if found.deadline is not None:
        return not found.deadline.met, cost if found.deadline.met else time
    if found.budget is not None:
        return not found.budget.met, time if found.budget.met else cost
    return False, time * cost


def _behind(name: str, found: Recommendation, best: Option) -> str:
    own = found.recommended
    unit = "steps" if found.idealised else "time"
    ratio = (own.time.value or 0.0) / (best.time.value or 1.0)
    cost = (own.cost.value or 0.0) / (best.cost.value or 1.0)
    low, high = own.time.low, best.time.high
    apart = low is not None and high is not None and low > high
    told = "" if apart else ", which these intervals leave open"
    of = "examples" if found.idealised else "cost"
    return f"{name} takes {number(ratio, 2)} times the {unit} and {number(cost, 2)} times the {of}, {own.place}{told}."


def document(found: Across, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What ``recommend --json`` prints for several runs; ``documents`` are those of each."""
    answer = {"run": found.run, "sentence": found.sentence, "trust": found.trust}
    return {"schema": 1, "chosen": answer, "runs": dict(documents)}
