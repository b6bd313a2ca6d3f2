"""The result of a study: steps to a goal at every batch size, with what is known of them.

Legend: M batch sizes, D samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from batchscope.amounts import NOTHING, batch_size, bounds, count, number, percent
from batchscope.analysis.outcomes import Array
from batchscope.analysis.printing import as_html, as_text, to_pandas
from batchscope.analysis.regimes import Regimes
from batchscope.interval import Interval
from batchscope.spec.goal import Goal

Kinds = dict[str, pl.DataType | type[pl.DataType]]
# Of the table, before and behind the hyperparameters.
FIRST_COLUMNS: Kinds = {
    "batch_size": pl.Int64,
    "steps": pl.Int64,
    "low": pl.Float64,
    "high": pl.Float64,
    "reached": pl.Int64,
    "feasible": pl.Int64,
    "trials": pl.Int64,
    "trial": pl.String,
}
LAST_COLUMNS: Kinds = {
    "revisions": pl.Int64,
    "validated": pl.Boolean,
    "reason": pl.String,
    "verdict": pl.String,
    "trials_needed": pl.Int64,
    "tuned": pl.Float64,
    "tuned_low": pl.Float64,
    "tuned_high": pl.Float64,
    "tuned_seeds": pl.Int64,
    "runners_up": pl.Float64,
    "winner": pl.String,
    "optimum": pl.Float64,
    "optimum_low": pl.Float64,
    "optimum_high": pl.Float64,
    "trained": pl.Int64,
}


def point_names(table: pl.DataFrame) -> list[str]:
    """The hyperparameters among the columns of ``Curve.table``."""
    return [name for name in table.columns if name not in FIRST_COLUMNS and name not in LAST_COLUMNS]


@dataclass(frozen=True, eq=False)
class Curve:
    """Steps to result against batch size.

    Two numbers are estimated. *Tuned steps* are what the best setting takes when it is trained anew, the median over
    seeds: what a user gets. S(B), the *expected fewest steps* over as many feasible trials as were run, is the number
    of the papers; nobody trains it, for the fastest of many trials was lucky. ``table`` has one row per batch size,
    ascending:

    * ``steps``: the fewest steps observed, an unbiased estimate of S(B); null where no trial reached the goal;
    * ``low``, ``high``: the interval of S(B), no narrower than the gap between two evaluations;
    * ``reached``, ``feasible``, ``trials``: how many trials reached the goal, did not diverge before it, were run;
    * ``trial`` and the hyperparameters, under their own names: the setting that was chosen from new seeds, else the
      winner of the search (ties go to the lower index);
    * ``revisions``: how often the space was widened; ``validated`` and ``reason``: the boundary check, null if no
      space was given;
    * ``verdict``: "too few trials ..." where the interval spans more than a factor of 2, and ``trials_needed``;
    * ``tuned``, ``tuned_low``, ``tuned_high``, ``tuned_seeds``: the tuned steps, the interval that holds one fresh
      training, and on how many new seeds they rest; null where nothing was trained again. Without an upper end some
      of these trainings missed the goal; without a value half of them did;
    * ``runners_up``: the median steps of the up to five trials behind the fastest, which tells how far luck may have
      carried it: were there only the seed between them, a fresh training would take as many. Null without one;
    * ``winner``: the trial of the search that took the fewest steps;
    * ``optimum``, ``optimum_low``, ``optimum_high``: the steps that the best setting of the whole space would take
      (``tuned_optimum``); null where no batch size tried two settings;
    * ``trained``: the steps of all trainings at that batch size, those with new seeds among them; null where steps were
      tuned before they came here.

    The regimes are those of the optimum. Where every point that reached the goal was trained again the curve is
    ``confirmed``: ``quantity`` is then ``tuned``, and ``log_samples`` (D, M) are joint samples of the medians, with
    ``log_fresh`` (D, M) those of one fresh training each. Otherwise ``quantity`` is ``steps``, a lower bound of what a
    training takes, and both are of S(B), as are the regimes where there is no optimum. They are logarithms, NaN where
    nothing is known: what two seeds say has samples so far out that steps themselves would be infinite.

    ``approximate`` says why the curve is not exact, where trials were pruned: a pruned trial might have won, so
    ``steps`` is an upper bound; and the intervals take it as one that was merely not watched for longer, though it was
    dropped for looking bad. ``None`` if none was pruned.

    ``test`` has what the test examples say of the winners and their confirmations where they reached the goal (see
    ``held_out.on_test``); nothing else depends on it.
    """

    goal: Goal
    table: pl.DataFrame
    regimes: Regimes
    level: float = 0.9
    confirmed: bool = False
    notes: tuple[str, ...] = ()
    log_samples: Array = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    approximate: str | None = None
    test: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)
    log_fresh: Array = field(default_factory=lambda: np.empty((0, 0)), repr=False)

    @property
    def quantity(self) -> Literal["tuned", "steps"]:
        """The column that the regimes are drawn from, and that is to be shown."""
        return "tuned" if self.confirmed else "steps"

    @property
    def has_fewest(self) -> bool:
        """Whether the fewest steps of a search stand beside tuned ones; not of rows that were tuned elsewhere."""
        return self.confirmed and self.table["low"].count() > 0

    @property
    def price(self) -> float | None:
        """What the curve cost, in trainings of the setting of every batch size that reached the goal."""
        if "trained" not in self.table.columns:
            return None
        known = self.table.drop_nulls([self.quantity, "trained"])
        return float((known["trained"] / known[self.quantity]).sum()) if known.height else None

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``; an ``AnalysisError`` where pandas is not installed."""
        return to_pandas(self.table)

    def __repr__(self) -> str:
        """What a person reads: the goal, steps and setting of every batch size, and the ends of the regimes."""
        return "\n".join([self._title, as_text(*self._shown), self._ends])

    def _repr_html_(self) -> str:
        return as_html(self._title, [self._ends], *self._shown)

    @property
    def _title(self) -> str:
        what = "of a fresh training" if self.confirmed else "at least: the fewest of a search"
        return f"Steps to {self.goal}, {what}"

    @property
    def _ends(self) -> str:
        found = []
        for name in ("perfect_scaling_until", "critical_batch_size", "maximum_useful_batch_size"):
            end: Interval = getattr(self.regimes, name)
            sides = bounds(end.low, end.high, batch_size)
            told = sides if end.value is None else f"{batch_size(end.value)} ({sides})"
            found.append(f"{name.replace('_', ' ')} {'not determined' if told == NOTHING else told}")
        return "; ".join(found)

    @property
    def _shown(self) -> tuple[list[str], list[list[str]]]:
        """Heads and rows of what matters."""
        names = point_names(self.table)
        low, high = ("tuned_low", "tuned_high") if self.confirmed else ("low", "high")
        heads = [
            "batch size",
            "steps",
            f"{percent(self.level, 3)} interval",
            *(name.replace("_", " ") for name in names),
        ]
        rows = []
        for row in self.table.iter_rows(named=True):
            setting = [value if isinstance(value := row[name], str) else number(value) for name in names]
            rows.append(
                [number(row["batch_size"]), count(row[self.quantity]), bounds(row[low], row[high], count), *setting]
            )
        return heads, rows
