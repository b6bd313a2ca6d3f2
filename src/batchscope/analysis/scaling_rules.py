"""Learning-rate rules across batch sizes against tuning anew at each (G18 section 4.2; Sh19 section 4.7, figure 8)."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from batchscope.amounts import number
from batchscope.analysis.outcomes import PREFIX, RATE, SPENT, Outcomes, Table, outcomes, require_rates
from batchscope.analysis.words import Words
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal

# Golmant et al. call them BLR, SRSR and LSR.
EXPONENTS = {"constant": 0.0, "square-root": 0.5, "linear": 1.0}
_MOMENTUM = PREFIX + "momentum"
_CHANCE = 0.1


@dataclass(frozen=True, eq=False)
class RuleCheck:
    """Where the rates that a rule predicts from one tuned batch size stop being good.

    ``rate`` names what is scaled: the learning rate, or with momentum the effective learning rate (Sh19 section 2.2).

    ``table``: rule, batch_size, predicted (rate), tuned (the winner's), low, high (the band of rates of the trials
    within ``within`` times the fewest steps), status:

    * "holds" inside the band;
    * "breaks" outside it, where so many trials between the band and the prediction were slow that chance would leave
      them so less than once in ten, were those rates as good as the band;
    * "open" where too few were tried there to say.

    ``breaks``: rule, holds_until, breaks_at: the last batch size before anything else than "holds", and the first that
    breaks.
    """

    goal: Goal
    rate: str
    base_batch_size: int
    within: float
    table: pl.DataFrame
    breaks: pl.DataFrame


def rule_check(
    trials: Table,
    measurements: Table,
    goal: Goal,
    *,
    base_batch_size: int | None = None,
    within: float = 1.5,
    found: Outcomes | None = None,
) -> RuleCheck:
    """Scale the winner's rate at ``base_batch_size`` (default: the smallest that reached the goal) by every rule.

    Constant leaves the rate, square-root scales it with that of the batch size, linear in proportion. With ``within``
    no larger than the margin of the race, a raced run holds all that is needed. ``found`` is what became of the
    trials, if that is known already.

    Raises:
        AnalysisError: If the trials have no learning rate above 0, or none reached the goal at the base.
    """
    require_rates(trials, "a learning-rate rule")
    columns = trials.lazy().collect_schema().names()
    found = found or outcomes(trials, measurements, goal)
    # A trial without a momentum, as an import may have it, has none.
    rate = pl.col(RATE) / (1 - pl.col(_MOMENTUM).fill_null(0.0)) if _MOMENTUM in columns else pl.col(RATE)
    groups = {
        batch_size: group.with_columns(rate.alias("rate")).sort("goal_step", "revision", "index", nulls_last=True)
        for batch_size, group in found.search()
        if group.get_column("goal_step").count()
    }
    base = min(groups, default=0) if base_batch_size is None else base_batch_size
    if base not in groups:
        reached = ", ".join(map(str, groups)) or "no batch size did"
        raise AnalysisError(f"a rule starts from a batch size that reached {goal}, got {base}; choose of: {reached}")
    start = float(groups[base].item(0, "rate"))
    table = pl.DataFrame(
        [
            {"rule": rule, "batch_size": batch_size} | _check(group, start * (batch_size / base) ** exponent, within)
            for rule, exponent in EXPONENTS.items()
            for batch_size, group in groups.items()
            if batch_size >= base
        ]
    )
    breaks = [_breaks(rule, table.filter(pl.col("rule") == rule)) for rule in EXPONENTS]
    kinds = {"rule": pl.String, "holds_until": pl.Int64, "breaks_at": pl.Int64}
    named = "learning_rate / (1 - momentum)" if _MOMENTUM in columns else "learning_rate"
    return RuleCheck(goal, named, base, within, table, pl.DataFrame(breaks, schema=kinds))


def _check(group: pl.DataFrame, predicted: float, within: float) -> dict[str, object]:
    limit = float(group.item(0, "goal_step")) * within
    is_good = (pl.col("goal_step") <= limit).fill_null(False)
    # A trial that was stopped before the limit is neither good nor slow.
    is_slow = ~is_good & (~pl.col("feasible") | (pl.col("watched") >= limit * (1 - SPENT)))
    good, slow = (group.filter(kind).get_column("rate") for kind in (is_good, is_slow))
    rates = good.to_numpy()
    low, high = float(rates.min()), float(rates.max())
    row = {"predicted": predicted, "tuned": float(group.item(0, "rate")), "low": low, "high": high}
    if low <= predicted <= high:
        return row | {"status": "holds"}
    gap = (predicted, low) if predicted < low else (high, predicted)
    between = int(slow.is_between(*gap, closed="none").sum())
    share = len(good) / (len(good) + int(slow.is_between(low, high).sum()) + 1)
    return row | {"status": "breaks" if (1 - share) ** between <= _CHANCE else "open"}


def _breaks(rule: str, table: pl.DataFrame) -> dict[str, object]:
    row: dict[str, object] = {"rule": rule, "holds_until": None, "breaks_at": None}
    holding = True
    for batch_size, status in table.select("batch_size", "status").iter_rows():
        holding = holding and status == "holds"
        if holding:
            row["holds_until"] = batch_size
        if status == "breaks":
            return row | {"breaks_at": batch_size}
    return row


def words(result: RuleCheck) -> Words:
    """What the tables say."""
    ends = [
        f"{row['rule']} "
        + ("holds nowhere" if row["holds_until"] is None else f"holds up to {number(row['holds_until'])}")
        + (" and does not break" if row["breaks_at"] is None else f" and breaks at {number(row['breaks_at'])}")
        for row in result.breaks.iter_rows(named=True)
    ]
    return Words(
        "Learning-rate rules",
        f"Each rule scales the rate tuned at batch size {number(result.base_batch_size)} for {result.goal}: "
        "constant keeps it (BLR), square-root scales it with the root of the batch size (SRSR), linear in proportion "
        "(LSR). Filled points hold, crosses break, open ones cannot be told from these trials.",
        "; ".join(ends),
    )
