"""The plain sentence of a curve, and its reservations."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from batchscope.analysis import Regimes
from batchscope.report import figures
from batchscope.report.answers import answer
from report.report_study import curve, fit, interval, table


def test_all_three_ends_with_their_intervals() -> None:
    assert answer(curve()).sentence == (
        "Doubling the batch size halves the steps up to about 3 (2 to 4); the critical batch size is about 4 "
        "(at least 3); from about 6 (at most 7) on, a larger batch saves at most 20% of the steps. "
        "The fewest steps, at least 40, are at batch size 8: 2.5 times fewer than at 2. Brackets hold 90% intervals."
    )


def test_ends_outside_the_measured_batch_sizes_are_said_to_be() -> None:
    sentence = answer(
        curve(until=interval(None, 8.0), critical=interval(None, 8.0), useful=interval(None, 8.0))
    ).sentence
    assert "halves the steps up to the largest, 8;" in sentence
    assert "the critical batch size is beyond 8;" in sentence
    sentence = answer(curve(critical=interval(None, None, 2.0), useful=interval(None, None, 2.0))).sentence
    assert "the critical batch size is below 2;" in sentence
    assert "no larger batch saves more than 20% of the steps" in sentence
    sentence = answer(curve(until=interval(None), critical=interval(None), useful=interval(None))).sentence
    assert "No doubling of the batch size halves the steps; the critical batch size is beyond 8" not in sentence
    assert "halves the steps up to the largest, 8;" in sentence


def test_a_goal_that_nobody_reached() -> None:
    unknown = interval(None)
    nothing = table().with_columns(steps=pl.lit(None, pl.Int64), reached=pl.lit(0))
    found = answer(curve(table=nothing, regimes=Regimes(unknown, unknown, unknown)))
    assert found.sentence == "No batch size has reached the goal: none of 6 feasible trials did."


def test_one_batch_size_has_steps_but_no_regimes() -> None:
    unknown = interval(None)
    note = "regimes need at least 3 batch sizes that reached the goal, got 1"
    alone = curve(table=table().head(1), regimes=Regimes(unknown, unknown, unknown, notes=(note,)))
    assert answer(alone).sentence == "The fewest steps, at least 100, are at batch size 2."
    assert "R" + note[1:] + "." in answer(alone).caveats


def test_reservations() -> None:
    found = curve(notes=("too few trials: 100 would do",))
    assert answer(found).caveats == (
        "Too few trials: 100 would do.",
        "Batch sizes had different numbers of feasible trials, 1 to 3.",
    )


def test_a_clean_curve_has_no_reservations() -> None:
    clean = table().head(2).with_columns(validated=pl.lit(True), reason=pl.lit(None, pl.String), feasible=pl.lit(3))
    useful = Regimes(interval(2.0), interval(2.0), interval(2.0), law=fit())
    assert answer(curve(table=clean, regimes=useful)).caveats == ()


def test_an_unchecked_space_is_named() -> None:
    unchecked = table().with_columns(validated=pl.lit(None, pl.Boolean))
    caveats = answer(curve(table=unchecked)).caveats
    assert "Whether the best points lie well inside the search space was not checked." in caveats


def test_a_boundary_without_an_interval_is_not_told() -> None:
    nothing = interval(None)
    known = curve().regimes
    vague = replace(known, critical_batch_size=nothing, undetermined=("critical_batch_size",))
    found = answer(curve(regimes=vague)).sentence
    assert "critical" not in found and "halves the steps up to about 3" in found
    ends = figures.boundaries(curve(regimes=vague))
    assert ends.filter(pl.col("boundary") == "critical_batch_size")["place"].to_list() == ["unknown"]
    every = replace(
        known, perfect_scaling_until=nothing, critical_batch_size=nothing, maximum_useful_batch_size=nothing
    )
    every = replace(every, undetermined=("perfect_scaling_until", "critical_batch_size", "maximum_useful_batch_size"))
    assert answer(curve(regimes=every)).sentence.startswith("The fewest steps")
    assert figures.regimes(curve(regimes=every)).is_empty()
