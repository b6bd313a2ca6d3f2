"""Figure data against numbers computed by hand."""

from __future__ import annotations

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from batchscope.analysis import Curve, Interval, Regimes
from batchscope.report import figures
from batchscope.report.figures import EFFECTIVE, LEARNING_RATE, MOMENTUM
from report.report_study import GOAL, curve, fit, interval, measurements, table, trials


@pytest.fixture
def space() -> pl.DataFrame:
    return figures.search_space(curve(), trials(), measurements().lazy())


def test_curve_beside_perfect_scaling() -> None:
    shown = figures.steps_to_result(curve())
    assert shown["examples"].to_list() == [200, 320, None]
    assert shown["perfect_scaling"].to_list() == [100, 25, 6.25]
    assert shown["speedup"].to_list() == [1, 2.5, None]
    assert shown["tuned"].to_list() == [None, None, None]
    assert shown["shown_low"].to_list() == [90.5, 31.0, None]


def test_tuned_steps_take_the_place_of_the_fewest() -> None:
    confirmed = table().with_columns(tuned=pl.Series([110.0, 50.0, None]), tuned_low=100.0, tuned_high=120.0)
    shown = figures.steps_to_result(curve(table=confirmed, confirmed=True))
    assert shown["steps"].to_list() == [100, 40, None]
    assert shown["shown"].to_list() == [110, 50, None]
    assert shown["perfect_scaling"].to_list() == [110, 27.5, 6.875]
    assert shown["speedup"].to_list() == [1, 2.2, None]
    assert figures.steps_to_result(curve(table=confirmed))["shown"].to_list() == [100, 40, None]


def test_columns_without_any_value_have_their_types() -> None:
    nothing = table().with_columns(steps=pl.lit(None), low=pl.lit(None), high=pl.lit(None)).drop("validated", "reason")
    shown = figures.steps_to_result(curve(table=nothing))
    assert shown.select("steps", "low", "validated", "reason", "speedup").dtypes == [
        pl.Int64,
        pl.Float64,
        pl.Boolean,
        pl.String,
        pl.Float64,
    ]


def test_law_stays_within_the_measured_batch_sizes() -> None:
    line = figures.law(curve(), nodes=3)
    assert line["batch_size"].to_list() == pytest.approx([2, 4, 8])
    assert line["steps"].to_list() == pytest.approx([60, 40, 30])  # 20 (1 + 4 / B)
    unknown = interval(None)
    assert figures.law(curve(regimes=Regimes(unknown, unknown, unknown))).is_empty()


@pytest.mark.parametrize(
    ("until", "critical", "useful", "places"),
    [
        (interval(3.0), interval(4.0), interval(6.0), ["measured"] * 3),
        (interval(None, 5.0), interval(None, None, 3.0), interval(None, None, 2.5), ["beyond", "below", "below"]),
        (interval(None), interval(4.0), interval(None), ["below", "measured", "beyond"]),
        (interval(None), interval(None), interval(6.0), ["below", "beyond", "measured"]),
        (interval(3.0), interval(None), interval(None), ["measured", "beyond", "beyond"]),
        (interval(None), interval(None), interval(None), ["beyond"] * 3),
        (interval(None), interval(None, None, 3.0), interval(None), ["below"] * 3),
    ],
)
def test_boundaries_say_on_which_side_they_are(
    until: Interval, critical: Interval, useful: Interval, places: list[str]
) -> None:
    found = curve(regimes=Regimes(until, critical, useful, law=fit()))
    assert figures.boundaries(found)["place"].to_list() == places


def test_boundaries_are_unknown_without_regimes() -> None:
    unknown = interval(None)
    assert figures.boundaries(curve(regimes=Regimes(unknown, unknown, unknown)))["place"].unique().to_list() == [
        "unknown"
    ]


def test_regimes_cover_the_measured_batch_sizes_once() -> None:
    assert figures.regimes(curve()).rows() == [
        ("perfect scaling", 2, 3),
        ("diminishing returns", 3, 6),
        ("beyond the maximum useful", 6, 8),
    ]


def test_regimes_in_the_wrong_order_leave_no_diminishing_returns() -> None:
    found = figures.regimes(curve(until=interval(6.0), useful=interval(3.0)))
    assert found.rows() == [("perfect scaling", 2, 6), ("beyond the maximum useful", 6, 8)]


def test_regimes_end_with_the_measured_batch_sizes() -> None:
    assert figures.regimes(curve(until=interval(None, 4.0))).rows() == [("perfect scaling", 2, 8)]
    found = figures.regimes(curve(until=interval(None, None, 3.0)))
    assert found.rows() == [("diminishing returns", 2, 6), ("beyond the maximum useful", 6, 8)]
    unknown = interval(None)
    assert figures.regimes(curve(regimes=Regimes(unknown, unknown, unknown))).is_empty()


