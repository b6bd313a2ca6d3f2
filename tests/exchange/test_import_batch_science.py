"""The published layout, written as published, comes in as it is; what is broken is counted and the rest used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from batchscope import open_run
from batchscope.errors import DataError, StoreError
from batchscope.exchange.exporters import export_batch_science
from batchscope.exchange.importers import import_batch_science
from batchscope.exchange.importers.batch_science import metric_name
from batchscope.spec import documents
from batchscope.store import Store, find_runs

CONFIGS = {
    "learning_rate": {"max_value": 10.0, "min_value": 1e-4, "scale": "LOG_SCALE", "type": "DOUBLE"},
    "momentum": {"max_value": 0.9999, "min_value": 0.9, "scale": "REVERSE_LOG_SCALE", "type": "DOUBLE"},
    "label_smoothing": {"feasible_points": [0.0, 0.01, 0.1], "type": "DISCRETE"},
    "decay_steps": {"max_value": 600, "min_value": 300, "scale": "", "type": "INTEGER"},
    "end_factor": {"max_value": 0.1, "min_value": 0.0, "scale": "LINEAR_SCALE", "type": "DOUBLE"},
}
HEADER = "step,train/cross_entropy_error,val/cross_entropy_error,val/classification_error"


def write_study(folder: Path, batch_size: int, **changes: Any) -> Path:
    study = folder / str(batch_size)
    study.mkdir(parents=True)
    content = {
        "batch_size": batch_size,
        "dataset": "mnist",
        "early_stopping": False,
        "model": "simple_cnn_base",
        "optimizer": "nesterov_momentum",
        "parameter_configs": CONFIGS,
        "train_steps": 400,
    }
    (study / "study.json").write_text(json.dumps(content | changes))
    return study


def write_trial(
    study: Path, number: int, rows: str, status: str = "COMPLETE", header: str = HEADER, **changes: Any
) -> None:
    trial = study / str(number)
    trial.mkdir()
    content: dict[str, Any] = {
        "_internal_study_name": "x",
        "_internal_trial_id": number,
        "parameters": {"learning_rate": 0.01 * number, "momentum": 0.9, "label_smoothing": 0.01},
        "status": status,
        "steps": 400,
        "trial_id": number,
    }
    (trial / "metadata.json").write_text(json.dumps(content | changes))
    (trial / "measurements.csv").write_text(f"{header}\n{rows}")


def rows(errors: Mapping[int, float]) -> str:
    return "".join(f"{step},{error + 1},{error + 2},{error}\n" for step, error in errors.items())


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    """Two batch sizes; at 64 trial 10 is quickest, 2 diverges, 9 was never finished."""
    folder = tmp_path / "data" / "mnist" / "simple_cnn_base" / "nesterov_momentum"
    study = write_study(folder, 64)
    write_trial(study, 1, rows({0: 0.9, 100: 0.5, 200: 0.02, 400: 0.005}))
    write_trial(study, 2, rows({0: 0.9, 100: 0.001}) + "200,nan,,nan\n", "INFEASIBLE", steps=200)
    write_trial(study, 9, rows({0: 0.9, 100: 0.009}), "INCOMPLETE", steps=100)
    write_trial(study, 10, rows({0: 0.9, 100: 0.01, 200: 0.009, 400: 0.01}))
    study = write_study(folder, 256)
    write_trial(study, 1, rows({0: 0.9, 100: 0.008}), steps=100)
    return folder


def test_one_workload_becomes_one_run(workload: Path, tmp_path: Path) -> None:
    made = import_batch_science(workload, tmp_path / "run")
    assert (made.runs, made.trials, made.measurements) == ((tmp_path / "run",), 5, 15)
    store = Store.open(tmp_path / "run")
    trials, evaluations = store.tables()
    assert trials.select("trial", "batch_size", "index", "status", "steps", "examples").rows() == [
        ("b64-1", 64, 1, "complete", 400, 25600),
        ("b64-2", 64, 2, "diverged", 200, 12800),
        ("b64-9", 64, 9, "stopped", 100, 6400),
        ("b64-10", 64, 10, "complete", 400, 25600),
        ("b256-1", 256, 1, "complete", 100, 25600),
    ]
    assert trials["hyperparameter/learning_rate"].to_list() == [0.01 * number for number in (1, 2, 9, 10, 1)]
    measured = evaluations.sort("batch_size", "trial", "step").collect()
    assert set(measured.columns) >= {"train/loss", "validation/loss", "validation/error"}
    one = measured.filter(trial="b64-1")
    assert one["validation/error"].to_list() == [0.9, 0.5, 0.02, 0.005]
    assert one["validation/loss"].to_list() == pytest.approx([2.9, 2.5, 2.02, 2.005])
    assert one["examples"].to_list() == [0, 6400, 12800, 25600]
    wild = measured.filter(trial="b64-2", step=200)
    assert math.isnan(wild["train/loss"][0]) and wild["validation/loss"][0] is None
    assert any("not finite" in line for line in made.problems)
    assert any("missing values of validation/loss" in line for line in made.problems)


def test_the_selection_rule_the_spaces_and_the_goal_are_written_down(workload: Path, tmp_path: Path) -> None:
    import_batch_science(workload, tmp_path / "run")
    document = documents.load(Store.open(tmp_path / "run").study_text, "study.yaml")
    assert document["workload"] == "mnist/simple_cnn_base/nesterov_momentum"
    assert document["goals"] == ["validation/error < 0.01"]
    assert document["selection"] == {"statuses": ["complete"], "trials": 100}
    assert document["studies"]["64"]["train_steps"] == 400
    assert document["studies"]["64"]["space"] == {
        "learning_rate": {"min": 1e-4, "max": 10.0, "scale": "log"},
        "momentum": {"min": 0.9, "max": 0.9999, "scale": "reverse_log"},
        "label_smoothing": {"values": [0.0, 0.01, 0.1]},
        "decay_steps": {"min": 300, "max": 600, "scale": "linear", "type": "integer"},
        "end_factor": {"min": 0.0, "max": 0.1, "scale": "linear"},
    }
    imported = Store.open(tmp_path / "run").provenance["imported"]
    assert imported["kind"] == "batch-science" and imported["problems"]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_any_part_of_the_tree_can_be_given(workload: Path, tmp_path: Path, depth: int) -> None:
    other = write_study(tmp_path / "data" / "mnist" / "fc" / "sgd", 8, model="fc", optimizer="sgd")
    write_trial(other, 1, rows({0: 0.5}), steps=10)
    root = [tmp_path / "data", tmp_path / "data" / "mnist", tmp_path / "data" / "mnist" / "fc"][depth]
    made = import_batch_science(root, tmp_path / "runs")
    expected = sorted(path.relative_to(root) for path in (workload, other.parent) if path.is_relative_to(root))
    assert sorted(run.relative_to(tmp_path / "runs") for run in made.runs) == expected
    assert sorted(find_runs(tmp_path / "runs")) == sorted(made.runs)


def test_a_single_study_can_be_given(workload: Path, tmp_path: Path) -> None:
    made = import_batch_science(workload / "256", tmp_path / "run")
    assert made.trials == 1 and Store.open(tmp_path / "run").trials()["batch_size"].to_list() == [256]


def test_fewer_trials_where_the_paper_took_fewer_and_own_goals(tmp_path: Path) -> None:
    names = {"dataset": "lm1b", "model": "lstm", "optimizer": "nesterov_momentum"}
    write_trial(write_study(tmp_path / "w", 16, **names), 1, rows({0: 1.0}))
    for target, options, count, goals in (
        ("a", {}, 50, ["validation/loss < 3.9"]),
        ("b", {"trials": 7, "goals": ["train/loss < 1"]}, 7, ["train/loss < 1.0"]),
    ):
        import_batch_science(tmp_path / "w", tmp_path / target, **options)  # type: ignore[arg-type]
        document = documents.load(Store.open(tmp_path / target).study_text, "study.yaml")
        assert document["selection"]["trials"] == count and document["goals"] == goals


def test_a_maximising_metric_keeps_its_name(tmp_path: Path) -> None:
    names = {"dataset": "open_images_v4", "model": "resnet_50"}
    header = "step,val/average_precision"
    write_trial(write_study(tmp_path / "w", 64, **names), 1, "0,0.1\n5,0.32\n", header=header)
    import_batch_science(tmp_path / "w", tmp_path / "run")
    store = Store.open(tmp_path / "run")
    assert documents.load(store.study_text, "x")["goals"] == ["validation/average_precision > 0.31"]
    assert store.measurements().collect()["validation/average_precision"].to_list() == [0.1, 0.32]
    for goal, steps in ((None, 5), ("val/average_precision > 0.315", 5), ("validation/average_precision > 0.32", None)):
        assert open_run(tmp_path / "run").steps_to_result(goal).table["steps"].to_list() == [steps]
    export_batch_science(store, tmp_path / "out")
    measured = (tmp_path / "out/open_images_v4/resnet_50/nesterov_momentum/64/1/measurements.csv").read_text()
    assert measured.startswith("step,val/average_precision\n")


def test_an_imported_run_is_analysed_and_reported_as_any_other(workload: Path, tmp_path: Path) -> None:
    """The selection leaves out the unfinished trial 9, which was quickest; strictly beyond the goal, ties by number."""
    import_batch_science(workload, tmp_path / "run")
    run = open_run(tmp_path / "run")
    rows = run.summary()["goals"][0]["curve"]
    assert [(row["batch_size"], row["steps"], row["trial"]) for row in rows] == [
        (64, 200, "b64-10"),
        (256, 100, "b256-1"),
    ]
    report = run.write_report()
    assert json.loads(report.with_name("summary.json").read_text()) == run.summary()
    assert "mnist/simple_cnn_base/nesterov_momentum" in report.read_text()


def test_names_of_metrics() -> None:
    assert metric_name("val/classification_error") == "validation/error"
    assert metric_name("test/cross_entropy_error") == "test/loss"
    assert metric_name("val/average_precision") == "validation/average_precision"


def test_what_is_broken_is_counted_and_the_rest_used(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    study = write_study(folder, 64)
    write_trial(study, 1, "200,1,1,0.2\n100,1,1,0.3\n200,1,1,0.2\n")  # unsorted, repeated
    write_trial(study, 2, "100,1,1,0.3\n100,1,1,0.4\n200,oops,1,0.2\nx,1,1,1\n,1,1,1\n2.5,1,1,1\n")
    write_trial(study, 3, "", steps="many")
    write_trial(study, 4, rows({100: 0.1}), "EXPLODED")
    write_trial(study, 5, rows({500: 0.1}), steps=400)
    write_trial(study, 6, rows({100: 0.1}), trial_id=7)
    write_trial(study, 7, "1\n", header="step")
    write_trial(study, 8, "1,2\n", header="steps,loss")
    (study / "9").mkdir()
    (study / "9" / "metadata.json").write_text("[" * 100_000)
    (study / "notes").mkdir()
    (study / "11").mkdir()
    write_trial(study, 12, "100,inf,-inf,0.5\n")
    (study / "12" / "measurements.csv").write_bytes((study / "12" / "measurements.csv").read_bytes() + b"\xff,1,1,1\n")
    (write_study(folder, 128) / "study.json").write_text("{")
    (write_study(folder, 256) / "study.json").write_text('{"batch_size": "many"}')
    write_study(folder, 512)
    (write_study(folder, 1024) / "1").mkdir()
    made = import_batch_science(folder, tmp_path / "run")
    trials, evaluations = Store.open(tmp_path / "run").tables()
    assert trials["trial"].to_list() == [f"b64-{number}" for number in (1, 2, 3, 5, 6, 7, 8, 12)]
    measured = evaluations.sort("trial", "step").collect()
    assert measured.filter(trial="b64-1").select("step", "validation/error").rows() == [(100, 0.3), (200, 0.2)]
    assert measured.filter(trial="b64-2").select("step", "train/loss", "validation/error").rows() == [
        (100, 1.0, 0.4),
        (200, None, 0.2),
    ]
    assert trials.filter(trial="b64-5")["steps"].item() == 500
    assert measured.filter(trial="b64-12")["train/loss"].is_nan().all()
    told = "\n".join(made.problems)
    for words in (
        "1 rows that repeat another exactly",
        "1 rows that repeat a trial's step with other values, the last of each kept (first: trial b64-2, step 100)",
        "rows out of the order of steps, sorted (first: trial b64-1, step 100)",
        "1 values of train/cross_entropy_error that are no numbers, left out (first: trial b64-2, step 200, oops)",
        "rows whose step is no whole number",
        "rows without a step",
        "1 trials of unknown status, left out (first: 64/4: 'EXPLODED')",
        "1 trials measured beyond the steps that they state",
        "1 trials whose folder is not named for their trial_id",
        "1 files of measurements whose header is not step and SET/METRIC columns",
        "3 trials whose metadata.json is unfit",
        "1 folders whose name is no trial number",
        "1 trials that do not state their steps",
        "values of train/loss that are not finite",
        "2 studies whose study.json is unfit",
        "2 studies without any trial",
        "trials without any measurement",
    ):
        assert words in told, f"{words!r} not in:\n{told}"


def test_nothing_to_import_is_said_and_leaves_nothing(tmp_path: Path, workload: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        import_batch_science(tmp_path / "nowhere", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no study\.json"):
        import_batch_science(tmp_path / "empty", tmp_path / "run")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("x")
    with pytest.raises(StoreError, match="exists already"):
        import_batch_science(workload, tmp_path / "taken")
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob(".*"))


def test_export_and_import_again_give_the_same_tables(workload: Path, tmp_path: Path) -> None:
    import_batch_science(workload, tmp_path / "run")
    first = Store.open(tmp_path / "run")
    written = export_batch_science(first, tmp_path / "out")
    assert (written.trials, written.measurements) == (5, 15)
    assert written.notes == ("1 trials that were stopped early or still run are INCOMPLETE",)
    study = json.loads((tmp_path / "out/mnist/simple_cnn_base/nesterov_momentum/64/study.json").read_text())
    assert study == json.loads((workload / "64" / "study.json").read_text())
    import_batch_science(tmp_path / "out" / "mnist" / "simple_cnn_base" / "nesterov_momentum", tmp_path / "again")
    second = Store.open(tmp_path / "again")
    assert_frame_equal(first.trials(), second.trials())
    left, right = (store.measurements().sort("trial", "step").collect() for store in (first, second))
    assert_frame_equal(left, right)
    with pytest.raises(StoreError, match="exists already"):
        export_batch_science(first, tmp_path / "out")


def test_many_trials_are_read_as_one_and_the_same_as_alone(tmp_path: Path) -> None:
    """The fast way (all files of a study as one) and the slow one (each by itself) agree."""
    generator = np.random.default_rng(0)
    study = write_study(tmp_path / "fast", 64)
    broken = write_study(tmp_path / "slow", 64)
    for number in range(1, 30):
        steps = np.sort(generator.choice(1000, generator.integers(1, 40), replace=False))
        body = "".join(f"{step},{generator.normal()},,{generator.random()}\n" for step in steps)
        write_trial(study, number, body.rstrip("\n") if number % 3 else body, steps=1000)
        write_trial(broken, number, body + "oops,1,1,1\n", steps=1000)
    import_batch_science(tmp_path / "fast", tmp_path / "a")
    made = import_batch_science(tmp_path / "slow", tmp_path / "b")
    assert any(line.startswith("29 rows whose step is no whole number") for line in made.problems)
    left, right = (Store.open(tmp_path / name).measurements().sort("trial", "step").collect() for name in "ab")
    assert_frame_equal(left, right)
