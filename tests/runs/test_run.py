"""A whole run: the same tables whatever the packs, workers and interruptions, and only what is missing is done."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batchscope as bs
from batchscope import runs
from batchscope.errors import AnalysisError, StoreError, StudyError
from batchscope.executors.worker import Worker
from batchscope.plan.race import Unit
from batchscope.runs import Interrupted, Progress, Run
from batchscope.spec.study import Study
from engine.workbench import classification, study, well_validated
from rows import first

pytestmark = pytest.mark.usefixtures("without_page")
TIMES = ("seconds", "train_seconds", "evaluation_seconds")


def do(folder: Path, *overrides: str, program: str = "loop", workload: bs.Workload | None = None) -> Run:
    """Run the small study in this process; the loop has nothing to trace, so it is quick to begin."""
    return runs.run(study(f"engine.program={program}", *overrides), folder, workload=workload or classification())


def tables(run: Run) -> tuple[pl.DataFrame, pl.DataFrame]:
    trials = run.trials.drop(TIMES, strict=False).sort("trial")
    evaluations = run.measurements.drop(TIMES, strict=False).sort("trial", "step").collect()
    return trials, evaluations.select(sorted(evaluations.columns))


def assert_same(one: Run, other: Run) -> None:
    for ours, theirs in zip(tables(one), tables(other), strict=True):
        assert_frame_equal(ours, theirs, check_exact=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return do(tmp_path_factory.mktemp("whole") / "run", "batch_sizes=[4, 16]")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return do(tmp_path_factory.mktemp("packed") / "run", program="vmap")


def test_every_evaluation_of_every_trial_is_there_once(whole: Run) -> None:
    trials, evaluations = tables(whole)
    assert evaluations.select("trial", "step").is_duplicated().sum() == 0
    assert set(trials["status"]) <= {"complete", "stopped"}
    ends = evaluations.group_by("trial").agg(pl.col("step").max())
    joined = trials.join(ends, on="trial")
    assert (joined["steps"] == joined["step"]).all() and len(joined) == len(trials) == 20
    assert (evaluations["examples"] == evaluations["step"] * evaluations["batch_size"]).all()
    assert (evaluations["epoch"] == evaluations["examples"] / 200).all()


@pytest.mark.parametrize("size", [1, 2, 10])
@pytest.mark.slow
def test_pack_size_changes_nothing(packed: Run, size: int, tmp_path: Path) -> None:
    assert_same(packed, do(tmp_path / "run", f"engine.pack_size={size}", program="vmap"))


def test_race_and_full_give_the_same_steps_to_result(whole: Run, tmp_path: Path) -> None:
    full = do(tmp_path / "run", "batch_sizes=[4, 16]", "policy=full")
    for goal in whole.goals:
        raced, trained = whole.steps_to_result(goal).table, full.steps_to_result(goal).table
        assert raced["steps"].to_list() == trained["steps"].to_list()
        assert raced["trial"].to_list() == trained["trial"].to_list()
    assert whole.trials["steps"].sum() < full.trials["steps"].sum()
    assert set(full.trials["status"]) == {"complete"} and set(full.trials["steps"]) == {60}


class Counting:
    """Counts the units that are computed, and presses Ctrl-C after some of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> None:
        self.units: list[Unit] = []
        original = Worker.run

        def counted(worker: Worker, unit: Unit, choice: object) -> object:
            if stop_after is not None and len(self.units) == stop_after:
                raise KeyboardInterrupt
            self.units.append(unit)
            return original(worker, unit, choice)  # type: ignore[arg-type]

        monkeypatch.setattr(Worker, "run", counted)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> int:
    with pytest.MonkeyPatch.context() as patch:
        counting = Counting(patch)
        do(tmp_path_factory.mktemp("units") / "run", "batch_sizes=[4, 16]")
    return len(counting.units)


