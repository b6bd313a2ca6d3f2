"""The steps-to-result curve: the minimum, the verdicts, confirmation, and the race against full training."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis.hand_made import Trial
from analysis.hand_made import tables as by_hand
from analysis.simulated_studies import GOAL as SIMULATED
from analysis.simulated_studies import SURFACES, expected_minimum, tables
from batchscope.advice.recommendation import recommend
from batchscope.analysis import Curve, compare, steps_to_result
from batchscope.analysis.headline import headline
from batchscope.analysis.held_out import by_batch_size, in_words
from batchscope.analysis.two_optima import two_optima
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal

GOAL = Goal.parse("validation/error < 0.5")
SURFACE = SURFACES[4]
POOL = SURFACE.pool(SURFACE.trials * 50, np.random.default_rng(0))
STEPS = POOL[: SURFACE.trials]


def reaching(
    name: str,
    batch_size: int,
    step: int | None,
    end: int = 100,
    *,
    status: str = "complete",
    index: int = 0,
    replicate: int = 0,
    revision: int = 0,
    **point: float | str,
) -> Trial:
    """A trial looked at every 10 steps up to ``end`` that reaches the goal at ``step``, or never."""
    values = {at: 0.1 if step is not None and at >= step else 0.9 for at in range(10, end + 1, 10)}
    return Trial(name, batch_size, values, status, index, replicate, revision, point)


def row(curve: Curve, batch_size: int = 8) -> dict[str, object]:
    return curve.table.row(by_predicate=pl.col("batch_size") == batch_size, named=True)


def test_the_fewest_steps_win_and_ties_go_to_the_lower_index() -> None:
    run = by_hand(
        reaching("c", 8, 30, index=2, learning_rate=0.3),
        reaching("a", 8, 60, index=0, learning_rate=0.1),
        reaching("b", 8, 30, index=1, learning_rate=0.2),
        reaching("d", 8, None, index=3, status="diverged", learning_rate=9.0),
        reaching("e", 16, None, learning_rate=0.1),
    )
    curve = steps_to_result(*run, GOAL)
    best = row(curve)
    assert (best["steps"], best["trial"], best["learning_rate"]) == (30, "b", 0.2)
    assert (best["reached"], best["feasible"], best["trials"]) == (3, 3, 4)
    unreached = row(curve, 16)
    assert (unreached["steps"], unreached["low"], unreached["trial"], unreached["learning_rate"]) == (None,) * 4
    assert unreached["validated"] is False
    assert "no trial reached the goal at batch size 16" in curve.notes[0]
    assert not any("trained again" in note for note in curve.notes)
    assert np.isnan(curve.log_samples[:, 1]).all()


def test_the_interval_is_no_narrower_than_the_gap_between_evaluations() -> None:
    run = by_hand(*(reaching(str(index), 8, 30, index=index) for index in range(40)))
    best = row(steps_to_result(*run, GOAL))
    assert best["low"] == pytest.approx(21, abs=1)
    assert best["high"] == 30


def test_a_race_finds_the_steps_of_full_training() -> None:
    raced, full = (steps_to_result(*tables(STEPS, margin), SIMULATED) for margin in (1.5, None))
    for name in ("batch_size", "steps", "trial", "feasible"):
        assert raced.table.get_column(name).equals(full.table.get_column(name))
    assert raced.table.get_column("steps").to_list() == STEPS.min(0).tolist()


def test_intervals_hold_the_expected_minimum_and_the_regimes_come_in_their_order() -> None:
    curve = steps_to_result(*tables(STEPS), SIMULATED)
    truth = np.array([expected_minimum(column, SURFACE.trials) for column in POOL.T])
    low, high = (curve.table.get_column(end).to_numpy() for end in ("low", "high"))
    assert ((low <= truth) & (truth <= high)).mean() >= 0.7
    ends = [curve.regimes.perfect_scaling_until, curve.regimes.critical_batch_size]
    ends.append(curve.regimes.maximum_useful_batch_size)
    values = [end.value for end in ends if end.value is not None]
    assert len(values) == 3
    assert values == sorted(values)
    assert curve.log_samples.shape == (1000, 11)


def test_the_same_tables_give_the_same_curve_whatever_their_order() -> None:
    trials, measurements = tables(STEPS)
    one = steps_to_result(trials, measurements, SIMULATED)
    other = steps_to_result(trials.sample(fraction=1, shuffle=True, seed=1), measurements.lazy(), SIMULATED)
    assert one.table.equals(other.table)
    assert one.regimes == other.regimes


def test_equal_trials_takes_as_many_as_the_batch_size_with_the_fewest() -> None:
    run = by_hand(
        *(reaching(f"small {index}", 8, 90 - 10 * index, index=index) for index in range(4)),
        *(reaching(f"large {index}", 16, 50, index=index) for index in range(2)),
        reaching("widened", 8, 20, index=4, revision=1),
    )
    assert row(steps_to_result(*run, GOAL))["steps"] == 20
    equal = steps_to_result(*run, GOAL, equal_trials=True)
    assert (row(equal)["steps"], row(equal)["feasible"]) == (80, 2)
    assert row(steps_to_result(*run, GOAL, trials_per_batch_size=3))["steps"] == 70
    assert any("equal_trials" in note for note in steps_to_result(*run, GOAL).notes)


def test_a_winner_at_the_side_of_its_space_is_not_validated() -> None:
    run = by_hand(
        reaching("inside", 8, 30, learning_rate=0.1, momentum=0.9, optimizer="sgd"),
        reaching("at the side", 16, 30, learning_rate=0.1, momentum=0.9989, optimizer="sgd"),
    )
    space = {"learning_rate": (1e-3, 10.0, "log"), "momentum": (0.0, 0.999, "reverse_log")}
    curve = steps_to_result(*run, GOAL, space=space)
    assert (row(curve)["validated"], row(curve)["reason"]) == (True, None)
    assert row(curve, 16)["validated"] is False
    assert "best momentum, 0.9989, is within 0.05 of the upper side" in str(row(curve, 16)["reason"])
    wider = {8: space, 16: space | {"momentum": (0.0, 0.99999, "reverse_log")}}
    assert row(steps_to_result(*run, GOAL, space=wider), 16)["validated"] is True
    assert row(steps_to_result(*run, GOAL))["validated"] is None


def test_a_wide_interval_is_called_too_few_trials_with_a_number_that_would_do() -> None:
    few = SURFACES[8].pool(12, np.random.default_rng(3))
    table = steps_to_result(*tables(few), SIMULATED).table
    wide = table.filter(pl.col("high") > 2.2 * pl.col("low"))
    assert wide.height
    assert wide.get_column("verdict").str.starts_with("too few trials").all()
    needed = wide.get_column("trials_needed").drop_nulls()
    assert needed.min() > 12  # type: ignore[operator]
    sure = table.filter(pl.col("high") < 1.8 * pl.col("low"))
    assert not sure.get_column("verdict").count()


def test_running_and_pruned_trials_are_pointed_out() -> None:
    run = by_hand(
        reaching("a", 8, 30),
        reaching("b", 8, None, 20, status="running", index=1),
        reaching("c", 8, None, 20, status="pruned", index=2),
    )
    curve = steps_to_result(*run, GOAL)
    assert curve.notes[0] == "1 trials are still running: the curve is not final"
    assert curve.approximate == curve.notes[1]
    assert curve.notes[1].startswith("approximate: policy halving, or another pruner, dropped 1 trial at rungs 20;")
    assert "upper bound" in curve.notes[1] and "trusted less" in curve.notes[1]
    assert row(curve, 8)["steps"] == 30
    assert steps_to_result(*by_hand(reaching("a", 8, 30)), GOAL).approximate is None


def test_a_pruned_trial_counts_as_feasible_and_not_watched_for_longer() -> None:
    trials, evaluations = by_hand(reaching("a", 8, 30), reaching("b", 8, None, 20, status="pruned", index=1))
    curve = steps_to_result(trials, evaluations, GOAL)
    assert (row(curve, 8)["feasible"], row(curve, 8)["reached"]) == (2, 1)


CONFIRMED = [40, 50, 50, 60, 70]


def confirmed_run(*steps: int | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    search = [reaching(f"winner {size}", size, 30, learning_rate=0.1, index=0) for size in (8, 16, 32)]
    search += [reaching(f"loser {size}", size, 40, learning_rate=0.2, index=1) for size in (8, 16, 32)]
    again = [
        reaching(f"again {size} {seed}", size, step, learning_rate=0.1, replicate=seed)
        for size in (8, 16, 32)
        for seed, step in enumerate(steps, start=1)
    ]
    stray = reaching("another point", 8, 10, learning_rate=0.2, replicate=1, index=1)
    return by_hand(*search, *again, stray)


def test_confirmed_points_show_what_a_fresh_training_takes_and_the_regimes_are_drawn_from_it() -> None:
    curve = steps_to_result(*confirmed_run(*CONFIRMED), GOAL)
    best = row(curve)
    assert (best["steps"], best["tuned_seeds"], best["trial"]) == (30, 5, "winner 8")
    assert best["tuned"] == pytest.approx(np.exp(np.mean(np.log(CONFIRMED))))
    low, high = best["tuned_low"], best["tuned_high"]
    assert isinstance(low, float) and isinstance(high, float)
    assert 30 < low < 40 and 80 < high < 100  # it holds one training, not a mean of five
    assert curve.confirmed and curve.quantity == "tuned"
    np.testing.assert_allclose(np.median(curve.log_samples, axis=0), np.mean(np.log(CONFIRMED)), atol=0.03)
    assert curve.log_fresh.std() > 1.8 * curve.log_samples.std()


def test_two_seeds_far_apart_leave_open_intervals_and_finite_answers() -> None:
    curve = steps_to_result(*confirmed_run(2, 98), GOAL)
    logs = curve.log_samples
    assert curve.confirmed and np.isfinite(logs).all()
    assert (row(curve)["tuned_low"], row(curve)["tuned_high"]) == (pytest.approx(1.61, abs=0.01), None)
    assert curve.regimes.law is not None
    found = recommend(curve)
    assert found.fastest.batch_size == 8 and found.fastest.time.value == row(curve)["tuned"]
    assert (found.fastest.steps.high, found.fastest.time.high) == (None, None)
    assert "about 32 steps (at least 1.61)" in headline(curve).sentence
    ends = compare({"run": curve}).table.select("low", "high").to_numpy()
    assert (ends[:, 0] <= 1).all() and (ends[:, 1] >= 1).all()


def test_a_setting_that_missed_the_goal_again_is_told_and_its_interval_is_open() -> None:
    curve = steps_to_result(*confirmed_run(40, 50, None), GOAL)
    best = row(curve)
    assert (best["tuned"], best["tuned_high"], best["tuned_seeds"]) == (pytest.approx(50.0), None, 3)
    assert (best["validated"], best["reason"]) == (False, "1 of 3 trainings with new seeds missed the goal")
    assert curve.confirmed
    missed = steps_to_result(*confirmed_run(None, None, 40), GOAL)
    assert row(missed)["tuned"] is None and not missed.confirmed


def test_one_new_seed_has_no_interval_and_confirms_nothing() -> None:
    curve = steps_to_result(*confirmed_run(40), GOAL)
    best = row(curve)
    assert (best["tuned"], best["tuned_low"], best["tuned_high"]) == (pytest.approx(40.0), None, None)
    assert not curve.confirmed and curve.quantity == "steps"
    assert any("winners, who are lucky" in note for note in curve.notes)


def test_the_price_is_in_trainings_of_the_settings_that_were_found() -> None:
    search = [reaching("a", 8, 30), reaching("b", 8, 40, index=1), reaching("c", 16, 20)]
    curve = steps_to_result(*by_hand(*search, reaching("d", 32, None)), GOAL)
    trained = curve.table["trained"].to_list()
    assert (
        trained
        == by_hand(*search, reaching("d", 32, None))[0]
        .group_by("batch_size")
        .agg(pl.col("steps").sum())
        .sort("batch_size")["steps"]
        .to_list()
    )
    assert curve.price == pytest.approx(trained[0] / 30 + trained[1] / 20)
    assert steps_to_result(*by_hand(search[0]), GOAL, tuned=True).price is None


def test_the_runners_up_tell_how_lucky_the_fastest_may_have_been() -> None:
    search = [reaching(str(index), 8, steps, index=index) for index, steps in enumerate((30, 44, 38, 40, 36, 42, 99))]
    assert row(steps_to_result(*by_hand(*search), GOAL))["runners_up"] == 40.0
    assert row(steps_to_result(*by_hand(search[0]), GOAL))["runners_up"] is None


def test_a_run_where_nothing_was_reached_still_has_a_table() -> None:
    curve = steps_to_result(*by_hand(reaching("a", 8, None), reaching("b", 16, None)), GOAL)
    assert curve.table.get_column("steps").to_list() == [None, None]
    assert curve.regimes.critical_batch_size.value is None
    with pytest.raises(AnalysisError, match="needs a metric"):
        steps_to_result(*by_hand(reaching("a", 8, None)), Goal.parse("test/error < 1"))


def test_one_trial_of_many_has_no_factor_within_which_its_steps_are_known() -> None:
    rows = [reaching("winner", 8, 30, 45), *(reaching(f"t{i}", 8, None, 45, index=i) for i in range(1, 12))]
    verdict = row(steps_to_result(*by_hand(*rows), GOAL))["verdict"]
    assert isinstance(verdict, str) and "1 of 12 reached the goal, which says next to nothing of the steps" in verdict
    assert "within a factor" not in verdict


def test_two_optima_are_told_and_one_is_not() -> None:
    draw = np.random.default_rng(0)

    def found(*optima: float) -> tuple[str, str] | None:
        points = draw.random((64, 2))
        away = np.min([((points - at) ** 2).sum(1) / 0.35**2 for at in optima], axis=0)
        steps = np.round(100 * np.exp(away + 0.05 * draw.standard_normal(64)))
        columns = {"trial": list(map(str, range(64))), "goal_step": np.where(steps < 150, steps, np.nan)}
        group = pl.DataFrame(columns | {f"hyperparameter/{name}": x for name, x in zip("ab", points.T, strict=True)})
        return two_optima(group.with_columns(pl.col("goal_step").fill_nan(None)), ["a", "b"])

    assert sum(found(0.2, 0.75) is not None for _ in range(10)) >= 7
    assert not any(found(0.5) for _ in range(20))


@pytest.mark.parametrize(("apart", "told"), [(20, True), (12, False)])
def test_two_good_settings_side_by_side_are_one_optimum(apart: int, told: bool) -> None:
    """A third of the space apart, or a fifth, with slow ones between."""
    steps = [100 if index == 10 else 105 if index == 10 + apart else 300 for index in range(60)]
    columns = {"trial": list(map(str, range(60))), "goal_step": steps, "hyperparameter/a": np.linspace(0, 1, 60)}
    assert (two_optima(pl.DataFrame(columns), ["a"]) is not None) == told


def test_a_curve_names_the_settings_of_both_optima() -> None:
    places = [(a, b) for a in np.linspace(0.05, 0.95, 8) for b in np.linspace(0.05, 0.95, 8)]
    trials = []
    for index, (a, b) in enumerate(places):
        away = min((a - at) ** 2 + (b - at) ** 2 for at in (0.2, 0.8)) / 0.35**2
        steps = round(100 * np.exp(away)) + index % 7
        values = {steps: 0.1} if steps < 150 else {150: 0.9}
        trials.append(Trial(str(index), 8, values, index=index, point={"a": float(a), "b": float(b)}))
    notes = steps_to_result(*by_hand(*trials), GOAL).notes
    (told,) = (note for note in notes if note.startswith("two optima at batch size 8"))
    assert "a 0.1786, b 0.1786; and a 0.8214, b 0.8214" in told


def test_test_values_are_of_the_winner_and_its_new_seeds_once_each() -> None:
    """Also where one setting won at several batch sizes."""
    trained = [
        reaching(f"{size} {seed}", size, 30, replicate=seed, learning_rate=0.1) for size in (8, 16) for seed in (0, 1)
    ]
    trials, measurements = by_hand(*trained, reaching("slower", 8, 60, index=1, learning_rate=0.2))
    values = {"8 0": 0.25, "8 1": 0.5, "16 0": 0.125, "16 1": 1.0, "slower": 9.0}
    given = measurements.with_columns(pl.col("trial").replace_strict(values).alias("test/error"))
    curve = steps_to_result(trials, given, GOAL)
    rows = curve.test.select("batch_size", "replicate", "step", "test/error").rows()
    assert rows == [(8, 0, 30, 0.25), (8, 1, 30, 0.5), (16, 0, 30, 0.125), (16, 1, 30, 1.0)]
    told = [in_words(entry, str) for entry in by_batch_size(curve.test).values()]
    assert told == ["error 0.25 (confirmed 0.5)", "error 0.125 (confirmed 1.0)"]
    assert in_words({"error": 0.25, "confirmations": []}, str) == "error 0.25"


def test_a_goal_that_the_first_update_reaches_is_too_easy() -> None:
    """A batch size that takes one step can take no fewer: what the others take says nothing of it."""

    def notes(*steps: int) -> tuple[str, ...]:
        rows = [(size, index, at) for size, least in enumerate(steps, 1) for index, at in enumerate((least, 9))]
        trials = (
            Trial(f"{size} {index}", size, {step: 0.9 - 0.8 * (step >= at) for step in range(1, 10)}, index=index)
            for size, index, at in rows
        )
        return steps_to_result(*by_hand(*trials), GOAL).notes

    easy = "the first update reaches the goal at batch size 2, 3: too easy to compare them, take a harder one"
    assert easy in notes(8, 1, 1)
    assert not any("too easy" in note for note in notes(8, 2, 2))
