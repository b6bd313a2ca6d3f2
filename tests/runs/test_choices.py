"""Recorded choices: a run goes on as it began, and another can be repeated bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from batchscope import runs
from batchscope.engine.choice import ProgramChoice
from batchscope.errors import StoreError, StudyError
from batchscope.runs import Run
from batchscope.runs.program_choices import Recorded, check_pins, joined, replayed
from engine.workbench import classification, study

AUTO = (
    "engine={program: auto, dtype: float32, pack_size: auto, threads: auto}",
    "batch_sizes=[4, 16]",
    "search.trials=5",
    "budget.steps=20",
)
TIMES = ("seconds", "train_seconds", "evaluation_seconds")


def do(folder: Path, *overrides: str, replay: Path | None = None) -> Run:
    return runs.run(study(*AUTO, *overrides), folder, workload=classification(), replay_choices=replay)


def content(run: Run) -> tuple[pl.DataFrame, pl.DataFrame]:
    trials = run.trials.drop(TIMES, strict=False).sort("trial")
    evaluations = run.measurements.drop(TIMES, strict=False).sort("trial", "step").collect()
    return trials, evaluations.select(sorted(evaluations.columns))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return do(tmp_path_factory.mktemp("first") / "run")


def copied(run: Run, folder: Path, **changes: object) -> Path:
    """A folder like that of a run, with other facts in its provenance."""
    shutil.copytree(run.folder, folder)
    path = folder / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.slow
def test_a_replayed_run_has_the_same_bits(first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a replayed choice is not measured")

    monkeypatch.setattr("batchscope.executors.worker.choose", never)
    again = do(tmp_path / "run", replay=first.folder)
    for ours, theirs in zip(content(again), content(first), strict=True):
        assert_frame_equal(ours, theirs, check_exact=True)
    for name in ("choices", "threads"):
        assert again.provenance[name] == first.provenance[name]
    assert again.warnings == []


def test_a_batch_size_that_was_not_run_is_named(first: Run, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no choices for batch size 8, 32 to replay, only for 4, 16"):
        do(tmp_path / "run", "batch_sizes=[4, 8, 32]", replay=first.folder)
    assert not (tmp_path / "run").exists()
    with pytest.raises(StoreError, match="no run folder"):
        do(tmp_path / "run", replay=tmp_path / "nothing")


def test_another_device_or_version_is_pointed_out(first: Run, tmp_path: Path) -> None:
    versions = first.provenance["versions"] | {"torch": "1.0"}
    old = copied(first, tmp_path / "old", device="cuda", versions=versions)
    run = do(tmp_path / "run", "batch_sizes=[4]", "search.trials=1", replay=old)
    assert len(run.warnings) == 2
    assert "made with device cuda, this run has cpu" in run.warnings[0]
    assert "made with torch 1.0" in run.warnings[1]


@pytest.mark.parametrize(
    "choices",
    [
        {"4": {"program": "tarball", "pack_size": 1}},
        {"4": {"pack": 1}},
        [4],
        {"4": {"program": "loop", "pack_size": 0}},
        {"four": {"program": "loop", "pack_size": 1}},
    ],
)
def test_choices_that_are_none_are_refused(choices: object, first: Run, tmp_path: Path) -> None:
    old = copied(first, tmp_path / "old", choices=choices)
    with pytest.raises(StoreError, match=r"provenance\.json: choices.*put the right file back"):
        replayed(old, study(*AUTO), "cpu")


def test_a_pin_that_contradicts_what_was_recorded_is_refused() -> None:
    recorded = Recorded(Path("runs/mine"), {4: ProgramChoice("vmap", 2)}, 1)
    check_pins(study(*AUTO), recorded)
    check_pins(study(*AUTO, "engine={program: vmap, pack_size: 2, threads: 1}"), recorded)
    check_pins(study(*AUTO, "batch_sizes=[8]", "engine.pack_size=3"), recorded)  # 8 is not begun
    with pytest.raises(StudyError) as caught:
        check_pins(study(*AUTO, "engine={program: loop, pack_size: 3, threads: 2}"), recorded)
    for fault in ("has engine.program=vmap, not loop", "has engine.pack_size=2, not 3", "has engine.threads=1, not 2"):
        assert fault in str(caught.value)


def test_what_a_folder_began_with_stays_and_the_rest_is_replayed() -> None:
    own = Recorded(Path("mine"), {4: ProgramChoice("vmap", 2, timings={"vmap-2": 1.0})}, 1)
    other = Recorded(Path("theirs"), {4: ProgramChoice("vmap", 2), 16: ProgramChoice("loop", 1)}, 1, ("a remark",))
    found = joined(own, other)
    assert found.choices == {4: own.choices[4], 16: other.choices[16]}
    assert (found.threads, found.remarks, found.folder) == (1, ("a remark",), Path("mine"))
    with pytest.raises(StudyError, match="mine has begun batch size 4 with vmap x 2, and theirs has vmap x 3"):
        joined(own, Recorded(Path("theirs"), {4: ProgramChoice("vmap", 3)}, 1))
    with pytest.raises(StudyError, match="mine has begun with 1 threads a worker, and theirs has 2"):
        joined(own, Recorded(Path("theirs"), {16: ProgramChoice("vmap", 3)}, 2))


def test_a_run_goes_on_as_it_began(first: Run, tmp_path: Path) -> None:
    old = copied(first, tmp_path / "run", threads=7)
    on = do(old, "search.trials=6", "batch_sizes=[4]")
    assert on.provenance["choices"] == first.provenance["choices"] and on.provenance["threads"] == 7
    assert len(on.trials) == len(first.trials.filter(batch_size=4)) + 1  # batch size 16 is not of this study
