"""Step counts: the looks at which trials are evaluated, and the rungs to which they are advanced together."""

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
FULL_LOOK_EVALUATIONS = 20
TRAINING_PASSES = 3


@dataclass(frozen=True)
class Grid:
    """Looks at geometrically growing steps: about ``log(2) / log(ratio)`` of them in every doubling.

    The grid is the same at every batch size, so that no batch size gets more chances of a lucky evaluation (Sh19
    section 5.1 names that as a weakness of its own protocol). Where steps are few, looks are whole steps apart.

    Attributes:
        ratio: The quotient of one look's step and the one before, above 1.
        first: The first look.
        last: The budget; always a look.
    """

    ratio: float
    first: int
    last: int

    def looks(self) -> tuple[int, ...]:
        """All looks, ascending."""
        return _looks(self.ratio, self.first, self.last)

    def between(self, after: int, until: int) -> tuple[int, ...]:
        """The looks in (after, until]."""
        looks = self.looks()
        return looks[bisect.bisect_right(looks, after) : bisect.bisect_right(looks, until)]

    def at_least(self, step: float) -> int:
        """The first look at ``step`` or later; the budget where there is none."""
        looks = self.looks()
        return looks[min(bisect.bisect_left(looks, step), len(looks) - 1)]

    def at_most(self, step: float) -> int:
        """The last look at ``step`` or earlier; the first look where there is none."""
        looks = self.looks()
        return looks[max(bisect.bisect_right(looks, step) - 1, 0)]

    def rungs(self) -> tuple[int, ...]:
        """Looks about a factor of ``RUNG_RATIO`` apart, the last one the budget.

        A rung is at most twice the first look after the rung before, on any grid: what is reached inside a rung was
        reached at half of it or later, so that advancing all trials to the rung costs at most twice what was needed.
        """
        return _rungs(self)

    def full_looks(self, examples: Callable[[int], int], validation: int) -> frozenset[int]:
        """Looks at which every trial is evaluated in full, whatever its goals: by the clock, and the budget's end.

        Args:
            examples: Training examples that a trial has seen at a step.
            validation: Examples of an evaluation.
        """
        full, since = {self.last}, 0
        for look in self.looks():
            if TRAINING_PASSES * (examples(look) - since) >= FULL_LOOK_EVALUATIONS * validation:
                full.add(look)
                since = examples(look)
        return frozenset(full)


@lru_cache(maxsize=64)
def _looks(ratio: float, first: int, last: int) -> tuple[int, ...]:
    looks, exact = [], float(first)
    while round(exact) < last:
        looks.append(round(exact))
        exact = max(exact * ratio, looks[-1] + 1)
    return (*looks, last)


@lru_cache(maxsize=64)
def _rungs(grid: Grid) -> tuple[int, ...]:
    looks = grid.looks()
    rungs = [grid.at_most(2 * looks[0])]
    while rungs[-1] < grid.last:
        wanted = grid.at_least(max(RUNG_RATIO * rungs[-1], min(2 * rungs[-1], SMALL_RUNG)))
        after = looks[bisect.bisect_right(looks, rungs[-1])]
        rungs.append(min(wanted, grid.at_most(2 * after)))
    return tuple(rungs)
