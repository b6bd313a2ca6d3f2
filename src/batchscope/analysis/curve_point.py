"""A batch size of a curve: its fewest steps, what was promised from new seeds, and whether its trials were enough.

Legend: D samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from batchscope.amounts import number
from batchscope.analysis import tail
from batchscope.analysis.audit import WIDE, Space, boundary, central
from batchscope.analysis.curve import FIRST_COLUMNS, LAST_COLUMNS
from batchscope.analysis.outcomes import PREFIX, Array, Outcomes, crossings
from batchscope.analysis.tuned_optimum import Optimum
from batchscope.analysis.tuned_steps import TunedSteps
from batchscope.seeds import numpy_generator

_HARDLY = 5.0  # an interval that spans this factor is no knowledge worth a number
RUNNERS_UP = 5
_MOST_TRIALS = 4096


@dataclass(frozen=True)
class CurvePoint:
    """A row of the table, samples (D,) of log S(B), and what was promised from new seeds, if that has an interval."""

    row: dict[str, object]
    sample: Array
    promise: TunedSteps | None = None

    def drawn(self, what: Literal["log_median", "log_fresh", "search"]) -> Array:
        """Draws (D,) of the logarithm of tuned steps, of one fresh training, or of S(B)."""
        return self.sample if what == "search" or self.promise is None else getattr(self.promise, what)

    @classmethod
    def of(
        cls,
        found: Outcomes,
        group: pl.DataFrame,
        names: list[str],
        space: Space | None,
        edge: float,
        level: float,
        samples: int,
        promise: TunedSteps | None,
    ) -> CurvePoint:
        """Of the trials of one batch size; arguments are those of ``steps_to_result``."""
        batch_size, feasible = int(group.item(0, "batch_size")), group.filter("feasible")
        row: dict[str, object] = dict.fromkeys((*FIRST_COLUMNS, *names, *LAST_COLUMNS))
        row |= {"batch_size": batch_size, "trials": group.height, "feasible": feasible.height}
        row["trained"] = found.table.filter(pl.col("batch_size") == batch_size).get_column("steps").sum()
        row |= {"reached": feasible.get_column("goal_step").count(), "revisions": group.get_column("revision").max()}
        if not row["reached"]:
            row |= {"validated": False, "reason": "no trial reached the goal"}
            return cls(row, np.empty(0))
        ranked = feasible.sort("goal_step", "revision", "index", nulls_last=True)
        best = ranked.row(0, named=True)
        generator = numpy_generator("steps to result", str(found.goal), batch_size)
        fitted = tail.fit(*crossings(feasible), samples, generator)
        sample = fitted.expected(feasible.height, found.evaluations[batch_size])
        low, high = central(sample, level)
        # The crossing itself is only known to lie after the evaluation before it.
        row |= {"steps": best["goal_step"], "winner": best["trial"], "runners_up": _runners_up(ranked)}
        row |= {"low": min(low, best["before"] + 1.0), "high": max(high, float(best["goal_step"]))}
        shown = best if promise is None else group.row(by_predicate=pl.col("trial") == promise.trial, named=True)
        row |= {"trial": shown["trial"]} | {name: shown[PREFIX + name] for name in names}
        if space is not None:
            row["reason"] = boundary({name: row[name] for name in names}, space, edge)
            row["validated"] = row["reason"] is None
        return cls(row, np.log(sample), None if promise is None else _entered(row, promise))

    def judge(self, optimum: Optimum | None, level: float) -> None:
        """Enter the optimum into the row, and whether there were too few trials to know it."""
        row = self.row
        if row["steps"] is None:
            return
        size, remedy = int(str(row["batch_size"])), "several at each batch size would tell how far the best setting is"
        if optimum is None:
            low, high = (float(str(row[side])) for side in ("low", "high"))
        else:
            sample = optimum.seen(size)
            low, high = np.exp(central(sample, level)).tolist()
            row |= {"optimum": float(np.exp(np.median(sample))), "optimum_low": low, "optimum_high": high}
        if high <= WIDE * low:
            return
        if optimum is not None:
            row["trials_needed"] = needed = optimum.trials_needed(size, WIDE, level)
            remedy = f"about {number(needed)} would do"
            if needed > _MOST_TRIALS:
                row["trials_needed"], remedy = None, "more of them alone would hardly help: change the space"
        known = f"steps are known within a factor of {number(high / low, 2)}"
        if high > _HARDLY * low:
            known = f"{row['reached']} of {row['feasible']} reached the goal, which says next to nothing of the steps"
        row["verdict"] = f"too few trials: {known}; {remedy}"


def _runners_up(ranked: pl.DataFrame) -> float | None:
    """The median steps of those behind the fastest, as far as they were watched."""
    behind = ranked.slice(1).drop_nulls("goal_step").head(RUNNERS_UP).get_column("goal_step").cast(pl.Float64)
    median = behind.median()
    return float(median) if isinstance(median, int | float) else None


def _entered(row: dict[str, object], promise: TunedSteps) -> TunedSteps | None:
    """Enter the promise into the row; None if it has a value without an interval, of which nothing can be drawn."""
    ends = promise.steps.to_dict()
    row |= {"tuned": ends["value"], "tuned_low": ends["low"], "tuned_high": ends["high"]}
    row["tuned_seeds"] = promise.seeds
    if promise.missed:
        row["validated"] = False
        row["reason"] = f"{promise.missed} of {promise.seeds} trainings with new seeds missed the goal"
    return promise if promise.steps.value is None or len(promise.log_median) else None
