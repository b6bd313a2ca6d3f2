"""Beside a driver: a second one is refused or takes over from the dead, readers see whole units at any moment."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
import pytest

import batchscope as bs
from batchscope import runs
from batchscope.cli.main import DONE, FAILED, invoke
from batchscope.errors import AnalysisError, StoreError
from batchscope.plan.rungs import Grid
from batchscope.spec.study import Study
from batchscope.store import Store
from batchscope.store.disk import Files
from batchscope.store.lock import STALE_SECONDS, Owner
from runs.same import assert_same_run

STUDY = """
workload: noisy_quadratic/8
batch_sizes: [4, 16]
search:
  trials: 6
  space: {learning_rate: {min: 0.01, max: 1, scale: log}, momentum: 0.9}
  confirm: {seeds: 1}
goals: ["validation/loss < 0.1"]
budget: {steps: 60}
evaluation: {ratio: 1.2}
engine: {program: loop, pack_size: 2, threads: 1}
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    (folder / "study.yaml").write_text(STUDY)
    runs.run(Study.from_text(STUDY), folder / "run", workers=0)
    return folder / "run"


def command(good: Path, folder: Path) -> list[str]:
    return ["run", str(good.parent / "study.yaml"), "-o", str(folder), "--workers", "0"]


def leave_lock(folder: Path, age: float, **changes: object) -> Owner:
    """A lock as another driver left it, last touched so many seconds ago."""
    owner = replace(Owner.this_process(), **changes)  # type: ignore[arg-type]
    (folder / "lock").write_text(json.dumps(asdict(owner)))
    os.utime(folder / "lock", (time.time() - age,) * 2)
    return owner


def test_the_second_driver_is_refused_with_host_and_process_of_the_first(
    good: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Store.open(good, write=True):
        before = {path: path.read_bytes() for path in good.rglob("*") if path.is_file()}
        assert invoke(command(good, good)) == FAILED
        said = capfd.readouterr().err
        assert f"another driver works on {good}: {Owner.this_process().host}, process {os.getpid()}" in said
        assert "Wait for it, stop it, or choose another folder" in said and "Traceback" not in said
        assert invoke(["status", str(good)]) == DONE
        assert f"process {os.getpid()}" in capfd.readouterr().out
        assert {path: path.read_bytes() for path in good.rglob("*") if path.is_file()} == before
    assert invoke(command(good, good)) == DONE


@pytest.mark.parametrize(
    ("age", "changes", "taken_over"),
    [
        (0, {"started": "1"}, True),  # a process of this machine that is dead, or whose number was given again
        (10**6, {"started": "1"}, True),
        (STALE_SECONDS - 20, {"host": "node-7", "realm": "elsewhere", "pid": 4711}, False),
        (STALE_SECONDS + 20, {"host": "node-7", "realm": "elsewhere", "pid": 4711}, True),
    ],
)
def test_a_stale_lock_is_taken_over_and_a_live_one_is_not(
    good: Path, capfd: pytest.CaptureFixture[str], age: float, changes: dict[str, object], taken_over: bool
) -> None:
    leave_lock(good, age, **changes)
    status = invoke(command(good, good))
    said = capfd.readouterr().err
    if taken_over:
        assert status == DONE and not list(good.glob("lock*"))
    else:
        assert status == FAILED and "node-7, process 4711" in said
        (good / "lock").unlink()


@pytest.mark.slow
def test_a_driver_whose_lock_was_taken_stops_and_spoils_nothing(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As one that was suspended for minutes: another has taken over when it wakes up."""
    monkeypatch.setattr("batchscope.runs.driver.COMMIT_SECONDS", 0.0)
    commit, count = Store.commit, iter(range(100))

    def late(store: Store, *tables: pl.DataFrame) -> None:
        if next(count) == 2:
            leave_lock(tmp_path / "run", 0, host="node-7", realm="elsewhere", pid=4711)
        commit(store, *tables)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", late)
        assert invoke(command(good, tmp_path / "run")) == FAILED
    said = capfd.readouterr().err
    assert "node-7, process 4711, has taken over" in said and "what it committed is safe" in said
    assert Owner.read(tmp_path / "run" / "lock") is not None  # the other's lock is left alone
    (tmp_path / "run" / "lock").unlink()
    assert invoke(command(good, tmp_path / "run")) == DONE
    assert_same_run(tmp_path / "run", good)


def read(folder: Path, *, summarise: bool = True) -> int:
    """What readers do, beside a driver; how many evaluations they saw, all of them of whole units."""
    try:
        run = bs.open_run(folder)
    except StoreError as error:
        assert "is no run folder: it has no study.yaml" in str(error) or "no such folder" in str(error)
        return 0
    if summarise:
        run.status()
        try:
            run.summary()
        except AnalysisError as error:
            assert "no trials yet" in str(error)
    assert run.warnings == []
    trials, evaluations = Store.open(folder).tables()
    seen = evaluations.collect()
    assert not seen.select(pl.struct("trial", "step").is_duplicated().any()).item()
    known = dict(trials.select("trial", "steps").iter_rows())
    steps = {name: group["step"].to_list() for (name,), group in seen.group_by("trial", maintain_order=True)}
    assert set(steps) == set(known)
    grid = Grid(1.2, 1, 60).evaluations()
    for trial, found in steps.items():
        assert sorted(found) == [evaluation for evaluation in grid if evaluation <= known[trial]]
    return len(seen)


@pytest.mark.slow
def test_between_any_two_writes_of_a_driver_a_reader_sees_whole_units(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchscope.runs.driver.COMMIT_SECONDS", 0.0)
    seen: list[int] = []

    def counted(primitive: Callable[..., None]) -> Callable[..., None]:
        def beside(files: Files, *arguments: object) -> None:
            primitive(files, *arguments)
            seen.append(read(tmp_path / "run", summarise=len(seen) % 10 == 0))

        return beside

    for name in ("_rename", "_unlink"):  # what changes the names that a reader goes by
        monkeypatch.setattr(Files, name, counted(getattr(Files, name)))
    runs.run(Study.from_text(STUDY), tmp_path / "run", workers=0)
    assert seen == sorted(seen) and len(set(seen)) > 8  # what was seen once is seen ever after
    assert_same_run(tmp_path / "run", good)


@pytest.mark.slow
def test_readers_in_a_loop_beside_a_driver_see_whole_units(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchscope.runs.driver.COMMIT_SECONDS", 0.0)
    monkeypatch.setattr("batchscope.store.store.MERGE_PAIRS", 3)
    driver = threading.Thread(target=runs.run, args=(Study.from_text(STUDY), tmp_path / "run"), kwargs={"workers": 0})
    driver.start()
    seen = []
    while driver.is_alive():
        seen.append(read(tmp_path / "run"))
        if seen[-1]:
            assert bs.open_run(tmp_path / "run").write_report(live=True).exists()
    driver.join()
    assert seen == sorted(seen)
    runs.run(Study.from_text(STUDY), tmp_path / "run", workers=0)  # the last report is the driver's
    assert_same_run(tmp_path / "run", good)
