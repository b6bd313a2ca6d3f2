"""CSV files and exported tables: what is there comes in, what is unfit is counted, nothing is guessed silently."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from batchscope import open_run
from batchscope.errors import BatchscopeError, DataError, StoreError, StudyError
from batchscope.exchange.exporters import export_tables
from batchscope.exchange.importers import import_csv, import_curve, import_tables
from batchscope.exchange.importers.result import ColumnError
from batchscope.spec import documents
from batchscope.store import Store, find_runs
from store.store_units import drive

LONG = """bs,run,step,loss,acc,lr,opt,state
64,a,10,1.0,0.5,0.1,sgd,finished
64,a,20,0.8,0.6,0.1,sgd,finished
64,b,10,1.5,,0.2,adam,crashed
128,c,10,0.9,0.7,0.1,sgd,FINISHED
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(text)
    return path


def columns(**more: str) -> dict[str, str]:
    return {"batch_size": "bs", "trial": "run", "step": "step"} | more


def test_a_csv_file_becomes_a_run(tmp_path: Path) -> None:
    made = import_csv(
        write(tmp_path, LONG),
        tmp_path / "run",
        batch_size="bs",
        step="step",
        trial="run",
        metrics={"validation/loss": "loss", "validation/accuracy": "acc"},
        hyperparameters={"learning_rate": "lr", "optimizer": "opt"},
        status="state",
        goals=["validation/loss<0.85"],
    )
    store = Store.open(tmp_path / "run")
    trials, evaluations = store.tables()
    keys = ["trial", "batch_size", "index", "status", "steps", "examples"]
    assert trials.select(*keys, "hyperparameter/learning_rate", "hyperparameter/optimizer").rows() == [
        ("a", 64, 0, "complete", 20, 1280, 0.1, "sgd"),
        ("b", 64, 1, "stopped", 10, 640, 0.2, "adam"),
        ("c", 128, 0, "complete", 10, 1280, 0.1, "sgd"),
    ]
    names = ["trial", "step", "examples", "validation/loss", "validation/accuracy"]
    assert evaluations.sort("trial", "step").select(names).collect().rows() == [
        ("a", 10, 640, 1.0, 0.5),
        ("a", 20, 1280, 0.8, 0.6),
        ("b", 10, 640, 1.5, None),
        ("c", 10, 1280, 0.9, 0.7),
    ]
    assert made.problems == ("1 missing values of validation/accuracy (first: trial b, step 10)",)
    document = documents.load(store.study_text, "study.yaml")
    assert document["goals"] == ["validation/loss < 0.85"] and document["workload"] == "data"
    assert document["imported"]["columns"]["validation/loss"] == "loss"


