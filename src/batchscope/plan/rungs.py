"""Step counts: the evaluations at which trials are evaluated, and the rungs to which they are advanced together."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

# All trials are advanced to the end of the rung in which one reaches the goal, half a rung too far on the average;
# against that stand a few milliseconds for every rung and pack.
RUNG_RATIO = 1.2
# Below this many steps a ratio of 2 will do: there a rung costs more than the steps that it saves.
SMALL_RUNG = 8

# Everything is evaluated in full once training has cost so many evaluations since the last time, where training on an
# example costs as much as so many forward passes: one forward, and twice as much backward.
FULL_AFTER_EVALUATIONS = 20
TRAINING_PASSES = 3


@dataclass(frozen=True)
class Grid:
    """Evaluations at geometrically growing steps: about ``log(2) / log(ratio)`` of them in every doubling.

    The grid is the same at every batch size, so that no batch size gets more chances of a lucky evaluation (Sh19
    section 5.1 names that as a weakness of its own protocol). Where steps are few, evaluations are whole steps apart.

    Attributes:
        ratio: The quotient of one evaluation's step and the one before, above 1.
        first: The first evaluation.
        last: The budget; always an evaluation.
    """

    ratio: float
    first: int
    last: int

    def evaluations(self) -> tuple[int, ...]:
        """All evaluations, ascending."""
        return _evaluations(self.ratio, self.first, self.last)

    def between(self, after: int, until: int) -> tuple[int, ...]:
        """The evaluations in (after, until]."""
        evaluations = self.evaluations()
        return evaluations[bisect.bisect_right(evaluations, after) : bisect.bisect_right(evaluations, until)]

    def at_least(self, step: float) -> int:
        """The first evaluation at ``step`` or later; the budget where there is none."""
        evaluations = self.evaluations()
        return evaluations[min(bisect.bisect_left(evaluations, step), len(evaluations) - 1)]

    def at_most(self, step: float) -> int:
        """The last evaluation at ``step`` or earlier; the first evaluation where there is none."""
        evaluations = self.evaluations()
        return evaluations[max(bisect.bisect_right(evaluations, step) - 1, 0)]

    def rungs(self) -> tuple[int, ...]:
        """Evaluations about a factor of ``RUNG_RATIO`` apart, the last one the budget.

        A rung is at most twice the first evaluation after the rung before, on any grid: what is reached inside a rung
        was reached at half of it or later, so that advancing all trials to the rung costs at most twice what was
        needed.
        """
        return _rungs(self)

    def full_evaluations(self, examples: Callable[[int], int], validation: int) -> frozenset[int]:
        """Evaluations at which every trial is evaluated in full, whatever its goals: by the clock, and the budget's
        end.

        Args:
            examples: Training examples that a trial has seen at a step.
            validation: Examples of an evaluation.
        """
        full, since = {self.last}, 0
        for evaluation in self.evaluations():
            if TRAINING_PASSES * (examples(evaluation) - since) >= FULL_AFTER_EVALUATIONS * validation:
                full.add(evaluation)
                since = examples(evaluation)
        return frozenset(full)


@lru_cache(maxsize=64)
def _evaluations(ratio: float, first: int, last: int) -> tuple[int, ...]:
    evaluations, exact = [], float(first)
    while round(exact) < last:
        evaluations.append(round(exact))
        exact = max(exact * ratio, evaluations[-1] + 1)
    return (*evaluations, last)


@lru_cache(maxsize=64)
def _rungs(grid: Grid) -> tuple[int, ...]:
    evaluations = grid.evaluations()
    rungs = [grid.at_most(2 * evaluations[0])]
    while rungs[-1] < grid.last:
        wanted = grid.at_least(max(RUNG_RATIO * rungs[-1], min(2 * rungs[-1], SMALL_RUNG)))
        after = evaluations[bisect.bisect_right(evaluations, rungs[-1])]
        rungs.append(min(wanted, grid.at_most(2 * after)))
    return tuple(rungs)
