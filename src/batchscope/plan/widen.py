"""Widening a search space on the sides that the best point lies near (Sh19 section 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from batchscope.spec.space import OPTIMIZER, Dimension, Range, Space, Value

# A side moves out by this share of its range's width, on the range's scale.
STEP = 0.5

# Where no trial reached the goal, the best one says less: a side counts as near within this share.
UNREACHED_EDGE = 0.25


def widened(spaces: Mapping[str, Space], point: Mapping[str, Value], edge: float) -> dict[str, Space]:
    """The spaces with every side moved out that ``point`` lies within ``edge`` of, on the scale; the same if none.

    Only that of the point's optimizer changes. A range that begins at or above 0 stays there, whatever its scale; a
    reverse_log range stays below 1.
    """
    optimizer = str(point.get(OPTIMIZER, ""))
    return {**spaces, optimizer: _widened(spaces[optimizer], point, edge)}


def _widened(space: Space, point: Mapping[str, Value], edge: float) -> Space:
    found = dict(space)
    for name, dimension in space.items():
        if isinstance(dimension, Range):
            place = dimension.to_unit(float(point[name]))
            found[name] = _moved(dimension, lower=place < edge, upper=place > 1 - edge)
    return found


def further_count(before: Mapping[str, Space], after: Mapping[str, Space], trials: int) -> int:
    """Trials that fill what was added as densely as ``trials`` fill the spaces before, equally many in each."""
    added = sum(1 / _share(before[optimizer], after[optimizer]) - 1 for optimizer in before)
    return max(1, math.ceil(trials / len(before) * added - 1e-9))


def _share(before: Mapping[str, Dimension], after: Mapping[str, Dimension]) -> float:
    """Of the space after, that the one before is."""
    shares = [
        (old.to_scale(old.max) - old.to_scale(old.min)) / (new.to_scale(new.max) - new.to_scale(new.min))
        for name, old in before.items()
        if isinstance(old, Range) and isinstance(new := after[name], Range)
    ]
    return math.prod(shares)


def _moved(dimension: Range, *, lower: bool, upper: bool) -> Range:
    low, high = dimension.to_scale(dimension.min), dimension.to_scale(dimension.max)
    out = STEP * (high - low)
    least = dimension.from_scale(low - out) if lower else dimension.min
    if dimension.min >= 0:
        least = max(least, 0.0)
    most = dimension.from_scale(high + out) if upper else dimension.max
    return dimension.model_copy(update={"min": least, "max": most})