def test_everything_unfit_is_counted(tmp_path: Path) -> None:
    text = """bs,run,step,loss,lr
64,a,30,0.5,0.1
64,a,10,0.9,0.1
64,a,10,0.9,0.1
64,a,20,0.7,0.2
64,a,20,0.6,0.2
64,a,15,oops,0.2
64,a,16,,0.2
64,b,10,nan,0.1
64,b,20,-inf,0.1
,a,10,1,0.1
6.5,a,10,1,0.1
-4,a,10,1,0.1
64,,10,1,0.1
64,a,,1,0.1
64,a,1.5,1,0.1
64,a,1e3,0.4,0.2
64,a,-1,1,0.1
"""
    made = import_csv(
        write(tmp_path, text),
        tmp_path / "run",
        **columns(),
        metrics={"validation/loss": "loss"},
        hyperparameters={"learning_rate": "lr"},
    )
    trials, evaluations = Store.open(tmp_path / "run").tables()
    measured = evaluations.sort("trial", "step").collect()
    assert measured.filter(trial="a").select("step", "validation/loss").rows() == [
        (10, 0.9),
        (20, 0.6),
        (30, 0.5),
        (1000, 0.4),
    ]
    assert [math.isnan(value) for value in measured.filter(trial="b")["validation/loss"]] == [True, True]
    assert trials.select("trial", "status").rows() == [("a", "complete"), ("b", "diverged")]
    assert set(made.problems) == {
        "1 rows without a batch size, left out",
        "2 rows whose batch size is no whole number of at least 1, left out (first: trial a, step 10, 6.5)",
        "1 rows without a step, left out",
        "2 rows whose step is no whole number of at least 0, left out (first: trial a, 1.5)",
        "1 values of validation/loss that are no numbers, left out (first: trial a, step 15, oops)",
        "1 rows without a trial, left out",
        "1 trials in which hyperparameter/learning_rate changes, the last value kept (first: trial a)",
        "2 values of validation/loss that are not finite, kept as not-a-number (first: trial b, step 10)",
        "2 rows out of the order of steps, sorted (first: trial a, step 10)",
        "1 rows that repeat another exactly, left out",
        "1 rows that repeat a trial's step with other values, the last of each kept (first: trial a, step 20)",
        "2 rows without any value, left out (first: trial a, step 15)",
        "1 trials with values that are not finite and no status, taken as diverged (first: trial b)",
    }
    assert Store.open(tmp_path / "run").provenance["imported"]["problems"] == list(made.problems)


def test_names_that_recur_at_another_batch_size_are_told_apart(tmp_path: Path) -> None:
    text = "bs,run,step,loss\n64,1,10,1\n128,1,10,1\n64,2,10,1\n"
    import_csv(write(tmp_path, text), tmp_path / "a", **columns(), metrics={"train/loss": "loss"})  # type: ignore[arg-type]
    assert Store.open(tmp_path / "a").trials()["trial"].to_list() == ["b64-1", "b64-2", "b128-1"]
    import_csv(tmp_path / "data.csv", tmp_path / "b", batch_size="bs", step="step", metrics={"train/loss": "loss"})
    assert Store.open(tmp_path / "b").trials()["trial"].to_list() == ["b64", "b128"]