def test_search_space_tells_what_became_of_every_trial(space: pl.DataFrame) -> None:
    assert space["trial"].to_list() == ["a", "b", "c", "d", "e", "f", "g"]
    assert space["outcome"].to_list() == [
        "reached",
        "reached",
        "infeasible",
        "feasible",
        "reached",
        "reached",
        "feasible",
    ]
    assert space["ratio"].to_list() == [1, 1.09, None, None, 1, 1.1, None]
    assert space.filter("best")["trial"].to_list() == ["a", "e"]
    assert space["best_metric"].to_list() == [0.19, 0.19, 0.9, 0.4, 0.19, 0.19, 0.4]
    assert space[EFFECTIVE].to_list() == pytest.approx([1, 0.4, 10, 0.02, 4, 0.2, 0.02])


def test_best_metric_follows_the_side_of_the_goal() -> None:
    found = curve(goal=GOAL.__class__("validation/error", ">", 0.5))
    assert figures.search_space(found, trials(), measurements())["best_metric"].to_list() == [0.9] * 7


def test_no_effective_rate_without_momentum() -> None:
    plain = trials().drop(MOMENTUM)
    assert EFFECTIVE not in figures.search_space(curve(), plain, measurements()).columns


def test_no_effective_rate_of_a_momentum_in_words() -> None:
    worded = trials().with_columns(pl.lit("high").alias(MOMENTUM))
    assert EFFECTIVE not in figures.search_space(curve(), worded, measurements()).columns


def test_best_points_with_the_two_scaling_rules(space: pl.DataFrame) -> None:
    points = figures.best_points(space)
    expected = pl.DataFrame(
        [
            (LEARNING_RATE, 2, 0.1, 0.1, 0.2, 0.1, 0.1),
            (LEARNING_RATE, 8, 0.4, 0.1, 0.4, 0.4, 0.2),
            (MOMENTUM, 2, 0.9, 0.5, 0.9, 0.9, 0.9),
            (MOMENTUM, 8, 0.9, 0.5, 0.9, 0.975, 0.95),
            (EFFECTIVE, 2, 1.0, 0.4, 1.0, 1.0, 1.0),
            (EFFECTIVE, 8, 4.0, 0.2, 4.0, 4.0, 2.0),
        ],
        schema=points.schema,
        orient="row",
    )
    assert_frame_equal(points, expected)


def test_linear_scaling_of_the_momentum_keeps_the_noise_scale(space: pl.DataFrame) -> None:
    points = figures.best_points(space).filter(pl.col("hyperparameter") == MOMENTUM)
    rate, size = 0.1, points["batch_size"].to_numpy()
    noise = rate / (size * (1 - points["linear"].to_numpy()))  # S18 equation 5, up to N
    assert noise[1] == pytest.approx(noise[0])


def test_other_hyperparameters_have_no_rule_and_words_no_row(space: pl.DataFrame) -> None:
    more = space.with_columns(
        pl.lit(0.01).alias("hyperparameter/weight_decay"), pl.lit("cosine").alias("hyperparameter/schedule")
    )
    points = figures.best_points(more)
    decay = points.filter(pl.col("hyperparameter") == "hyperparameter/weight_decay")
    assert decay["value"].to_list() == [0.01, 0.01]
    assert decay["linear"].to_list() == [None, None]
    assert "hyperparameter/schedule" not in points["hyperparameter"]


def test_contours_are_lines_of_equal_effective_rate(space: pl.DataFrame) -> None:
    lines = figures.contours(space, nodes=3)
    assert lines["level"].unique().sort().to_list() == [0.1, 1.0]  # that of 10 touches the space in one corner only
    assert (lines["learning_rate"] / (1 - lines["momentum"])).to_list() == pytest.approx(lines["level"].to_list())
    assert lines["momentum"].to_list()[:3] == pytest.approx([0.5, 1 - 20**-0.5, 0.9])


def test_no_contours_without_momentum(space: pl.DataFrame) -> None:
    assert figures.contours(space.drop(MOMENTUM)).is_empty()


def test_costs_add_up() -> None:
    costs = figures.costs(trials())
    assert costs["batch_size"].to_list() == [2, 8, 32]
    assert costs["trials"].to_list() == [4, 3, 1]
    assert costs["diverged"].to_list() == [1, 0, 0]
    assert costs["confirmations"].to_list() == [0, 1, 0]
    assert costs["steps"].to_list() == [307, 142, 60]
    assert costs["evaluation_share"].to_list() == pytest.approx([0.2] * 3)
    whole = figures.total(costs).row(0, named=True)
    assert whole["trials"] == trials().height
    assert whole["examples"] == trials()["examples"].sum()
    assert whole["evaluation_share"] == pytest.approx(0.2)


def test_share_of_evaluation_is_unknown_before_anything_ran() -> None:
    idle = trials().with_columns(train_seconds=pl.lit(0.0), evaluation_seconds=pl.lit(0.0))
    assert figures.costs(idle)["evaluation_share"].to_list() == [None, None, None]


def test_figures_leave_their_curve_alone() -> None:
    found: Curve = curve()
    figures.steps_to_result(found)
    assert_frame_equal(found.table, table())
