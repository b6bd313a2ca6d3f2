"""Notes of a curve: what a reader of its steps has to know beside them."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from batchscope.amounts import number
from batchscope.analysis.outcomes import PREFIX, Outcomes
from batchscope.analysis.two_optima import two_optima

_COARSE = 1.15  # times the steps of the optimum: what was found takes so many that it is worth saying
_MOST_RUNGS = 8  # of those at which trials were pruned, in a sentence


def approximate(trials: pl.DataFrame) -> str | None:
    """What pruning has made of the curve; None if no trial was pruned."""
    pruned = trials.filter(pl.col("status") == "pruned")
    if pruned.is_empty():
        return None
    steps = [str(step) for step in pruned.get_column("steps").unique().sort()]
    rungs = ", ".join(steps if len(steps) <= _MOST_RUNGS else [*steps[: _MOST_RUNGS - 1], "...", steps[-1]])
    return (
        f"approximate: policy halving, or another pruner, dropped {pruned.height} trial{'s' * (pruned.height > 1)} "
        f"at rungs {rungs}; one of them might have won, so steps to result is an upper bound. The intervals are to be "
        "trusted less: they take these trials as not watched for longer, though they were dropped for their values"
    )


def of_optima(table: pl.DataFrame, quantity: str, groups: Mapping[int, pl.DataFrame], names: list[str]) -> list[str]:
    """Where the search was too coarse for its optimum, and where it found two."""
    notes = []
    coarse = table.filter(pl.col(quantity) > _COARSE * pl.col("optimum"))
    if coarse.height:
        sizes = ", ".join(map(str, coarse.get_column("batch_size")))
        most = float((coarse.get_column(quantity) / coarse.get_column("optimum")).to_numpy().max())
        notes.append(
            f"the search was too coarse for its optimum at batch size {sizes}: its best setting would take up to "
            f"{number(most, 2)} times fewer steps than the one that was found; the regimes are those of the former"
        )
    for size, group in groups.items():
        if (trials := two_optima(group, names)) is not None:
            rows = [group.row(by_predicate=pl.col("trial") == trial, named=True) for trial in trials]
            points = [", ".join(f"{name} {_shown(row[PREFIX + name])}" for name in names) for row in rows]
            notes.append(f"two optima at batch size {size}, with slow settings between: {points[0]}; and {points[1]}")
    return notes


def _shown(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def of_curve(found: Outcomes, table: pl.DataFrame, confirmed: bool, pruned: str | None) -> tuple[str, ...]:
    """What else is to be known of a curve: what runs on, where the goal was missed, what is not validated."""

    def at(condition: pl.Expr) -> str:
        return ", ".join(map(str, table.filter(condition).get_column("batch_size")))

    notes = []
    status = found.table.get_column("status")
    if running := int((status == "running").sum()):
        notes.append(f"{running} trials are still running: the curve is not final")
    if pruned:
        notes.append(pruned)
    if sizes := at(pl.col("steps") == 1):
        notes.append(
            f"the first update reaches the goal at batch size {sizes}: too easy to compare them, take a harder one"
        )
    if sizes := at(pl.col("steps").is_null()):
        others = ": the regimes are those of the others" if table.get_column("steps").count() else ""
        notes.append(f"no trial reached the goal at batch size {sizes}{others}")
    if sizes := at(pl.col("validated").eq(False) & pl.col("steps").is_not_null()):
        notes.append(f"not validated at batch size {sizes}: see reason")
    if sizes := at(pl.col("verdict").is_not_null()):
        notes.append(f"too few trials at batch size {sizes}: see verdict")
    if table.get_column("revisions").n_unique() > 1:
        notes.append("batch sizes whose space was widened had more trials: equal_trials compares on equal terms")
    if confirmed and (sizes := at(pl.col("steps").is_not_null() & pl.col("tuned").is_null())):
        notes.append(f"trained again, half missed the goal at batch size {sizes}: the regimes are those of the others")
    if not confirmed and table.get_column("tuned_seeds").sum():
        notes.append("not every point was trained again: steps are those of the winners, who are lucky")
    return tuple(notes)
