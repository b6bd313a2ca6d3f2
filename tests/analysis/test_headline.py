"""The answer first: what it names, what it promises, and what it holds back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from advice.exact_recommendations import CRITICAL, steps
from advice.exact_recommendations import curve as exact
from batchscope.analysis import Interval, Regimes, headline
from batchscope.analysis.headline import CAVEATS, knee, setting_value, useful
from batchscope.analysis.points import points
from report.report_study import curve, fit, interval, table

UNKNOWN = interval(None)
NONE = Regimes(UNKNOWN, UNKNOWN, UNKNOWN)


def confirmed(**columns: object) -> pl.DataFrame:
    promised = {"tuned": [130.0, 55.0, None], "tuned_low": [110.4, 45.0, None], "tuned_high": [150.0, 66.0, None]}
    return table().with_columns(**{n: pl.Series(v) for n, v in (promised | {"tuned_seeds": [5, 5, None]}).items()})


def test_the_knee_is_the_critical_batch_size_of_the_law() -> None:
    found = exact()
    assert knee(points(found), NONE).batch_size == CRITICAL
    sizes = [2**power for power in range(11)]
    # Perfect scaling to the end, and none at all.
    for law, best in ((lambda size: 4096 / size, 1024), (lambda size: 50.0, 1)):
        steps_of = [max(1, round(law(size))) for size in sizes]
        whole = found.table.with_columns(steps=pl.Series(steps_of), low=None, high=None)
        assert knee(points(replace(found, table=whole, log_samples=np.empty((0, 0)))), NONE).batch_size == best


def test_nothing_beyond_the_maximum_useful_batch_size_is_recommended() -> None:
    found = exact()
    ends = replace(NONE, maximum_useful_batch_size=Interval(58.0, 40.0, 90.0))
    kept = [point.batch_size for point in useful(points(found), ends)]
    assert kept[-1] == 64 and knee(points(found), ends).batch_size == 64
    text = headline(replace(found, regimes=ends)).sentence
    assert text.startswith("Batch size 64, ") and text.endswith("; a larger batch is wasted.")


def test_a_fresh_training_is_promised_where_it_was_measured() -> None:
    found = headline(curve(table=confirmed(), confirmed=True))
    assert found.sentence == (
        "Batch size 8, learning rate 0.4, momentum 0.9: about 55 steps (45 to 66), 2.4 times fewer than 2; "
        "a larger batch is wasted."
    )
    assert "90% of fresh trainings" in found.trust and "5 new seeds" in found.trust
    assert found.trust.endswith("the luckiest of the search took 40.")


def test_one_step_is_one_step() -> None:
    one = confirmed().with_columns(tuned=pl.Series([1.0, 1.0, None]), tuned_low=pl.lit(1.0), tuned_high=pl.lit(1.4))
    assert ": about 1 step (1 to 1.4)" in headline(curve(table=one, confirmed=True)).sentence
    lucky = table().with_columns(steps=pl.Series([1, 1, None]))
    assert ": at least 1 step" in headline(curve(table=lucky)).sentence


def test_what_the_whole_curve_cost_is_told_in_trainings() -> None:
    priced = confirmed().with_columns(trained=pl.Series([13_000, 5_500, 900]))
    found = curve(table=priced, confirmed=True)
    assert found.price == pytest.approx(200.0)  # the batch size without tuned steps has no training to count in
    trust = headline(found).trust
    assert trust.endswith("The whole curve cost as much as 200 trainings of the settings that it found.")


def test_the_fewest_of_a_search_is_a_lower_bound() -> None:
    found = headline(curve())
    assert "Batch size 8, learning rate 0.4, momentum 0.9: at least 40 steps, 2.5 times fewer than 2" in found.sentence
    assert "Nothing was trained again" in found.trust and "confirm: {seeds: 5}" in found.trust
    text = headline(exact()).sentence
    assert f"at least {steps(CRITICAL):.0f} steps" in text and "beyond" in text


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (interval(None, 8.0), "; steps still fall at 8, the largest measured."),
        (interval(None, None, 2.0), "; a larger batch is wasted."),
        (interval(None), "2.5 times fewer than 2."),
        (interval(20.0, 9.0, 40.0), "; beyond 20 more is wasted."),
    ],
)
def test_where_more_is_wasted(end: Interval, expected: str) -> None:
    regimes = replace(NONE, maximum_useful_batch_size=end, law=fit())
    assert headline(curve(regimes=regimes)).sentence.endswith(expected)


def test_an_open_end_and_a_single_batch_size() -> None:
    open_end = confirmed().with_columns(tuned_high=pl.lit(None, pl.Float64))
    assert "about 55 steps (at least 45)" in headline(curve(table=open_end, confirmed=True)).sentence
    alone = headline(curve(table=table().head(1), regimes=NONE))
    assert alone.sentence == "Batch size 2, learning rate 0.1, momentum 0.9: at least 100 steps."


def test_a_goal_that_nobody_reached() -> None:
    nothing = table().with_columns(steps=pl.lit(None, pl.Int64), reached=pl.lit(0))
    near = "where the goal was not reached the best validation/error was 0.3, at batch size 2: train longer (budget)"
    found = headline(curve(table=nothing, regimes=NONE, notes=("no trial reached the goal at batch size 2", near)))
    assert found.sentence == (
        "No batch size reached validation/error < 0.2, in 6 feasible trials; the best validation/error was 0.3, at "
        "batch size 2: train longer (budget)."
    )
    assert found.trust == "" and found.caveats == ()


def test_two_reservations_stand_beside_the_answer_and_none_is_lost() -> None:
    notes = ("damaged: a segment is missing", "not validated at batch size 8: see reason", "a third")
    found = headline(curve(notes=notes))
    assert found.caveats == ("Not validated: the best learning_rate is at the edge.", "Damaged: a segment is missing.")
    assert len(found.caveats) == CAVEATS
    for expected in (
        "Not validated at batch size 8: better settings may lie outside the search space.",
        "A third.",
        "Batch size 8: the best learning_rate is at the edge.",
        "Batch sizes had different numbers of feasible trials, 1 to 3.",
    ):
        assert expected in found.further


def test_an_unchecked_space_is_named_and_a_clean_curve_has_no_reservations() -> None:
    unchecked = headline(curve(table=table().with_columns(validated=pl.lit(None, pl.Boolean))))
    assert "Whether the best points lie well inside the search space was not checked." in unchecked.caveats
    clean = table().head(2).with_columns(validated=pl.lit(True), reason=pl.lit(None, pl.String), feasible=pl.lit(3))
    found = headline(curve(table=clean, regimes=Regimes(interval(2.0), interval(2.0), interval(2.0), law=fit())))
    assert found.caveats == found.further == ()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.37123, "0.371"),
        (0.946412, "0.946"),
        (0.99942, "0.99942"),
        (0.999004, "0.999"),
        (0.9, "0.9"),
        (12.0, "12"),
        ("cosine", "cosine"),
    ],
)
def test_settings_keep_the_digits_that_matter(value: float | str, shown: str) -> None:
    assert setting_value(value) == shown