def test_groups_become_runs(tmp_path: Path) -> None:
    text = "size;bs;step;loss\n1.2B;64;10;1\n85M;64;10;2\n1.2B;128;10;1\n;64;1;1\n"
    options = {"metrics": {"train/loss": "loss"}, "group": "size", "separator": ";"}
    made = import_csv(write(tmp_path, text), tmp_path / "runs", batch_size="bs", step="step", **options)  # type: ignore[arg-type]
    assert find_runs(tmp_path / "runs") == [tmp_path / "runs" / "1.2B", tmp_path / "runs" / "85M"]
    assert (made.trials, made.measurements) == (3, 3)
    assert "1.2B: 1 rows without a group, left out" in made.problems


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "/etc", "\x1b[2J", "x" * 200])
def test_a_group_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, f"g,bs,step,loss\n{name},64,10,1\n")
    with pytest.raises(ColumnError, match="cannot name a folder"):
        import_csv(path, tmp_path / "runs", batch_size="bs", step="step", metrics={"a/b": "loss"}, group="g")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data.csv"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": "steps"}, "has no column 'steps'; did you mean 'step'. It has 'bs', 'run', 'step'"),
        ({"metrics": {"loss": "loss"}}, "a metric is named as in validation/loss"),
        ({"metrics": {}}, "nothing to import without a metric"),
        ({"status": "opt"}, "has the status 'adam': known ones are running, complete"),
        ({"separator": "::"}, "a separator is one character"),
        ({"goals": ["loss"]}, "cannot read the goal"),
    ],
)
def test_what_was_typed_wrong_is_said(tmp_path: Path, options: dict[str, object], words: str) -> None:
    given = {"batch_size": "bs", "step": "step", "trial": "run", "metrics": {"a/b": "loss"}} | options
    with pytest.raises((ColumnError, StudyError), match=words):
        import_csv(write(tmp_path, LONG), tmp_path / "run", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    options = {"batch_size": "bs", "step": "step", "metrics": {"a/b": "loss"}}
    with pytest.raises(DataError, match="there is no file"):
        import_csv(tmp_path / "none.csv", tmp_path / "run", **options)  # type: ignore[arg-type]
    for content in (b"", b"\xff\xfe\x00\x01", b"bs,step,loss\n", b"bs,step,loss\nx,y,z\n"):
        (tmp_path / "data.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"data\.csv"):
            import_csv(tmp_path / "data.csv", tmp_path / "run", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.lists(
                st.sampled_from(["", "64", "1e400", "-1", "nan", "a", '"', "0.5", "\x00", "<script>"]), max_size=5
            ),
            max_size=8,
        ).map(lambda rows: ("bs,run,step,loss\n" + "\n".join(map(",".join, rows))).encode()),
    )
)
def test_any_bytes_give_a_run_or_an_answer(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    run = tmp_path / str(len(list(tmp_path.iterdir())))
    try:
        made = import_csv(path, run, **columns(), metrics={"a/b": "loss"})  # type: ignore[arg-type]
    except BatchscopeError:
        assert not run.exists()
        return
    trials, evaluations = Store.open(run).tables()
    assert (len(trials), len(evaluations.collect())) == (made.trials, made.measurements)


def test_a_curve_gives_the_steps_that_were_given(tmp_path: Path) -> None:
    path = write(
        tmp_path, "bs,steps,lr\n64,1000,0.1\n128,501.5,0.2\n128,700,0.3\n256,,0.1\n0,5,1\n512,-3,1\n64,1000,0.1\n"
    )
    made = import_curve(path, tmp_path / "run", batch_size="bs", steps="steps", hyperparameters={"learning_rate": "lr"})
    trials, evaluations = Store.open(tmp_path / "run").tables()
    assert trials.select("trial", "batch_size", "status", "steps", "hyperparameter/learning_rate").rows() == [
        ("b64-1", 64, "complete", 1000, 0.1),
        ("b128-1", 128, "complete", 502, 0.2),
        ("b128-2", 128, "complete", 700, 0.3),
        ("b256-1", 256, "stopped", 0, 0.1),
    ]
    reached = evaluations.filter(pl.col("reached/goal") > 0.5).group_by("trial").agg(pl.col("step").min()).collect()
    assert dict(reached.iter_rows()) == {"b64-1": 1000, "b128-1": 502, "b128-2": 700}
    before = evaluations.filter(pl.col("reached/goal") <= 0.5).group_by("trial").agg(pl.col("step").max()).collect()
    assert dict(before.iter_rows()) == {"b64-1": 999, "b128-1": 501, "b128-2": 699}
    assert documents.load(Store.open(tmp_path / "run").study_text, "x")["goals"] == ["reached/goal > 0.5"]
    assert set(made.problems) == {
        "1 rows whose batch size is no whole number of at least 1, left out (first: 0)",
        "1 rows whose steps are no number of at least 1, left out (first: 512, -3.0)",
        "1 fractional steps, rounded up to the step that is whole (first: 128, 501.5)",
        "1 rows without steps, taken as trials that did not reach the target (first: 256)",
        "1 rows that repeat another exactly, left out",
        "2 rows that share a batch size, taken as trials of their own (first: trial b128-1, 128)",
    }


def test_a_curve_of_named_trials_in_groups(tmp_path: Path) -> None:
    path = write(tmp_path, "g,bs,t,steps\nx,64,a,10\nx,64,b,12\ny,64,a,5\nx,64,b,13\n")
    made = import_curve(path, tmp_path / "runs", batch_size="bs", steps="steps", trial="t", group="g")
    assert [run.name for run in made.runs] == ["x", "y"]
    assert Store.open(tmp_path / "runs" / "x").trials().select("trial", "steps").rows() == [("a", 10), ("b", 13)]


@pytest.mark.data
def test_the_curves_of_zhang_2024_come_in_whole(tmp_path: Path, data_dir: Path) -> None:
    source = data_dir / "zhang2024" / "derived_steps_to_target.csv"
    if not source.exists():
        pytest.skip("zhang2024 is not in the data folder")
    names = {"batch_size": "batch_size_sequences", "steps": "steps_to_goal", "group": "model_size"}
    made = import_curve(source, tmp_path / "runs", tuned=True, **names)  # type: ignore[arg-type]
    assert len(made.runs) == 5 and made.trials == 45 and not made.problems
    steps = Store.open(tmp_path / "runs" / "85M").trials()["steps"].to_list()
    assert steps == [46000, 23000, 13282, 7000, 3840, 2500, 1800, 1600, 1600]
    # The table of docs/import_export.md, with the authors' own fits.
    page = (Path(__file__).parents[2] / "docs" / "import_export.md").read_text()
    for model, theirs in {"85M": 745, "151M": 955, "302M": 1394, "604M": 1889, "1.2B": 2533}.items():
        name = next(run.name for run in made.runs if run.name.startswith(model))
        regimes = open_run(tmp_path / "runs" / name).steps_to_result().regimes
        found = regimes.critical_batch_size
        assert found.value and found.low and found.high and found.high < 2 * found.low
        shown = f"{found.value:,.0f} ({found.low:,.0f} to {found.high:,.0f})"
        row = next(line for line in page.splitlines() if line.startswith(f"| {model} |"))
        assert f"| {shown} |" in row and row.endswith(f"| {theirs:,} |")
        if regimes.law and regimes.law.law.sharpness == 1.0:
            assert regimes.law.batch_size_at_overhead(0.2, 256).value == pytest.approx(theirs, rel=0.03)


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_exported_tables_come_back_the_same(tmp_path: Path, file_format: Literal["csv", "parquet"]) -> None:
    with Store.create(tmp_path / "run", "workload: x/y\ngoals: ['validation/error < 0.1']\n", {}) as store:
        drive(store)
        rows, evaluations = (
            frame.with_columns(batch_size=pl.lit(32, pl.Int64), trial=pl.lit('odd, "name"'))
            for frame in (store.trials().head(1), store.measurements().collect().head(1))
        )
        rows = rows.with_columns(pl.lit("word").alias("hyperparameter/optimizer"), pl.lit("diverged").alias("status"))
        store.commit(rows, evaluations.with_columns(pl.lit(math.nan).alias("validation/error"), seconds=pl.lit(None)))
        written = export_tables(store, tmp_path / "out", file_format)
        with pytest.raises(StoreError, match="exists already"):
            export_tables(store, tmp_path / "out", file_format)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"measurements.{file_format}",
        "study.yaml",
        f"trials.{file_format}",
    ]
    made = import_tables(tmp_path / "out", tmp_path / "again")
    assert (made.trials, made.measurements) == (written.trials, written.measurements)
    first, second = Store.open(tmp_path / "run"), Store.open(tmp_path / "again")
    assert_frame_equal(first.trials(), second.trials())
    left, right = (one.measurements().sort("trial", "step").collect() for one in (first, second))
    assert_frame_equal(left, right)
    assert documents.load(second.study_text, "x")["workload"] == "x/y"


