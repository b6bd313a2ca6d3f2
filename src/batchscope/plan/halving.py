"""Which trials go on under successive halving (Jamieson and Talwalkar 2016; Li et al. 2018, "Hyperband", section 3).

Every rung costs about the same: as the steps grow, the trials become fewer in proportion, down to one at the budget R.
Of n trials all go on until R/n steps, which is where classical successive halving begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from batchscope.spec.goal import Goal

Standing = tuple[Mapping[Goal, int], Mapping[Goal, float]]  # steps at which goals were reached, best values so far


def places(budget: int, target: int) -> int:
    """How many trials may be advanced to the step ``target``: as many as together take about one budget."""
    return math.ceil(budget / target)


def survivors(standings: Mapping[int, Standing], goals: Sequence[Goal], count: int) -> set[int]:
    """The trials that are among the best ``count`` for any of the goals.

    Trials that have reached a goal rank first, by their steps; then the others by their best value; ties go to the
    lower index. So none that has reached a goal is dropped for one that has not.

    Args:
        standings: What is known of every trial, by its index.
        goals: Each ranks for itself.
        count: Places for each goal.
    """
    kept: set[int] = set()
    for goal in goals:
        sign = 1.0 if goal.side == "<" else -1.0

        def rank(index: int, goal: Goal = goal, sign: float = sign) -> tuple[float, float, int]:
            reached, best = standings[index]
            return reached.get(goal, math.inf), sign * best.get(goal, sign * math.inf), index

        kept.update(sorted(standings, key=rank)[:count])
    return kept
