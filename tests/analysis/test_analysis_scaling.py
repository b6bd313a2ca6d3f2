"""Golmant's speedup and contours, and curves on one scale."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis.hand_made import Trial, tables
from analysis.simulated_studies import GOAL as SIMULATED
from analysis.simulated_studies import SURFACES
from analysis.simulated_studies import tables as simulated
from batchscope.analysis import compare, contour, speedup, steps_to_result
from batchscope.errors import AnalysisError

LOSS = "train/loss"


def run(*, early: bool = False) -> tuple[Trial, ...]:
    """The loss falls as 100 / (B step) down to B / 1000: large batches are faster, small ones get lower."""
    trials = []
    for batch_size in (10, 20, 40, 80):
        evaluations = range(1, 2001 // batch_size + 1)
        values = {at: max(100 / (batch_size * at), batch_size / 1000) for at in evaluations}
        trials.append(Trial(str(batch_size), batch_size, values))
    if early:
        trials.append(Trial("stopped", 80, {1: 1.0}, "stopped", index=1))
    return tuple(trials)


def test_the_threshold_is_the_best_quartile_of_the_largest_batch_size() -> None:
    found = speedup(*tables(*run(), metric=LOSS))
    losses = np.maximum(100 / (80 * np.arange(1, 26)), 0.08)
    assert found.goal.threshold == pytest.approx(np.sort(losses)[6])
    assert (found.goal.metric, found.goal.side) == (LOSS, "<")
    assert "favours large batches" in found.caveat


def test_the_speedup_is_the_ratio_of_steps() -> None:
    table = speedup(*tables(*run(), metric=LOSS), quantile=0.8).table
    assert table.get_column("speedup").to_list() == [pytest.approx(value, rel=0.2) for value in (1, 2, 4, 8)]
    assert table.get_column("ideal").to_list() == [1, 2, 4, 8]
    assert table.get_column("speedup")[0] == 1
    assert table.select((pl.col("low") <= pl.col("speedup")) & (pl.col("speedup") <= pl.col("high"))).to_series().all()


def test_evaluations_far_apart_stand_for_the_steps_between_them() -> None:
    sparse = Trial("sparse", 8, {1: 0.9, 2: 0.8, 100: 0.4})
    found = speedup(*tables(sparse, Trial("small", 4, {1: 0.9, 200: 0.3}), metric=LOSS))
    # Its last evaluation stands for 98 of its 100 steps, so the quartile is its last value, which counts as reached.
    assert found.goal.threshold == pytest.approx(0.4)
    assert found.table.get_column("steps").to_list() == [200, 100]


def test_a_raced_run_has_neither_speedup_nor_contour() -> None:
    raced = tables(*run(early=True), metric=LOSS)
    with pytest.raises(AnalysisError, match="the threshold of the speedup needs every trial"):
        speedup(*raced)
    with pytest.raises(AnalysisError, match="a contour plot needs every trial"):
        contour(*raced)


def test_the_contour_table_is_the_best_of_the_trials_at_each_evaluation() -> None:
    two = tables(Trial("a", 8, {1: 0.9, 2: 0.3, 3: 0.7}), Trial("b", 8, {1: 0.8, 2: 0.5, 3: 0.6}, index=1), metric=LOSS)
    table = contour(*two).table
    assert table.get_column("value").to_list() == [0.8, 0.3, 0.6]
    assert table.get_column("best").to_list() == [0.8, 0.3, 0.3]
    assert contour(*two, better="higher").table.get_column("best").to_list() == [0.9, 0.9, 0.9]


def test_curves_are_divided_by_their_steps_at_one_batch_size() -> None:
    pool = SURFACES[3].pool(32, np.random.default_rng(0))
    whole = steps_to_result(*simulated(pool[:16]), SIMULATED)
    twice = steps_to_result(*simulated(2 * pool[:16]), SIMULATED)
    found = compare({"one": whole, "two": twice}, reference=4)
    assert found.reference == 4
    at = found.table.filter(batch_size=4)
    assert at.select("relative", "low", "high").rows() == [(1.0, 1.0, 1.0)] * 2
    one, two = (found.table.filter(run=run).get_column("relative").to_numpy() for run in ("one", "two"))
    np.testing.assert_allclose(one, two, rtol=0.15)
    assert (found.table.get_column("low") <= found.table.get_column("relative")).all()
    with pytest.raises(AnalysisError, match="got 3; they share 1, 2, 4"):
        compare({"one": whole}, reference=3)
    with pytest.raises(AnalysisError, match="they share none"):
        compare({})


def test_where_no_training_examples_were_measured_it_is_said_how_they_are() -> None:
    trials, evaluations = pl.DataFrame({"trial": ["a"]}), pl.DataFrame({"trial": ["a"], "validation/loss": [1.0]})
    with pytest.raises(AnalysisError, match=r"evaluation: \{train_examples: 1000\} in a study .* validation/loss$"):
        speedup(trials, evaluations)
