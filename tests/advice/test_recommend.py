"""Recommendations whose answers have a closed form: S(B) = S0 + E0/B steps of a + bB seconds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from advice.exact_recommendations import (
    CRITICAL,
    EACH,
    EXAMPLES,
    FEWEST,
    FIXED,
    SIZES,
    curve,
    probe,
    seconds,
    steps,
)
from analysis.simulated_studies import BATCH_SIZES, GOAL, SURFACES, expected_minimum, tables
from batchscope.advice.across import across
from batchscope.advice.document import document
from batchscope.advice.recommendation import Recommendation, recommend
from batchscope.advice.step_time import Link
from batchscope.advice.strong_scaling import sentence
from batchscope.analysis import Interval, steps_to_result
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal


def test_on_one_device_the_best_batch_size_is_that_of_the_closed_form() -> None:
    # d/dB (S0 + E0/B)(a + bB) = 0 at B^2 = E0 a / (S0 b)
    best = math.sqrt(EXAMPLES * FIXED / (FEWEST * EACH))
    found = recommend(curve(), probe())
    assert best == 64 and found.fastest.batch_size == 64
    assert found.fastest.time.value == pytest.approx((math.sqrt(FEWEST * FIXED) + math.sqrt(EXAMPLES * EACH)) ** 2)
    # One device costs what it takes: time and cost have one and the same best option.
    assert [option.batch_size for option in found] == [64]
    assert found.cheapest.batch_size == found.balanced.batch_size == 64
    assert found.cheapest.cost.value == pytest.approx(steps(64) * seconds(64) / 3600)
    assert found.cost_unit == "device-hours"


@pytest.mark.parametrize("exchange", [0.0, 3 * FIXED])
def test_on_n_devices_the_best_batch_grows_with_the_root_of_n_and_of_what_a_step_costs(exchange: float) -> None:
    for devices in (4, 16):
        # A latency such that 2 (N - 1) of it are the wanted seconds.
        latency = exchange / (2 * (devices - 1)) * 1e6
        found = recommend(curve(), probe(), devices=[devices], latency=latency)
        best = math.sqrt(devices * EXAMPLES * (FIXED + exchange) / (FEWEST * EACH))
        assert best in SIZES and found.fastest.batch_size == best
        least = math.sqrt(FEWEST * (FIXED + exchange)) + math.sqrt(EXAMPLES * EACH / devices)
        assert found.fastest.time.value == pytest.approx(least**2)
        assert found.fastest.communication_seconds == pytest.approx(exchange)
        assert found.fastest.device_batch_size == best / devices


def test_every_number_of_an_option() -> None:
    found = recommend(
        curve(), probe(), devices=[1, 3], bandwidth=2.0, latency=10.0, price=6.0, power=400.0, batch_sizes=[256]
    )
    one, three = found.options.sort("devices").iter_rows(named=True)
    assert (three["device_batch_size"], three["micro_batch_size"], three["accumulation_steps"]) == (86, 43, 2)
    exchange = Link(2.0, 10.0).all_reduce(4_000_000, 3)
    assert three["communication_seconds"] == pytest.approx(exchange) and one["communication_seconds"] == 0
    assert three["step_seconds"] == pytest.approx(seconds(86) + exchange)
    assert three["time"] == pytest.approx(steps(256) * (seconds(86) + exchange))
    assert three["cost"] == pytest.approx(3 * 6.0 * three["time"] / 3600)
    assert three["energy"] == pytest.approx(3 * 0.4 * three["time"] / 3600)
    assert three["hyperparameter/learning_rate"] == pytest.approx(2.56)


def test_idealised_hardware_takes_steps_and_examples() -> None:
    found = recommend(curve())
    assert found.idealised and (found.time_unit, found.cost_unit) == ("steps", "examples")
    useful = curve().regimes.maximum_useful_batch_size.value or 0
    assert 256 < useful <= 512 == found.fastest.batch_size and found.fastest.time.value == steps(512)
    # S(B)^2 B is least at the critical batch size.
    assert found.recommended.batch_size == CRITICAL and "neither is wasted" in found.recommended.why
    assert found.cheapest.batch_size == 1 and found.cheapest.cost.value == steps(1)
    # B S(B) = S0 B + E0 is at most a tenth above its value at 1 up to this batch size.
    limit = 0.1 * EXAMPLES / FEWEST + 1.1
    assert found.balanced.batch_size == max(size for size in SIZES if size <= limit)
    assert [option.batch_size for option in found.pareto_front] == list(SIZES[::-1])
    assert found.scaling.is_empty() and found.useful_devices is None
    assert any("idealised" in line for line in found.assumptions)


def random_recommendation(seed: int) -> Recommendation:
    generator = np.random.default_rng(seed)
    devices = sorted({1, *generator.integers(1, 40, 5).tolist()})
    return recommend(
        curve(spread=0.2),
        probe(spread=0.1),
        devices=devices,
        bandwidth=float(generator.uniform(0.5, 50)),
        latency=float(generator.uniform(0, 100)),
        price=float(generator.uniform(0.1, 9)),
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_pareto_front_and_the_choices_are_those_of_an_exhaustive_comparison(seed: int) -> None:
    found = random_recommendation(seed)
    rows = found.options.select("batch_size", "devices", "time", "cost").rows()
    undominated = {
        (size, count)
        for size, count, time, cost in rows
        if not any(t <= time and c <= cost and (t, c) != (time, cost) for _, _, t, c in rows)
    }
    assert {(option.batch_size, option.devices) for option in found} == undominated
    assert {row[:2] for row in found.options.filter("pareto_front").rows()} == undominated
    times = [option.time.value or 0 for option in found]
    assert times == sorted(times) and len(found) == len(times)
    assert found.fastest.time.value == min(row[2] for row in rows)
    least = min(row[3] for row in rows)
    assert found.cheapest.cost.value == least
    assert found.balanced.time.value == min(row[2] for row in rows if row[3] <= 1.1 * least)
    for option in (found.fastest, found.cheapest, found.balanced, *found.pareto_front):
        assert option.why and option.time.low < option.time.value < option.time.high  # type: ignore[operator]


def test_the_scaling_table_is_the_best_of_each_number_and_says_where_it_ends() -> None:
    found = recommend(curve(), probe(), devices=[2**power for power in range(11)])
    for row in found.scaling.iter_rows(named=True):
        of_n = found.options.filter(pl.col("devices") == row["devices"])
        assert row["time"] == of_n["time"].min()
        assert row["efficiency"] == pytest.approx(row["speedup"] / row["devices"])
    # Free communication: the time falls towards S0 a with devices; the batch of 1024 on them stands in the way first.
    times = found.scaling["time"].to_list()
    assert times == sorted(times, reverse=True)
    useful = next(n for n, time in zip(found.scaling["devices"], times, strict=True) if time <= 1.1 * times[-1])
    assert found.useful_devices == useful
    assert f"Beyond {useful} devices" in sentence(found.scaling)
    few = recommend(curve(), probe(), devices=[1, 2])
    assert few.useful_devices is None and "was not seen" in sentence(few.scaling)
    slow = recommend(curve(), probe(), devices=[1, 2, 4], latency=1e6)
    assert (
        slow.useful_devices == 1 and sentence(slow.scaling) == "More devices than 1 save at most a tenth of the time."
    )


def test_a_deadline_takes_the_cheapest_that_meets_it_and_a_budget_the_fastest_within_it() -> None:
    hardware = {"devices": [1, 2, 4, 8], "price": 2.0, "bandwidth": 1.0}
    found = recommend(curve(spread=0.1), probe(), deadline=3, budget=4e-3, **hardware)  # type: ignore[arg-type]
    assert found.deadline is not None and found.budget is not None
    in_time, affordable = found.options.filter(pl.col("time") <= 3), found.options.filter(pl.col("cost") <= 4e-3)
    assert 0 < in_time.height < found.options.height and 0 < affordable.height < found.options.height
    assert found.deadline.met and found.deadline.option.cost.value == in_time["cost"].min()
    assert found.budget.met and found.budget.option.time.value == affordable["time"].min()
    assert 0.4 < found.deadline.chance <= 1
    never = recommend(curve(), probe(), deadline="0.001s", budget=1e-9, **hardware)  # type: ignore[arg-type]
    assert never.deadline is not None and never.budget is not None
    assert not never.deadline.met and not never.budget.met and never.deadline.chance == 0
    assert never.deadline.option.time == never.fastest.time and "none takes at most 1 ms" in never.deadline.sentence
    assert never.budget.option.cost == never.cheapest.cost and "the nearest costs" in never.budget.sentence


def test_beyond_the_measured_batch_sizes_only_when_asked_and_then_marked() -> None:
    with pytest.raises(AnalysisError, match=r"not at 2048.*--extrapolate"):
        recommend(curve(), batch_sizes=[64, 2048])
    found = recommend(curve(spread=0.05), extrapolate=True)
    beyond = found.options.filter("extrapolated")
    assert beyond["batch_size"].to_list() == [2048, 4096]
    assert beyond["steps"].to_list() == pytest.approx([steps(2048), steps(4096)], rel=0.03)
    assert (beyond["steps_low"] < beyond["steps"]).all() and (beyond["steps"] < beyond["steps_high"]).all()
    most = found.pareto_front[0]
    assert most.extrapolated and not most.hyperparameters and not found.fastest.extrapolated
    assert "extrapolated" in most.remarks[0] and any("extrapolated" in note for note in found.notes)
    between = recommend(curve([1, 4, 16, 64, 256]), batch_sizes=[32], extrapolate=True)
    assert between.fastest.extrapolated and between.fastest.steps.value == pytest.approx(steps(32), rel=0.03)
    with pytest.raises(AnalysisError, match="at least 3 batch sizes"):
        recommend(curve([1, 4]), extrapolate=True)


def test_what_the_probe_did_not_measure_is_left_out_with_its_reason() -> None:
    found = recommend(curve(), probe([4, 16, 64]), devices=[1, 4])
    assert set(found.options.select("batch_size", "devices").rows()) == {
        *((size, 1) for size in (4, 8, 16, 32, 64)),
        *((size, 4) for size in (16, 32, 64, 128, 256)),
    }
    reasons = dict(zip(found.left_out.select("batch_size", "devices").rows(), found.left_out["reason"], strict=True))
    assert reasons[2, 4] == "4 devices cannot share 2 examples"
    assert reasons[1024, 1] == "1,024 examples on a device are outside what the probe measured, 4 to 64"
    assert any("left out" in note for note in found.notes)
    more = recommend(curve(), probe([4, 16, 64]), devices=[1, 4], extrapolate=True)
    marked = more.options.filter(pl.col("extrapolated"))
    assert (1024, 1) in marked.select("batch_size", "devices").rows() and "1,024" in marked["remarks"].str.join("")[0]
    with pytest.raises(AnalysisError, match=r"no time for any.*measured 2048, 4096 examples on a device"):
        recommend(curve(), probe([2048, 4096]))


def test_points_that_are_not_validated_or_had_too_few_trials_are_marked() -> None:
    sizes = [16, 64, 256]
    reason = pl.Series(["near an edge", None, None])
    found = recommend(
        curve(sizes, validated=[False, True, True], reason=reason, verdict=[None, None, "too few trials: 3 would do"]),
        probe(),
    )
    remarks = dict(found.options.select("batch_size", "remarks").rows())
    assert remarks[16].startswith("not validated: near an edge; at least 1,700 steps")
    assert remarks[64].startswith("at least 500 steps") and "too few trials: 3 would do" in remarks[256]


def test_confirmed_steps_count_where_every_point_was_confirmed() -> None:
    sizes = [16, 64, 256]
    again: dict[str, Any] = {
        "tuned_seeds": [5, 5, 5],
        "tuned": [1.5 * steps(size) for size in sizes],
        "tuned_low": [1.4 * steps(size) for size in sizes],
        "tuned_high": [1.6 * steps(size) for size in sizes],
        "runners_up": [1.2 * steps(size) for size in sizes],
    }
    partly = curve(sizes, **again)
    confirmed = replace(partly, confirmed=True, log_samples=np.log(1.5) + partly.log_samples)
    found = recommend(confirmed, probe())
    assert found.fastest.steps == Interval(1.5 * steps(64), 1.4 * steps(64), 1.6 * steps(64))
    assert found.fastest.time.low == pytest.approx(1.4 * steps(64) * seconds(64))
    assert "trained again with new seeds" in found.assumptions[0] and not found.fastest.remarks
    assert not found.fastest.lower_bound and not found.options["lower_bound"].any()
    lucky = recommend(partly, probe())
    assert lucky.fastest.steps.value == steps(64) and "trained again it took 750" in lucky.fastest.remarks[0]
    assert lucky.fastest.lower_bound and "lower bound" in lucky.assumptions[0]


def test_what_was_not_trained_again_is_at_least_so_many_steps_and_its_runners_up_tell_of_the_luck() -> None:
    found = recommend(curve([16, 64, 256], runners_up=[None, 1.25 * steps(64), 40.0]))
    remarks = dict(found.options.select("batch_size", "remarks").rows())
    assert "at least 500 steps" in remarks[64] and "a fresh training would take 625" in remarks[64]
    assert "no other trial tells" in remarks[16]
    assert document(found, workload="w")["fastest"]["lower_bound"] is True


def test_time_and_cost_are_those_of_one_fresh_training() -> None:
    """The samples of a fresh training, not of a median: a deadline at the median is met half of the time."""
    partly = curve([64])
    noise = 0.3 * np.random.default_rng(0).standard_normal((4000, 1))
    columns = {"tuned": 500.0, "tuned_low": 305.0, "tuned_high": 819.0, "tuned_seeds": 5}
    table = partly.table.with_columns(**{name: pl.lit(value) for name, value in columns.items()})
    confirmed = replace(partly, table=table, confirmed=True, log_samples=0 * noise, log_fresh=np.log(500) + noise)
    found = recommend(confirmed, probe(), deadline=500 * seconds(64) * 1.2)
    assert found.deadline is not None and found.deadline.chance == pytest.approx(norm.cdf(np.log(1.2) / 0.3), abs=0.03)
    assert found.fastest.time.low == pytest.approx(305 * seconds(64), rel=0.05)
    assert found.fastest.cost.high == pytest.approx(819 * seconds(64) / 3600, rel=0.05)


def test_batch_sizes_that_missed_the_goal_are_no_options() -> None:
    found = recommend(curve(missed=[1, 1024]))
    assert found.options["batch_size"].to_list() == list(SIZES[1:-1])
    with pytest.raises(AnalysisError, match="not at 1024"):
        recommend(curve(missed=[1024]), batch_sizes=[1024])
    none = replace(curve(), table=curve().table.with_columns(steps=None))
    with pytest.raises(AnalysisError, match="no batch size reached validation/error < 0.2"):
        recommend(none)


def test_the_chance_of_being_the_fastest_is_that_of_the_samples() -> None:
    # Of two batch sizes whose times are log-normal with one median each, the faster wins with this probability.
    spread = 0.3
    found = recommend(curve([64, 128], spread=spread, samples=4000), probe())
    away = math.log(steps(128) * seconds(128) / (steps(64) * seconds(64))) / (spread * math.sqrt(2))
    chance = 0.5 * math.erfc(-away / math.sqrt(2))
    stated = int(found.fastest.why.split(" in ")[-1].split("%")[0]) / 100
    assert stated == pytest.approx(chance, abs=0.03)


def test_intervals_join_steps_and_seconds() -> None:
    found = recommend(curve(spread=0.3, samples=4000), probe(spread=0.4))
    time = found.fastest.time
    assert math.log(time.high / time.low) / 2 / 1.645 == pytest.approx(0.5, rel=0.05)  # type: ignore[operator]
    steps_only = found.fastest.steps
    assert time.high / time.low > steps_only.high / steps_only.low  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"devices": [0]}, "--devices 1,2,4,8"),
        ({"devices": []}, "--devices 1,2,4,8"),
        ({"price": -1.0}, "a price is at least 0, got -1"),
        ({"power": -1.0}, "a power is at least 0"),
        ({"budget": -1.0, "price": 1.0}, "a budget is above 0"),
        ({"budget": 5.0}, "--price PER_DEVICE_HOUR"),
        ({"deadline": "soon"}, "a deadline is a length of time, got 'soon'"),
        ({"bandwidth": 0.0}, "a bandwidth is above 0"),
        ({"batch_sizes": [0]}, "a batch size is at least 1"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], expected: str) -> None:
    with pytest.raises(AnalysisError, match=expected):
        recommend(curve(), probe(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"devices": [2]}, {"price": 1.0}, {"power": 1.0}, {"deadline": "2h"}, {"bandwidth": 1.0}, {"latency": 1.0}],
)
def test_without_a_probe_time_and_money_are_refused(options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(AnalysisError, match=f"--{name} needs the time of a step.*--probe probe.json"):
        recommend(curve(), **options)  # type: ignore[arg-type]


def test_assumptions_say_what_was_taken() -> None:
    found = recommend(curve(), probe(world_size=4, device="cpu", threads=3), devices=[1, 2], bandwidth=25.0)
    text = " ".join(found.assumptions)
    for expected in ("3 threads", "4 ranks", "25 GB/s", "2(N-1)/N x bytes / bandwidth", "3.81 MiB", "overlaps"):
        assert expected in text
    assert "it takes no time" in " ".join(recommend(curve(), probe(), devices=[1, 2]).assumptions)
    assert "ring" not in " ".join(recommend(curve(), probe()).assumptions)


def test_the_document_is_json_and_says_the_same() -> None:
    found = random_recommendation(0)
    text = json.dumps(document(found, workload="w", device="d"), allow_nan=False)
    read = json.loads(text)
    assert read["schema"] == 1 and read["units"] == {"time": "seconds", "cost": "money", "energy": None}
    assert [option["batch_size"] for option in read["pareto_front"]] == [option.batch_size for option in found]
    assert len(read["options"]) == found.options.height
    assert read["fastest"]["time"] == found.fastest.time.to_dict()
    assert read["fastest"]["hyperparameters"] == dict(found.fastest.hyperparameters)


def test_a_curve_without_draws_has_its_intervals() -> None:
    whole = curve(spread=0.2)
    bare = type(whole)(whole.goal, whole.table, whole.regimes)
    time = recommend(bare, probe()).fastest.time
    assert math.log(time.high / time.low) == pytest.approx(2 * 1.645 * 0.2, rel=0.1)  # type: ignore[operator]


def time_coverage(studies: int, drift: float = 0.08) -> float:
    """How often 90% intervals of the time to a goal hold the truth, on simulated studies with a probe each.

    On the day of the probe every size ran faster or slower than it does otherwise, by a factor with this ``drift``.
    """
    surface = SURFACES[4]
    pool = surface.pool(surface.trials * max(studies, 200), np.random.default_rng(5))
    truth = np.array([expected_minimum(column, surface.trials) for column in pool.T])
    truth = truth * np.array([seconds(size) for size in BATCH_SIZES])
    generator = np.random.default_rng(6)
    held = []
    for study in range(studies):
        found = steps_to_result(*tables(pool[study * surface.trials : (study + 1) * surface.trials]), GOAL)
        measured = probe(spread=drift)
        rows = []
        for row in measured.batches:
            assert row.step is not None
            off = float(np.exp(drift * generator.standard_normal()))
            rows.append(row.model_copy(update={"step": row.step.model_validate({k: v * off for k, v in row.step})}))
        times = recommend(found, measured.model_copy(update={"batches": tuple(rows)})).options.sort("batch_size")
        held.append((times["time_low"].to_numpy() <= truth) & (truth <= times["time_high"].to_numpy()))
    return float(np.mean(held))


def test_intervals_of_the_time_hold_the_truth_nine_times_in_ten() -> None:
    assert 0.85 <= time_coverage(8) <= 0.985


@pytest.mark.slow
def test_intervals_of_the_time_hold_the_truth_nine_times_in_ten_over_many_studies() -> None:
    assert 0.86 <= time_coverage(100) <= 0.97


def test_the_exact_curve_has_the_law_that_it_was_made_from() -> None:
    fitted = curve().regimes.law
    assert fitted is not None and fitted.law.critical_batch_size == pytest.approx(CRITICAL, rel=0.05)


def test_a_run_that_was_not_trained_again_is_said_to_be_favoured() -> None:
    searched, trained = recommend(curve()), recommend(curve())
    trained = replace(trained, recommended=replace(trained.recommended, lower_bound=False))
    assert "which favours it: searched." in across({"searched": searched, "trained": trained}).trust
    assert "favours" not in across({"searched": searched, "other": searched}).trust
    with pytest.raises(AnalysisError, match="different goals"):
        across({"one": searched, "two": replace(searched, goal=Goal("validation/error", "<", 0.1))})