def test_a_finished_run_computes_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = do(tmp_path / "run")
    counting = Counting(monkeypatch)
    assert_same(first, do(tmp_path / "run"))
    assert counting.units == []


@pytest.mark.parametrize("stop", first(1, [1, 0, 5]))
@pytest.mark.parametrize("checkpoints", ["kept", "lost"])
def test_an_interrupted_run_goes_on_where_it_stopped(
    whole: Run, units: int, tmp_path: Path, stop: int, checkpoints: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Counting(patch, stop_after=stop)
        with pytest.raises(Interrupted):
            do(tmp_path / "run", "batch_sizes=[4, 16]")
    if checkpoints == "lost":
        for path in (tmp_path / "run" / "checkpoints").glob("*"):
            path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        rest = Counting(patch)
        run = do(tmp_path / "run", "batch_sizes=[4, 16]")
    assert len(rest.units) == units - stop
    assert_same(whole, run)


HALVING = ("policy=halving", "search.trials=20", "engine.pack_size=3", 'goals=["validation/error < 0.25"]')


def test_halving_drops_trials_says_so_and_goes_on_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = do(tmp_path / "run", *HALVING)
    pruned = run.trials.filter(pl.col("status") == "pruned")
    assert 0 < len(pruned) < 20 and pruned["steps"].max() < 60  # type: ignore[operator]
    said = f"approximate: policy halving, or another pruner, dropped {len(pruned)} trials at rungs "
    assert str(run.summary()["goals"][0]["approximate"]).startswith(said)
    monkeypatch.undo()
    assert said in run.write_report().read_text()
    with pytest.MonkeyPatch.context() as patch:
        Counting(patch, stop_after=20)
        with pytest.raises(Interrupted):
            do(tmp_path / "other", *HALVING)
    assert_same(run, do(tmp_path / "other", *HALVING))


@pytest.mark.slow
def test_halving_on_a_folder_that_knows_more_decides_as_it_would_without(tmp_path: Path) -> None:
    """What was measured after a rung, by a run of another policy, must not count at the rung."""
    halved = do(tmp_path / "halved", *HALVING)
    do(tmp_path / "run", *HALVING, "policy=full")
    after = do(tmp_path / "run", *HALVING)
    same = halved.trials.sort("trial")["status"].to_list(), after.trials.sort("trial")["status"].to_list()
    assert same[0] == same[1]
    exact = do(tmp_path / "halved", *HALVING, "policy=race")
    assert exact.summary()["goals"][0]["approximate"] is None


def test_more_trials_goals_and_batch_sizes_extend_a_run(tmp_path: Path) -> None:
    do(tmp_path / "run", "search.trials=5")
    extended = [
        "search.trials=10",
        "batch_sizes=[8, 32]",
        'goals=["validation/error < 0.35", "validation/error < 0.3"]',
    ]
    assert_same(do(tmp_path / "new", *extended), do(tmp_path / "run", *extended))


def examples_taken(run: Run) -> pl.Series:
    return run.measurements.collect()["evaluation/examples"]


@pytest.mark.parametrize("policy", first(1, ["race", "full"]))
def test_evaluations_that_end_early_change_no_steps_to_result(tmp_path: Path, policy: str) -> None:
    goals = 'goals=["validation/error < 0.5", "validation/error < 0.35", "validation/loss < 0.8", "train/loss < 0.6"]'
    shared = [goals, "batch_sizes=[4, 16]", "search.trials=6"]
    early = do(tmp_path / "early", *shared, workload=well_validated())
    shared += ["evaluation.sequential=false", f"policy={policy}"]
    complete = do(tmp_path / "complete", *shared, workload=well_validated())
    assert (examples_taken(early) < 1500).sum() > 50
    assert "evaluation/examples" not in complete.measurements.collect_schema().names()
    for ours, theirs in zip(early.curves(), complete.curves(), strict=True):
        kept = ["batch_size", "steps", "learning_rate", "momentum"] + (
            ["reached", "feasible"] if policy == "race" else []
        )
        assert_frame_equal(ours.table.select(kept), theirs.table.select(kept))
    if policy == "race":  # trials end at the same steps, and the values that are there are the same
        end = ["index", "batch_size", "status", "steps"]
        assert_frame_equal(early.trials.select(end).sort(end), complete.trials.select(end).sort(end))
        at = ["batch_size", "index", "step"]
        values = [
            run.measurements.collect()
            .join(run.trials.select("trial", "index"), on="trial")
            .drop_nulls("validation/error")
            for run in (early, complete)
        ]
        both = values[0].join(values[1], on=at, how="left")
        assert (both["validation/error"] == both["validation/error_right"]).all()


def test_a_harder_goal_extends_evaluations_that_ended_early_and_an_easier_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchscope.engine.evaluate.FEW", 0)
    goals = 'goals=["validation/error < 0.4", "validation/error < {}"]'
    do(tmp_path / "run", 'goals=["validation/error < 0.4"]')
    extended, fresh = do(tmp_path / "run", goals.format(0.35)), do(tmp_path / "new", goals.format(0.35))
    assert_frame_equal(tables(extended)[0], tables(fresh)[0])
    for ours, theirs in zip(extended.curves(), fresh.curves(), strict=True):
        assert_frame_equal(ours.table, theirs.table)
    for goal in ("validation/error < 0.5", "validation/loss < 0.5"):
        with pytest.raises(StudyError, match=r"-o.*evaluation.sequential=false"):
            do(tmp_path / "run", f'goals=["validation/error < 0.4", "{goal}"]')
        with pytest.raises(AnalysisError, match=r"evaluation.sequential=false"):
            extended.steps_to_result(goal)
    with pytest.raises(StudyError, match="policy: full needs every evaluation in full"):
        do(tmp_path / "run", goals.format(0.35), "policy=full")


def test_a_trial_ends_at_the_evaluation_that_reaches_its_last_goal(whole: Run) -> None:
    ends = whole.measurements.filter(pl.col("validation/error") < 0.35).group_by("trial").agg(pl.col("step").min())
    reached = whole.trials.join(ends.collect(), on="trial")
    assert len(reached) > 2 and (reached["steps"] == reached["step"]).all()


def test_a_smaller_budget_ends_a_run_with_what_it_has(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Counting(patch, stop_after=16)
        with pytest.raises(Interrupted):
            do(tmp_path / "run", 'goals=["validation/error < 0.01"]')
    before = do(tmp_path / "run", 'goals=["validation/error < 0.01"]', "budget.steps=10").trials
    assert set(before["status"]) == {"complete"}
    assert all(steps > 10 for steps in before["steps"])  # what was measured stays


def test_another_algorithm_is_refused_with_the_difference(tmp_path: Path) -> None:
    do(tmp_path / "run", "search.trials=2")
    with pytest.raises(StudyError) as caught:
        do(tmp_path / "run", "search.trials=2", "algorithm.optimizer=momentum")
    assert "-  optimizer: nesterov" in str(caught.value) and "+  optimizer: momentum" in str(caught.value)


def test_divergent_trials_are_recorded_and_replaced(tmp_path: Path) -> None:
    # Plain steps of this size blow up in float32 within a few evaluations.
    wild = "search.space.learning_rate={min: 1e-2, max: 1e8, scale: log}"
    run = do(tmp_path / "run", wild, "search.trials=8", "engine.dtype=float32")
    status = run.trials["status"].to_list()
    assert status.count("diverged") > 0
    assert len(status) - status.count("diverged") == 8
    diverged = run.trials.filter(pl.col("status") == "diverged")
    evaluations = run.measurements.collect().join(diverged.select("trial", "steps"), on="trial")
    assert (evaluations["step"] <= evaluations["steps"]).all()


def test_a_metric_that_is_not_measured_is_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"goals\[0\].*did you mean validation/error"):
        do(tmp_path / "run", 'goals=["validation/eror < 0.2"]')
    assert not (tmp_path / "run").exists()


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[Progress] = []
    runs.run(
        study("search.trials=4", "engine.program=loop"),
        tmp_path / "run",
        workload=classification(),
        on_progress=seen.append,
    )
    assert seen[0].share == 0 and seen[-1].share == 1
    assert seen[-1].batch_sizes[0].trials == 4 and seen[-1].train_seconds > 0


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run folder"):
        bs.open_run(tmp_path)


DIGITS = """
workload: digits/mlp-16
batch_sizes: [16, 64]
search: {trials: 6, space: {learning_rate: {min: 0.01, max: 1, scale: log}, momentum: 0.9}}
goals: ["validation/error < 0.15"]
budget: {epochs: 6}
engine: {dtype: float64, pack_size: 2, threads: 1}
"""


@pytest.mark.parametrize(("program", "workers"), first(1, [("loop", 2), ("vmap", 1), ("vmap", 2)]))
def test_workers_change_nothing(program: str, workers: int, tmp_path: Path) -> None:
    asked = Study.from_text(DIGITS, [f"engine.program={program}"])
    alone, together = (bs.run(asked, tmp_path / str(count), workers=count) for count in (0, workers))
    assert_same(alone, together)
    assert alone.steps_to_result().table["steps"].null_count() == 0


def test_a_best_point_at_a_side_widens_it_and_only_new_trials_run(tmp_path: Path) -> None:
    narrow = "search.space={learning_rate: {min: 0.002, max: 0.01, scale: log}, momentum: 0.8}"
    widening = ["search.widen={edge: 0.25, rounds: 3}", "search.trials=6", "budget.steps=150", narrow]
    plain = do(tmp_path / "plain", *widening, "search.widen.rounds=0")
    run = do(tmp_path / "run", *widening)
    trials = run.trials
    assert trials["revision"].max() == len(run.provenance["spaces"]["8"]) - 1 >= 1
    first = trials.filter(pl.col("revision") == 0)
    assert sorted(first["trial"]) == sorted(plain.trials["trial"])
    later = trials.filter(pl.col("revision") > 0)
    assert (later["hyperparameter/learning_rate"] > 0.01).all()
    before, after = plain.steps_to_result().table, run.steps_to_result().table
    assert after["validated"][0] is True
    assert after["steps"][0] < before["steps"][0]
    assert_same(run, do(tmp_path / "run", *widening))


def test_the_best_points_are_run_again_with_new_seeds(tmp_path: Path) -> None:
    confirming = ["search.confirm={seeds: 3, candidates: 2}", "search.trials=5"]
    run = do(tmp_path / "run", *confirming)
    again = run.trials.filter(pl.col("replicate") > 0)
    table = run.steps_to_result().table
    best = run.trials.filter(pl.col("trial") == table["trial"][0])
    counts = again.group_by("batch_size", "index").agg(pl.col("replicate").sort())
    assert all(replicates.to_list() == [1, 2, 3] for replicates in counts["replicate"])
    assert (counts.group_by("batch_size").len()["len"] <= 2 * len(run.goals)).all()
    rates = again.filter(pl.col("index") == best["index"][0], pl.col("batch_size") == best["batch_size"][0])
    assert set(rates["hyperparameter/learning_rate"]) == set(best["hyperparameter/learning_rate"])
    losses = run.measurements.filter(pl.col("step") == 1).collect().join(rates.select("trial"), on="trial")
    assert losses["train/running_loss"].n_unique() == 3  # their own data order and initial values
    assert table["tuned_seeds"][0] == 3 and table["tuned"][0] > 0
    with pytest.MonkeyPatch.context() as patch:
        Counting(patch, stop_after=9)
        with pytest.raises(Interrupted):
            do(tmp_path / "other", *confirming)
    assert_same(run, do(tmp_path / "other", *confirming))
