"""The document of summary.json: complete, plain, and honest about what it refuses."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import batchscope.analysis.outcomes
from analysis.hand_made import Trial
from analysis.hand_made import tables as by_hand
from analysis.simulated_studies import GOAL, SURFACES, tables
from batchscope.analysis import Answers, Curve, Given, Table, needed, other_analyses, steps_to_result, summary
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal

RUN = tables(SURFACES[4].pool(32, np.random.default_rng(0)))
NEVER = Goal.parse("validation/error < 0")


def answers(trials: Table, measurements: Table, goal: Goal) -> Answers:
    def curve(given: Given) -> Curve:
        return steps_to_result(given.trials, given.measurements, given.goal, found=given.outcomes)

    return Answers(Given(*needed(trials, measurements, [goal.metric]), goal), curve)


def test_it_has_the_fields_that_programs_read() -> None:
    document = summary([answers(*RUN, GOAL), answers(*RUN, NEVER)], workload="simulated")
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["schema"], document["workload"]) == (1, "simulated")
    reached, never = document["goals"]
    assert reached["goal"] == "validation/error < 0.5"
    first = reached["curve"][0]
    expected = {"batch_size", "steps", "tuned", "expected_fewest", "reached", "feasible", "trials", "hyperparameters"}
    assert expected | {"validated", "runners_up"} <= set(first)
    assert set(first["expected_fewest"]) == {"value", "low", "high"} and first["tuned"] is None
    assert first["hyperparameters"] == {}
    for name in ("perfect_scaling_until", "critical_batch_size", "maximum_useful_batch_size"):
        end = reached["regimes"][name]
        assert set(end) == {"value", "low", "high", "reason"} and (end["value"] is None) == bool(end["reason"])
    assert reached["regimes"]["law"]["measured"] == [1.0, 1024.0]
    assert {point["steps"] for point in never["curve"]} == {None}
    assert {point["hyperparameters"] for point in never["curve"]} == {None}


def test_it_says_what_the_curve_says() -> None:
    curve = steps_to_result(*RUN, GOAL)
    entry = summary([answers(*RUN, GOAL)], workload="", analyses=False)["goals"][0]
    assert [point["steps"] for point in entry["curve"]] == curve.table.get_column("steps").to_list()
    critical = curve.regimes.critical_batch_size.to_dict() | {"reason": None}
    assert entry["regimes"]["critical_batch_size"] == critical
    assert "analyses" not in entry and entry["price"] == curve.price


def test_tuned_steps_stand_beside_the_fewest() -> None:
    points = [Trial(f"a{size}", size, {10: 0.9, 20: 0.1}) for size in (4, 8, 16)]
    again = [
        Trial(f"a{size}-{seed}", size, {10: 0.9, 10 * step: 0.1}, replicate=seed)
        for size in (4, 8, 16)
        for seed, step in enumerate((2, 3, 4), 1)
    ]
    entry = summary([answers(*by_hand(*points, *again), GOAL)], workload="")["goals"][0]
    tuned = entry["curve"][0]["tuned"]
    assert entry["confirmed"] is True and tuned["seeds"] == 3
    assert tuned["value"] == pytest.approx((20 * 30 * 40) ** (1 / 3)) and tuned["low"] < 20 < 40 < tuned["high"]
    assert entry["curve"][0]["expected_fewest"]["value"] == 20


@pytest.mark.parametrize("most", [0, 10**7])
def test_what_is_held_in_memory_changes_no_answer(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Measurements of other trials, other metrics, and a lazy table: the same document as from the run alone."""
    monkeypatch.setattr(batchscope.analysis.outcomes, "HELD_ROWS", most)
    trials, measurements = RUN
    others = measurements.with_columns(pl.lit("another run's").alias("trial"), pl.lit(0.0).alias(GOAL.metric))
    more = pl.concat([others, measurements]).with_columns(pl.lit(1.0).alias("train/loss"))
    held_trials, held = needed(trials, more.lazy(), [GOAL.metric])
    assert isinstance(held, pl.LazyFrame if most == 0 else pl.DataFrame) and held_trials.equals(trials)
    assert held.lazy().collect().equals(measurements.select(held.lazy().collect_schema().names()))
    assert "train/loss" not in held.lazy().collect_schema().names()
    alone = steps_to_result(trials, measurements, GOAL)
    document = summary([answers(trials, more.lazy(), GOAL)], workload="")
    critical = alone.regimes.critical_batch_size.to_dict() | {"reason": None}
    assert document["goals"][0]["regimes"]["critical_batch_size"] == critical
    assert document["goals"][0]["analyses"] == other_analyses(answers(trials, measurements, GOAL))
    with pytest.raises(AnalysisError, match="It measured validation/error, train/loss"):
        summary([answers(trials, more, Goal.parse("train/error < 1"))], workload="")


def test_an_analysis_that_the_run_cannot_answer_is_refused_in_words() -> None:
    found = other_analyses(answers(*RUN, GOAL))
    assert "named learning_rate" in found["stability"]["refused"]
    assert "column epoch" in found["best_under_epoch_budgets"]["refused"]
    assert "policy: full" in found["speedup"]["refused"]
    assert len(found["expected_steps"]) > 11


def test_a_run_trained_to_the_end_answers_everything() -> None:
    run = by_hand(
        *(
            Trial(
                f"{size} {index}",
                size,
                {at: max(0.05, 1 - at * size**0.5 * (4 - index) / 400) for at in range(10, 201, 10)},
                index=index,
                point={"learning_rate": 0.1 * (index + 1)},
            )
            for size in (4, 8, 16)
            for index in range(3)
        )
    )
    found = other_analyses(answers(*run, GOAL))
    refused = {name: answer["refused"] for name, answer in found.items() if isinstance(answer, dict)}
    assert refused == {}
    assert json.dumps(found, allow_nan=False)
