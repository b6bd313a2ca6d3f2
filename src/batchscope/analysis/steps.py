"""Steps to result: the fewest steps to a goal at every batch size, and how sure that is.

Legend: M batch sizes, D samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from batchscope.amounts import NOTHING, batch_size, bounds, count, number, percent
from batchscope.analysis import curve_notes, tail
from batchscope.analysis.audit import WIDE, Space, boundary, central
from batchscope.analysis.held_out import on_test
from batchscope.analysis.outcomes import (
    PREFIX,
    Array,
    Outcomes,
    Table,
    crossings,
    ended_early,
    hyperparameters,
    outcomes,
)
from batchscope.analysis.printing import as_html, as_text, to_pandas
from batchscope.analysis.reach import nearest
from batchscope.analysis.regimes import TOLERANCE, Regimes, regimes
from batchscope.analysis.searched import dimensions, searched
from batchscope.analysis.tuned_optimum import Optimum, tuned_optimum
from batchscope.analysis.tuned_rows import tuned_rows
from batchscope.analysis.tuned_steps import TunedSteps, promised
from batchscope.interval import Interval
from batchscope.seeds import numpy_generator
from batchscope.spec.goal import Goal
from batchscope.spec.study import EDGE

Kinds = dict[str, pl.DataType | type[pl.DataType]]
_FIRST_COLUMNS: Kinds = {
    "batch_size": pl.Int64,
    "steps": pl.Int64,
    "low": pl.Float64,
    "high": pl.Float64,
    "reached": pl.Int64,
    "feasible": pl.Int64,
    "trials": pl.Int64,
    "trial": pl.String,
}
_LAST_COLUMNS: Kinds = {
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

_HARDLY = 5.0  # an interval that spans this factor is no knowledge worth a number
RUNNERS_UP = 5
_MOST_TRIALS = 4096
_UNKNOWN = 2  # hyperparameters, of trials whose settings are not known
_OVERLOOKED = (
    "exact but for evaluations that ended early: one that was just beyond the goal is overlooked less than once in "
    "1,000 times, and the next one sees it"
)


def point_names(table: pl.DataFrame) -> list[str]:
    """The hyperparameters among the columns of ``Curve.table``."""
    return [name for name in table.columns if name not in _FIRST_COLUMNS and name not in _LAST_COLUMNS]


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


def steps_to_result(
    trials: Table,
    measurements: Table,
    goal: Goal,
    *,
    trials_per_batch_size: int | None = None,
    equal_trials: bool = False,
    space: Space | Mapping[int, Space] | None = None,
    edge: float = EDGE,
    tolerance: float = TOLERANCE,
    level: float = 0.9,
    samples: int = 1000,
    tuned: bool = False,
    found: Outcomes | None = None,
) -> Curve:
    """The steps-to-result curve of a run (Sh19 section 4).

    Args:
        trials: The table of trials.
        measurements: The table of measurements; may be lazy.
        goal: What is to be reached.
        trials_per_batch_size: Use only the first so many feasible trials of each batch size.
        equal_trials: Use as many trials everywhere as the batch size with the fewest feasible ones has.
        space: The search space, for the boundary check: name -> (smallest, largest, scale), or such a space for
            every batch size where widening made them differ.
        edge: The share of a range, in its scale, that counts as too near to its side.
        tolerance: Of the regimes.
        level: Of the intervals.
        samples: D.
        tuned: Whether every trial trains what was tuned at its batch size before, and nothing was searched.
        found: What became of the trials, if it is known already.

    A run without trials, or without the metric of the goal, is an ``AnalysisError``.
    """
    found = found or outcomes(trials, measurements, goal)
    if equal_trials:
        fewest = max(1, found.fewest_feasible())
        trials_per_batch_size = min(fewest, trials_per_batch_size or fewest)
    names = hyperparameters(found.table.columns)
    groups = dict(found.search(trials_per_batch_size))
    if tuned:
        promises, optimum = tuned_rows(groups, level=level, samples=samples), None
    else:
        promises = promised(found.table, groups, names, level=level, samples=samples)
        optimum = _optimum(groups, promises, names, samples)
    points = [
        _Point.of(found, group, names, _space_at(space, batch_size), edge, level, samples, promises.get(batch_size))
        for batch_size, group in groups.items()
    ]
    for point in points:
        if tuned:
            point.row.update(low=None, high=None, trained=None)  # the fewest of a search, of which there was none
        else:
            point.judge(optimum, level)
    kinds: Kinds = {name: found.table.schema[PREFIX + name] for name in names}
    table = pl.DataFrame([point.row for point in points], schema=_FIRST_COLUMNS | kinds | _LAST_COLUMNS)
    reached = [point for point in points if point.row["steps"] is not None]
    confirmed = all(point.promise is not None for point in reached) and table.get_column("tuned").count() > 0
    quantity = "tuned" if confirmed else "steps"
    medians, fresh = (
        _joint([point.drawn(what) if point.row[quantity] is not None else None for point in points], samples)
        for what in (("log_median", "log_fresh") if confirmed else ("search", "search"))
    )
    inside = table.get_column(quantity).is_not_null()
    shown = table.filter(inside)
    steps = shown.get_column(quantity).to_numpy() * 1.0
    sizes = shown.get_column("batch_size").to_numpy() * 1.0
    curves = medians[:, inside]
    if optimum and len(sizes):
        curves = np.column_stack([optimum.at(int(size)) for size in sizes])
        steps = np.exp(np.median(curves, axis=0))
    boundaries = regimes(sizes, steps, curves, tolerance=tolerance, level=level)
    approximate = curve_notes.approximate(found.table)
    notes = (
        *curve_notes.of_curve(found, table, confirmed, approximate),
        *curve_notes.of_optima(table, quantity, groups, names),
    )
    if ended_early(measurements, goal.metric):
        notes = (*notes, _OVERLOOKED)
    if tuned:
        notes = (*notes, "steps were tuned before they came here: how far they lie from their law is their error")
    if missed := table.filter(pl.col("steps").is_null()).get_column("batch_size").to_list():
        lost = found.table.filter(pl.col("batch_size").is_in(missed)).get_column("status") == "diverged"
        notes = (*notes, f"where the goal was not reached {nearest(measurements, goal, missed, diverged=lost.all())}")
    test = on_test(measurements, [group for point in reached for group in _chosen(found, point.row, names)])
    return Curve(goal, table, boundaries, level, confirmed, notes, medians, approximate, test, fresh)


def _optimum(
    groups: Mapping[int, pl.DataFrame], promises: Mapping[int, TunedSteps], names: list[str], samples: int
) -> Optimum | None:
    """The optimum of the space; None where no batch size tried two settings, for then nothing tells how far it is."""
    known, varied = searched(groups, promises), dimensions(groups, names)
    if varied == 0 or not any(len(one.log_steps) + len(one.watched) > 1 for one in known):
        return None
    return tuned_optimum(known, _UNKNOWN if varied is None else varied, samples=samples)


def _joint(columns: Sequence[Array | None], samples: int) -> Array:
    return np.column_stack([np.full(samples, np.nan) if column is None else column for column in columns])


def _space_at(space: Space | Mapping[int, Space] | None, batch_size: int) -> Space | None:
    if space is None:
        return None
    own: Space = {}
    for key, value in space.items():
        if isinstance(key, str) and isinstance(value, tuple):
            own = {**own, key: value}
        elif key == batch_size and isinstance(value, Mapping):
            return value
    return own


@dataclass(frozen=True)
class _Point:
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
    ) -> _Point:
        batch_size, feasible = int(group.item(0, "batch_size")), group.filter("feasible")
        row: dict[str, object] = dict.fromkeys((*_FIRST_COLUMNS, *names, *_LAST_COLUMNS))
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


def _chosen(found: Outcomes, point: Mapping[str, object], names: list[str]) -> list[pl.DataFrame]:
    """The winner of a point, and the trainings of its setting with new seeds."""
    table = found.table.filter(pl.col("batch_size") == point["batch_size"])
    same = [pl.col(PREFIX + name).eq_missing(pl.lit(point[name])) for name in names]
    return [table.filter(pl.col("trial") == point["winner"]), table.filter(pl.col("replicate") > 0, *same)]


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
