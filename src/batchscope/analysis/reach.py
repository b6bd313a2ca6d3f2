"""How near trials came to a goal that none of them reached, and what to try."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from batchscope.amounts import number
from batchscope.analysis.outcomes import Table
from batchscope.spec.goal import Goal

# Trials that diverged before it is said, while a run goes on, that this is how it goes.
DIVERGED = 8


def nearest(measurements: Table, goal: Goal, batch_sizes: Collection[int], *, diverged: bool = False) -> str:
    """The best value of the goal's metric at these batch sizes, none of which reached the goal, with what to try.

    ``diverged`` is whether every trial there has.
    """
    value = pl.col(goal.metric)
    order = value if goal.side == "<" else -value
    evaluations = measurements.lazy()
    if goal.metric not in evaluations.collect_schema().names():
        return f"nothing was measured of {goal.metric}"
    known = evaluations.filter(value.is_finite(), pl.col("batch_size").is_in(list(batch_sizes)))
    best = known.sort(order).select("batch_size", "step", value.alias("value")).head(1).collect(engine="streaming")
    if best.is_empty():
        return f"no {goal.metric} was a finite number: check the loss and the data, or lower search.space.learning_rate"
    row = best.row(0, named=True)
    remedy = "train longer (budget), widen search.space, or ask for an easier goal"
    if diverged:
        remedy = "every trial diverged after that: is the loss a number? If so, lower search.space.learning_rate"
    return (
        f"the best {goal.metric} was {number(row['value'])}, at batch size {number(row['batch_size'])} and step "
        f"{number(row['step'])}: {remedy}"
    )


def diverging(trials: int, diverged: int) -> str | None:
    """What to say where nothing has reached a goal yet and half of the trials, or more, have diverged."""
    if diverged < DIVERGED or 2 * diverged < trials:
        return None
    return (
        f"{number(diverged)} of {number(trials)} trials have diverged so far, and none has reached a goal: is the loss "
        "a number? If so, lower search.space.learning_rate"
    )
