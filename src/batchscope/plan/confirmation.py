"""Which points of a search are run again with new seeds.

The fewest steps of a search are a lucky number, so the best few points are trained anew: all of them on the same new
seeds, because the choice among them and the number that is promised must come from different trainings
(``analysis/tuned_steps.py``).
"""

from __future__ import annotations

from collections.abc import Iterable

from batchscope.plan.rungs import Grid
from batchscope.spec.trial import Trial

# Points within this factor of the fewest steps cannot be told apart from one training of each.
CLOSE = 1.5
# On one seed, candidates run on to this multiple of the fastest: far enough that the one that is chosen is not stopped.
MARGIN = 3.0
# No training goes beyond this multiple of what the search took.
HORIZON = 4.0

Found = tuple[int, Trial]  # steps to a goal in the search, and who took them


def candidates(found: Iterable[Found], most: int) -> list[Found]:
    """The best ``most`` points of the trials that reached a goal, close to the fastest, each once; ties by index."""
    ranked = sorted(found, key=lambda one: (one[0], one[1].index), reverse=True)
    points = {tuple(sorted(trial.hyperparameters.items())): (steps, trial) for steps, trial in ranked}
    best = sorted(points.values(), key=lambda one: (one[0], one[1].index))
    return [one for one in best if one[0] <= CLOSE * best[0][0]][:most]


def horizon(grid: Grid, fewest: Iterable[int]) -> Grid:
    """The evaluations of a confirmation; ``fewest`` are the fewest steps to each of its goals."""
    return Grid(grid.ratio, grid.first, grid.at_least(HORIZON * max(fewest)))
