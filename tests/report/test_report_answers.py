"""The plain sentence of the regimes."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from batchscope.analysis import Regimes
from batchscope.report import figures
from batchscope.report.answers import regimes_in_words
from report.report_study import curve, interval, table


def test_all_three_ends_with_their_intervals() -> None:
    assert regimes_in_words(curve()) == (
        "Doubling the batch size halves the steps up to about 3 (2 to 4); the critical batch size is about 4 "
        "(at least 3); from about 6 (at most 7) on, a larger batch saves at most 20% of the steps. "
        # By the law B S(B) = 20 (B + 4): 120 examples at 2, 20% more at 3.2.
        "At about 3 (3 to 3) a goal takes 20% more examples than at 2, by the law with sharpness 1: another definition "
        "of the critical batch size. "
        "Brackets hold 90% intervals."
    )


def test_ends_outside_the_measured_batch_sizes_are_said_to_be() -> None:
    sentence = regimes_in_words(
        curve(until=interval(None, 8.0), critical=interval(None, 8.0), useful=interval(None, 8.0))
    )
    assert "halves the steps up to the largest, 8;" in sentence
    assert "the critical batch size is beyond 8;" in sentence
    sentence = regimes_in_words(curve(critical=interval(None, None, 2.0), useful=interval(None, None, 2.0)))
    assert "the critical batch size is below 2;" in sentence
    assert "no larger batch saves more than 20% of the steps" in sentence
    sentence = regimes_in_words(curve(until=interval(None), critical=interval(None), useful=interval(None)))
    assert "No doubling of the batch size halves the steps; the critical batch size is beyond 8" not in sentence
    assert "halves the steps up to the largest, 8;" in sentence


def test_nothing_is_said_of_what_is_not_known() -> None:
    unknown = interval(None)
    nothing = table().with_columns(steps=pl.lit(None, pl.Int64), reached=pl.lit(0))
    assert regimes_in_words(curve(table=nothing, regimes=Regimes(unknown, unknown, unknown))) == ""
    assert regimes_in_words(curve(table=table().head(1), regimes=Regimes(unknown, unknown, unknown))) == ""


def test_a_boundary_without_an_interval_is_not_told() -> None:
    nothing = interval(None)
    known = curve().regimes
    vague = replace(known, critical_batch_size=nothing, undetermined=("critical_batch_size",))
    found = regimes_in_words(curve(regimes=vague))
    assert "critical" not in found and "halves the steps up to about 3" in found
    ends = figures.boundaries(curve(regimes=vague))
    assert ends.filter(pl.col("boundary") == "critical_batch_size")["place"].to_list() == ["unknown"]
    every = replace(
        known, perfect_scaling_until=nothing, critical_batch_size=nothing, maximum_useful_batch_size=nothing
    )
    every = replace(every, undetermined=("perfect_scaling_until", "critical_batch_size", "maximum_useful_batch_size"))
    assert regimes_in_words(curve(regimes=every)) == "" and figures.regimes(curve(regimes=every)).is_empty()
