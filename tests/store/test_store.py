"""The run folder: what is committed comes back, once, whole, and typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batchscope.store.segments
import batchscope.store.store
from batchscope.errors import StoreError
from batchscope.store import Store, find_runs
from batchscope.store.disk import Files
from batchscope.store.schema import OLD_STATUS, STATUSES
from store.store_units import BATCH_SIZES, RUNGS, TRIALS, content, drive, trial_id, unit, whole
from store.store_units import EVALUATIONS as EVALUATIONS_A_RUNG
from store.store_units import units as all_units


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "mine"


def create(folder: Path) -> Store:
    return Store.create(folder, "workload: digits/softmax\n", {"seed": 0})


def assert_whole(store: Store, count: int) -> None:
    trials, evaluations = content(store)
    expected_trials, expected_evaluations = whole(count)
    assert_frame_equal(trials, expected_trials, check_column_order=False)
    assert_frame_equal(evaluations, expected_evaluations, check_column_order=False)


def test_a_new_run_is_empty_and_knows_what_was_asked(folder: Path) -> None:
    with create(folder):
        pass
    store = Store.open(folder)
    assert store.study_text == "workload: digits/softmax\n"
    assert store.provenance == {"schema": 2, "seed": 0, "run": store.provenance["run"]}
    trials, evaluations = content(store)
    assert trials.is_empty() and evaluations.is_empty()
    assert trials.schema["trial"] == pl.String and evaluations.schema["step"] == pl.Int64


def test_every_prefix_of_commits_reads_back_as_it_was_written(folder: Path) -> None:
    with create(folder) as store:
        reader = Store.open(folder)
        for count, key in enumerate(all_units(), 1):
            store.commit(*unit(*key))
            if count % 5 == 0:
                assert_whole(store, count)
                assert_whole(reader, count)
    assert_whole(Store.open(folder), len(list(all_units())))


def test_merging_changes_nothing_but_the_number_of_files(folder: Path) -> None:
    with create(folder) as store:
        reader = Store.open(folder)
        drive(store)
        assert_whole(store, len(list(all_units())))
        assert_whole(reader, len(list(all_units())))
    assert len(list((folder / "trials").iterdir())) == len(BATCH_SIZES)
    assert len(list((folder / "measurements").iterdir())) == len(BATCH_SIZES)


def test_commits_merge_themselves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchscope.store.store, "MERGE_PAIRS", 4)
    with create(folder) as store:
        for count, key in enumerate(all_units(), 1):
            store.commit(*unit(*key))
            assert len(list((folder / "trials").glob(f"b{key[0]}-*"))) <= 4
            assert_whole(store, count)


def test_what_was_read_once_is_not_read_again_until_there_is_more(folder: Path) -> None:
    read: list[Path] = []

    class Watched(Files):
        def _read(self, path: Path) -> bytes:
            read.append(path)
            return super()._read(path)

    with create(folder) as store:
        store.commit(*unit(8, 0, 0))
        reader = Store.open(folder, files=Watched)
        first = content(reader)
        assert any(path.suffix == ".parquet" for path in read)
        read.clear()
        assert_frame_equal(content(reader)[1], first[1])
        assert not read
        store.commit(*unit(8, 0, 1))
        assert_frame_equal(content(reader)[1], content(Store.open(folder))[1])
        assert len(content(reader)[1]) == 2 * len(first[1])


def test_large_segments_are_scanned_and_never_merged_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchscope.store.segments, "LARGE_BYTES", 1)
    with create(folder) as store:
        for count, key in enumerate(list(all_units())[:7], 1):
            store.commit(*unit(*key))
            store.compact()
            assert len(list((folder / "trials").iterdir())) == count
        assert_whole(store, 7)
        assert "SCAN" in store.measurements().explain()


def test_committing_again_is_harmless(folder: Path) -> None:
    with create(folder) as store:
        store.commit(*unit(8, 0, 0))
        store.commit(*unit(8, 0, 1))
        before = sorted(path.name for path in folder.rglob("*"))
        store.commit(*unit(8, 0, 0))
        store.commit(*unit(8, 0, 1))
        assert sorted(path.name for path in folder.rglob("*")) == before


def test_a_longer_unit_over_committed_steps_adds_only_what_is_new(folder: Path) -> None:
    with create(folder) as store:
        store.commit(*unit(8, 0, 0))
        rows, evaluations = unit(8, 0, 1)
        store.commit(
            rows, pl.concat([unit(8, 0, 0)[1].with_columns(pl.lit(99.0).alias("validation/error")), evaluations])
        )
        measured = store.measurements().collect()
        assert len(measured) == TRIALS * 10
        assert measured["validation/error"].max() != 99.0


def test_a_status_can_change_without_new_steps(folder: Path) -> None:
    rows, evaluations = unit(8, 0, 0)
    for again in (rows.with_columns(status=pl.lit("stopped")), rows, rows.with_columns(index=pl.lit(7, pl.Int64))):
        with Store.open(folder, write=True) if folder.exists() else create(folder) as store:
            if store.trials().is_empty():
                store.commit(rows, evaluations)
            store.commit(again, evaluations.clear())
            store.compact()
            assert_frame_equal(store.trials().sort("trial"), again.sort("trial"), check_column_order=False)
            assert len(store.measurements().collect()) == len(evaluations)


def test_columns_may_differ_between_commits(folder: Path) -> None:
    rows, evaluations = unit(8, 0, 0)
    other_rows, other_evaluations = unit(16, 0, 0)
    other_rows = other_rows.rename({"hyperparameter/learning_rate": "hyperparameter/optimizer"}).with_columns(
        pl.lit("adam").alias("hyperparameter/optimizer")
    )
    with create(folder) as store:
        store.commit(rows, evaluations)
        store.commit(other_rows, other_evaluations.rename({"validation/error": "train/loss"}))
        trials, measured = store.tables()
        assert trials.schema["hyperparameter/learning_rate"] == pl.Float64
        assert trials["hyperparameter/optimizer"].to_list() == [None] * TRIALS + ["adam"] * TRIALS
        names = measured.collect_schema().names()
        assert names == [
            "trial",
            "batch_size",
            "step",
            "examples",
            "epoch",
            "train/loss",
            "validation/error",
            "seconds",
        ]
        assert measured.collect()["train/loss"].null_count() == len(evaluations)
        only, part = store.tables(16)
        assert set(only["batch_size"]) == {16} and set(part.collect()["batch_size"]) == {16}


def test_numbers_that_were_integers_are_stored_as_the_schema_says(folder: Path) -> None:
    rows, evaluations = unit(8, 0, 0)
    with create(folder) as store:
        store.commit(
            rows.with_columns(pl.col("steps", "batch_size").cast(pl.Int32), pl.lit(1).alias("hyperparameter/k")),
            evaluations.with_columns(pl.col("validation/error").cast(pl.Float32), pl.col("step").cast(pl.UInt16)),
        )
        trials, measured = store.tables()
    assert trials.schema["steps"] == pl.Int64 and trials.schema["hyperparameter/k"] == pl.Float64
    assert measured.collect_schema()["validation/error"] == pl.Float64


ROWS, EVALUATIONS = unit(8, 0, 0)


@pytest.mark.parametrize(
    ("rows", "evaluations", "words"),
    [
        (ROWS.drop("status"), EVALUATIONS, "lacks 'status'"),
        (ROWS.with_columns(extra=pl.lit(1)), EVALUATIONS, "may not have 'extra'"),
        (
            ROWS.with_columns(status=pl.lit("done")),
            EVALUATIONS,
            "running, complete, diverged, stopped, pruned; got 'done'",
        ),
        (ROWS.with_columns(steps=pl.lit("many")), EVALUATIONS, "wrong type"),
        (ROWS.with_columns(steps=pl.lit(None, pl.Int64)), EVALUATIONS, "needs a value in"),
        (ROWS.with_columns(batch_size=pl.lit(0)), EVALUATIONS, "batch size of at least 1"),
        (ROWS.with_columns(trial=pl.lit("a\x1b[2J")), EVALUATIONS, "printable"),
        (pl.concat([ROWS, ROWS]), EVALUATIONS, "one trial twice"),
        (ROWS, pl.concat([EVALUATIONS, EVALUATIONS]), "one step of a trial twice"),
        (ROWS, EVALUATIONS.with_columns(step=pl.col("step") + 1), "beyond the steps"),
        (ROWS, EVALUATIONS.with_columns(trial=pl.lit("other")).unique("step"), "a trial that is not in it"),
        (ROWS, EVALUATIONS.with_columns(batch_size=pl.lit(4)), "a trial that is not in it"),
    ],
)
def test_a_commit_that_breaks_a_rule_is_refused_and_leaves_nothing(
    folder: Path, rows: pl.DataFrame, evaluations: pl.DataFrame, words: str
) -> None:
    with create(folder) as store:
        with pytest.raises(StoreError, match=words):
            store.commit(rows, evaluations)
        assert store.trials().is_empty()
        store.commit(ROWS, EVALUATIONS)  # and the store goes on to work
        assert len(store.trials()) == len(ROWS)


def test_not_a_number_is_a_value_and_null_is_none(folder: Path) -> None:
    values = pl.Series("validation/error", [float("nan"), float("inf"), None, 1.0, -0.0] * TRIALS)
    with create(folder) as store:
        store.commit(ROWS, EVALUATIONS.with_columns(values))
        got = store.measurements().sort("trial", "step").collect()["validation/error"]
    expected = EVALUATIONS.with_columns(values).sort("trial", "step")["validation/error"]
    assert got.equals(expected, null_equal=True)


def test_create_refuses_a_run_and_a_folder_of_other_things(folder: Path, tmp_path: Path) -> None:
    create(folder).close()
    with pytest.raises(StoreError, match="holds a run already"):
        create(folder)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="not empty"):
        create(tmp_path)
    with pytest.raises(StoreError, match="is a file"):
        create(tmp_path / "thesis.tex")
    assert not (tmp_path / "lock").exists()


def test_an_unfinished_creation_is_finished(folder: Path) -> None:
    create(folder).close()
    (folder / "study.yaml").unlink()
    create(folder).close()
    assert Store.open(folder).study_text


def test_open_says_what_is_no_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        Store.open(folder)
    with pytest.raises(StoreError, match=r"it has no study\.yaml"):
        Store.open(tmp_path)
    with create(folder) as store:
        store.commit(ROWS, EVALUATIONS)
    (folder / "study.yaml").unlink()
    with pytest.raises(StoreError, match=r"put its study\.yaml back"):
        Store.open(folder)
    with pytest.raises(StoreError, match=r"put back the study\.yaml"):
        create(folder)


def test_a_newer_version_is_refused_in_words(folder: Path) -> None:
    create(folder).close()
    for version, words in ((3, "pip install --upgrade"), ("1", "damaged"), (None, "damaged"), (True, "damaged")):
        (folder / "provenance.json").write_text(json.dumps({"schema": version}))
        with pytest.raises(StoreError, match=words):
            Store.open(folder)
    (folder / "provenance.json").write_text("{")
    with pytest.raises(StoreError, match=r"provenance\.json is missing or damaged"):
        Store.open(folder, write=True)
    assert not (folder / "lock").exists()


def test_a_newer_segment_is_refused_in_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(folder) as store:
        monkeypatch.setattr(batchscope.store.segments, "SCHEMA_VERSION", 3)
        store.commit(ROWS, EVALUATIONS)
    monkeypatch.setattr(batchscope.store.segments, "SCHEMA_VERSION", 2)
    with pytest.raises(StoreError, match="schema version 3"):
        Store.open(folder).trials()


def test_a_reader_cannot_change_the_run(folder: Path) -> None:
    create(folder).close()
    store = Store.open(folder)
    changes: list[Callable[[], None]] = [
        lambda: store.commit(ROWS, EVALUATIONS),
        lambda: store.compact(),
        lambda: store.write_study(""),
        lambda: store.drop_states(["a"]),
    ]
    for change in changes:
        with pytest.raises(StoreError, match="open for reading"):
            change()
    store.write_summary({"schema": 1})
    store.write_report("<html></html>")
    assert json.loads((folder / "summary.json").read_text()) == {"schema": 1}
    with pytest.raises(ValueError, match="JSON"):
        store.write_summary({"value": float("nan")})


def test_a_study_may_not_be_huge_or_binary(folder: Path) -> None:
    with create(folder) as store:
        with pytest.raises(StoreError, match="make it shorter"):
            store.write_study("x" * (2**20 + 1))
        store.write_study("goals: []\n")
    assert Store.open(folder).study_text == "goals: []\n"
    (folder / "study.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match="no text"):
        _ = Store.open(folder).study_text
    (folder / "study.yaml").write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(StoreError, match="larger than"):
        _ = Store.open(folder).study_text


def test_other_tools_read_the_folder_as_it_is(folder: Path) -> None:
    with create(folder) as store:
        drive(store)
        expected = content(store)
    evaluations = pl.read_parquet(folder / "measurements" / "*.parquet").sort("trial", "step")
    trials = pl.read_parquet(folder / "trials" / "*.parquet").sort("trial")
    assert_frame_equal(evaluations, expected[1], check_column_order=False)
    assert_frame_equal(trials.drop("since", "commit"), expected[0], check_column_order=False)


def test_find_runs_searches_below(tmp_path: Path) -> None:
    for name in ("mnist/cnn/sgd", "mnist/cnn/nesterov", "lm1b/lstm/sgd"):
        create(tmp_path / name).close()
    (tmp_path / "notes").mkdir()
    assert [str(run.relative_to(tmp_path)) for run in find_runs(tmp_path)] == [
        "lm1b/lstm/sgd",
        "mnist/cnn/nesterov",
        "mnist/cnn/sgd",
    ]
    assert find_runs(tmp_path / "mnist/cnn/sgd") == [tmp_path / "mnist/cnn/sgd"]
    assert find_runs(tmp_path / "nothing") == []


def test_the_last_rung_counts_per_trial(folder: Path) -> None:
    with create(folder) as store:
        store.commit(*unit(8, 0, 0))
        store.commit(*unit(8, 0, 1))
        store.commit(*unit(8, 1, 0))
        steps = dict(store.trials().select("trial", "steps").iter_rows())
    assert steps[trial_id(8, 0)] == RUNGS[1] and steps[trial_id(8, TRIALS)] == RUNGS[0]


def test_a_folder_of_schema_1_is_read_with_the_status_that_replaced_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(folder) as store, monkeypatch.context() as old:
        old.setattr(batchscope.store.segments, "SCHEMA_VERSION", 1)
        old.setattr(batchscope.store.schema, "STATUSES", (*STATUSES, OLD_STATUS[0]))
        store.commit(ROWS.with_columns(status=pl.lit(OLD_STATUS[0])), EVALUATIONS)
    assert set(Store.open(folder).trials()["status"]) == {"stopped"}


def test_small_segments_are_merged_by_their_total_also_across_restarts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many batch sizes with a few commits each, by drivers that are soon killed, are as many files to read."""
    monkeypatch.setattr(batchscope.store.store, "MERGE_PAIRS", 6)
    create(folder).close()
    sizes, most = range(8, 11), 0
    for rung in range(len(RUNGS)):
        for pack in range(4):
            with Store.open(folder, write=True) as store:
                for size in sizes:
                    store.commit(*unit(size, pack, rung))
                    most = max(most, len(list((folder / "trials").iterdir())))
    assert most <= 6 + len(sizes)
    trials, evaluations = content(Store.open(folder))
    assert len(trials) == len(sizes) * 4 * TRIALS and len(evaluations) == len(trials) * len(RUNGS) * EVALUATIONS_A_RUNG
    assert set(trials["steps"]) == {RUNGS[-1]}


def test_many_small_segments_are_read_in_one_scan_for_every_set_of_columns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(folder) as store:
        for size in range(8, 20):
            rows, evaluations = unit(size, 0, 0)
            metric = "validation/error" if size % 2 else "validation/loss"
            store.commit(rows, evaluations.rename({"validation/error": metric}))
    scans: list[object] = []
    read = pl.read_parquet

    def counted(source: object, **options: object) -> pl.DataFrame:
        scans.extend([source] if isinstance(source, list) else [])
        return read(source, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pl, "read_parquet", counted)
    evaluations = content(Store.open(folder))[1]
    assert len(scans) == 2 + 1  # and of trials one for all of them
    expected = pl.concat([unit(size, 0, 0)[1] for size in range(8, 20)]).sort("trial", "step")["validation/error"]
    assert evaluations.select(pl.coalesce("validation/error", "validation/loss")).to_series().equals(expected)
    assert (evaluations["validation/error"].is_null() == (evaluations["batch_size"] % 2 == 0)).all()
