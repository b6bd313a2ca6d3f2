"""Reliable bands of base rates, and shares of the space."""

from __future__ import annotations

import math

import pytest

from analysis.hand_made import Trial, tables
from batchscope.analysis import sensitivity, stability_map
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal

ERROR = "validation/error"
GOAL = Goal.parse("validation/error < 0.5")


def final(name: str, batch_size: int, exponent: int, value: float, status: str = "complete") -> Trial:
    """A trial at base rate 2**exponent whose last five evaluations have the median ``value``, with one that is far
    off.
    """
    last = {60: value, 70: value - 0.01, 80: value + 0.01, 90: value, 100: 5.0}
    return Trial(
        name, batch_size, {10: 0.9, 50: 0.0} | last, status, point={"learning_rate": 2.0**exponent * batch_size}
    )


GRID = tables(
    final("a", 8, -6, 0.5),
    final("b", 8, -5, 0.2),
    final("c", 8, -4, 0.1),
    final("d", 8, -3, 0.45),
    final("e", 8, -2, 0.8),
    final("f", 64, -6, 0.3),
    final("g", 64, -5, 0.2, "diverged"),
    final("h", 64, -4, 0.3),
    final("i", 256, -6, 0.7),
    final("j", 256, -5, 0.9),
)


def test_the_map_holds_the_median_of_the_last_five_evaluations_at_base_rates() -> None:
    found = stability_map(*GRID, ERROR)
    values = dict(found.table.select("trial", "value").iter_rows())
    assert values["b"] == pytest.approx(0.2)
    assert values["g"] is None
    assert found.threshold == pytest.approx((0.9 + 0.1) / 2)
    assert found.table.filter(trial="c").item(0, "base_rate") == 2.0**-4


def test_the_band_is_the_run_of_reliable_rates_around_the_best() -> None:
    bands = {row["batch_size"]: row for row in stability_map(*GRID, ERROR).bands.iter_rows(named=True)}
    small = bands[8]
    assert (small["low"], small["high"], small["octaves"], small["best_rate"]) == (2**-6, 2**-3, 3.0, 2**-4)
    assert (small["open_low"], small["open_high"], small["rates"]) == (True, False, 5)
    # A rate in between that diverged ends the band.
    assert (bands[64]["low"], bands[64]["high"], bands[64]["octaves"]) == (2**-6, 2**-6, 0.0)
    assert (bands[256]["low"], bands[256]["best_rate"]) == (None, None)


def test_a_threshold_of_ones_own() -> None:
    bands = stability_map(*GRID, ERROR, threshold=0.25).bands
    assert bands.get_column("octaves").to_list() == [1.0, None, None]


def test_accuracy_rises() -> None:
    found = stability_map(*GRID, ERROR, better="higher", threshold=0.4).bands
    assert found.filter(batch_size=8).item(0, "best_rate") == 2.0**-2


def test_a_raced_run_has_no_map() -> None:
    raced = tables(final("a", 8, -6, 0.5), final("b", 8, -5, 0.5, "stopped"))
    with pytest.raises(AnalysisError, match="a map of the final metric needs every trial trained to the end"):
        stability_map(*raced, ERROR)
    with pytest.raises(AnalysisError, match="named learning_rate"):
        stability_map(*tables(Trial("a", 8, {1: 0.5})), ERROR)
    with pytest.raises(AnalysisError, match="every trial diverged"):
        stability_map(*tables(final("a", 8, -6, math.nan, "diverged")), ERROR)


def reaching(name: str, step: int | None, end: int, status: str = "complete") -> Trial:
    return Trial(name, 8, {at: 0.1 if step and at >= step else 0.9 for at in range(5, end + 1, 5)}, status)


def test_the_share_of_the_space_counts_every_trial() -> None:
    steps = [100, 105, 110, 115, 200, 300, None]
    run = [reaching(str(index), step, 400) for index, step in enumerate(steps)]
    run.append(reaching("diverged", None, 50, "diverged"))
    table = sensitivity(*tables(*run), GOAL).table
    assert table.get_column("share").to_list() == [3 / 8, 5 / 8]
    assert (table.get_column("low") < table.get_column("share")).all()
    assert (table.get_column("high") > table.get_column("share")).all()


def test_a_race_knows_the_share_within_its_margin_only() -> None:
    run = tables(reaching("a", 100, 150), reaching("b", 120, 150), reaching("c", None, 150, "stopped"))
    table = sensitivity(*run, GOAL, [1.1, 1.5, 2.0]).table
    assert table.get_column("share").to_list() == [pytest.approx(1 / 3), pytest.approx(2 / 3), None]
    assert table.get_column("unknown").to_list() == [0, 0, 1]
    with pytest.raises(AnalysisError, match="within 2, 3 times the best.*policy: full"):
        sensitivity(*run, GOAL, [2.0, 3.0])
    with pytest.raises(AnalysisError, match="no trial reached"):
        sensitivity(*run, Goal.parse("validation/error < 0.01"))