def test_tables_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks study\.yaml"):
        import_tables(tmp_path, tmp_path / "run")
    (tmp_path / "study.yaml").write_text("workload: x\n")
    with pytest.raises(DataError, match=r"neither trials\.parquet nor trials\.csv"):
        import_tables(tmp_path, tmp_path / "run")
    (tmp_path / "trials.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot read the trials"):
        import_tables(tmp_path, tmp_path / "run")
    (tmp_path / "trials.parquet").unlink()
    (tmp_path / "trials.csv").write_text("trial\na\n")
    (tmp_path / "measurements.csv").write_text("trial\na\n")
    with pytest.raises(StoreError, match="the table trials lacks"):
        import_tables(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_import_that_was_killed_leaves_no_run_and_is_done_again(tmp_path: Path) -> None:
    unfinished = tmp_path / ".run.importing"
    Store.create(unfinished, "imported: {}\n", {}).close()
    assert find_runs(tmp_path) == []
    options = {"batch_size": "bs", "step": "step", "trial": "run", "metrics": {"a/b": "loss"}}
    import_csv(write(tmp_path, LONG), tmp_path / "run", **options)  # type: ignore[arg-type]
    assert not unfinished.exists() and find_runs(tmp_path) == [tmp_path / "run"]


def test_published_rows_were_tuned_their_scatter_about_the_law_is_their_error(tmp_path: Path) -> None:
    sizes = [64, 128, 256, 512, 1024, 2048, 4096]
    wiggle = [1.02, 0.98, 1.01, 0.97, 1.03, 1.0, 0.99]
    steps = [round(1000 * (1 + 500 / size) * factor) for size, factor in zip(sizes, wiggle, strict=True)]
    path = write(tmp_path, "bs,steps\n" + "\n".join(f"{size},{step}" for size, step in zip(sizes, steps, strict=True)))
    import_curve(path, tmp_path / "searched", batch_size="bs", steps="steps")
    import_curve(path, tmp_path / "tuned", batch_size="bs", steps="steps", tuned=True)
    curve = open_run(tmp_path / "tuned").steps_to_result()
    table = curve.table
    assert curve.confirmed and table["steps"].to_list() == steps  # exact, as they were given
    assert table["tuned"].to_numpy() == pytest.approx(steps)
    assert (table["tuned_high"] / table["tuned_low"]).to_numpy().max() < 1.2
    critical = curve.regimes.critical_batch_size
    assert critical.low and critical.high and critical.low < 500 < critical.high < 1.5 * critical.low
    assert any("tuned before" in note for note in curve.notes) and not table["verdict"].count()
    wide = open_run(tmp_path / "searched").steps_to_result()
    assert not wide.confirmed and wide.table["verdict"].count()  # one point of a search each says little
    at = curve.regimes.at_overhead(0.2)
    assert at is not None and at.value == pytest.approx(0.2 * critical.value + 1.2 * 64, rel=0.05)  # type: ignore[operator]


def test_several_tuned_rows_of_a_batch_size_are_trainings_of_one_setting(tmp_path: Path) -> None:
    rows = [(size, round(step * factor)) for size, step in ((8, 400), (16, 220)) for factor in (0.9, 1.0, 1.1)]
    path = write(tmp_path, "bs,steps\n" + "\n".join(f"{size},{step}" for size, step in rows))
    import_curve(path, tmp_path / "run", batch_size="bs", steps="steps", tuned=True)
    first = open_run(tmp_path / "run").steps_to_result().table.row(0, named=True)
    assert (first["tuned_seeds"], first["tuned"]) == (3, pytest.approx(400, rel=0.01))
    assert first["tuned_low"] < 360 and first["tuned_high"] > 440


def test_a_curve_of_examples_or_epochs_is_one_of_steps(tmp_path: Path) -> None:
    path = write(tmp_path, "bs,examples,epochs\n8,801,0.8\n16,1600,1.6\n")
    import_curve(path, tmp_path / "examples", batch_size="bs", examples="examples")
    import_curve(path, tmp_path / "epochs", batch_size="bs", epochs="epochs", train_size=1000)
    found = [open_run(tmp_path / name).steps_to_result().table["steps"].to_list() for name in ("examples", "epochs")]
    assert found == [[101, 100], [100, 100]]
    for wrong in ({}, {"epochs": "epochs"}, {"examples": "examples", "epochs": "epochs"}):
        with pytest.raises(DataError, match="--epochs COL with --train-size"):
            import_curve(path, tmp_path / "no", batch_size="bs", **wrong)  # type: ignore[arg-type]
