"""Faults of the disk: found, named, at most the units in them lost, and never a wrong table."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batchscope.store.store
from batchscope.errors import StoreError
from batchscope.store import Store
from batchscope.store.disk import Files
from store.store_units import RUNGS, TRIALS, content, drive, trial_id, unit, whole
from store.store_units import units as all_units

COUNT = len(list(all_units()))


class KilledError(BaseException):
    """Stands for the death of the process: nothing in the package may catch it."""


class FaultyFiles(Files):
    """Calls ``self.fault(primitive, path)`` before each primitive; what it raises is what the disk did."""

    def __init__(self, root: Path, fault: Callable[[str, Path], None]) -> None:
        super().__init__(root)
        self.fault = fault

    def _write(self, path: Path, data: bytes) -> None:
        try:
            self.fault("write", path)
        except BaseException:
            path.write_bytes(data[: len(data) // 2])  # torn
            raise
        super()._write(path, data)

    def _rename(self, source: Path, target: Path) -> None:
        self.fault("rename", target)
        super()._rename(source, target)

    def _sync(self, descriptor: int) -> None:
        self.fault("sync", Path(str(descriptor)))
        super()._sync(descriptor)

    def _read(self, path: Path) -> bytes:
        self.fault("read", path)
        return super()._read(path)

    def _unlink(self, path: Path) -> None:
        self.fault("unlink", path)
        super()._unlink(path)


def at(moment: int, error: BaseException, primitive: str | None = None) -> Callable[[str, Path], None]:
    """A fault at the given count of primitives, none before and none after."""
    count = iter(range(10**9))

    def fault(name: str, path: Path) -> None:
        if primitive in {None, name} and next(count) == moment:
            raise error

    return fault


def faulty(fault: Callable[[str, Path], None]) -> Callable[[Path], Files]:
    return lambda root: FaultyFiles(root, fault)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Store.create(tmp_path / "run", "workload: x\n", {}).close()
    return tmp_path / "run"


def assert_content(store: Store, count: int) -> None:
    for got, expected in zip(content(store), whole(count), strict=True):
        if count:
            assert_frame_equal(got, expected, check_column_order=False)
        assert count or got.is_empty()


def assert_prefix(folder: Path, counts: tuple[int, ...]) -> None:
    """A reader, then a driver, see exactly the units of one of these counts."""
    rows = len(content(Store.open(folder))[1])
    (count,) = {min(count, COUNT) for count in counts if len(whole(count)[1]) == rows}
    assert_content(Store.open(folder), count)
    with Store.open(folder, write=True) as store:
        assert_content(store, count)
        assert store.warnings == []


@pytest.mark.parametrize(("start", "stride"), [(0, 41), pytest.param(0, 1, marks=pytest.mark.slow)])
def test_death_at_every_primitive_leaves_whole_units(
    tmp_path: Path, start: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchscope.store.store, "MERGE_PAIRS", 5)
    for moment in range(start, 10**6, stride):
        folder = tmp_path / str(moment)
        Store.create(folder, "workload: x\n", {}).close()
        done: list[tuple[int, int, int]] = []
        try:
            with Store.open(folder, write=True, files=faulty(at(moment, KilledError()))) as store:
                drive(store, done)
            break
        except KilledError:
            assert_prefix(folder, (len(done), len(done) + 1))
        with Store.open(folder, write=True) as store:
            drive(store)
            assert_content(store, COUNT)
        assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]
    assert moment > 100


@pytest.mark.parametrize(
    ("primitive", "code"),
    [("write", errno.ENOSPC), ("sync", errno.EIO), ("rename", errno.EROFS), ("unlink", errno.EACCES)],
)
def test_a_refusing_disk_is_named_and_costs_no_committed_unit(folder: Path, primitive: str, code: int) -> None:
    for moment in (0, 3, 20):
        with Store.open(folder, write=True, files=faulty(at(moment, OSError(code, "x"), primitive))) as store:
            before = len(store.trials())
            try:
                drive(store)
            except StoreError as error:
                assert os.strerror(code) in str(error) and str(folder) in str(error)
                if primitive != "unlink":  # a leftover that cannot be removed is ignored; all else ends the driver
                    with pytest.raises(StoreError, match="failed: open it again"):
                        store.commit(*unit(8, 0, 0))
        assert before <= len(Store.open(folder).trials())
        assert_prefix(folder, tuple(range(COUNT + 1)))
    with Store.open(folder, write=True) as store:
        drive(store)
        assert_content(store, COUNT)


def damage(path: Path, kind: str, random: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if kind == "flip":
        place = random.randrange(len(data))
        data[place] ^= 1 << random.randrange(8)
    elif kind == "truncate":
        del data[random.randrange(len(data)) :]
    elif kind == "empty":
        data.clear()
    path.write_bytes(data)
    if kind == "gone":
        path.unlink()


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("half", ["trials", "measurements"])
@pytest.mark.parametrize("kind", ["flip", "truncate", "empty", "gone"])
def test_a_damaged_segment_is_named_set_aside_and_run_again(folder: Path, half: str, kind: str, merged: bool) -> None:
    generator = random.Random(f"{half} {kind} {merged}")
    with Store.open(folder, write=True) as store:
        for key in all_units():
            store.commit(*unit(*key))
        if merged:
            store.compact(8)
        good_trials, good_evaluations = content(store)
    victim = generator.choice(sorted((folder / half).glob("b8-*" if merged else "b16-*")))
    sealed = victim.read_bytes()
    damage(victim, kind, generator)
    silent = kind == "gone" and half == "trials"  # then nothing is left that names it

    reader = Store.open(folder)
    trials, evaluations = content(reader)
    assert bool(reader.warnings) is not silent and (silent or victim.name.split("-")[0] in reader.warnings[0])
    steps = dict(trials.select("trial", "steps").iter_rows())
    assert evaluations.join(good_evaluations, on=evaluations.columns, how="semi").equals(
        evaluations
    )  # never a wrong value
    assert all(steps[trial] >= step for trial, step in evaluations.select("trial", "step").iter_rows())
    per_trial = dict(evaluations.group_by("trial").len().iter_rows())
    assert all(per_trial[trial] == 5 * (1 + RUNGS.index(reached)) for trial, reached in steps.items())
    assert set(good_trials["trial"]) - set(steps) or sum(steps.values()) < good_trials["steps"].sum()

    with Store.open(folder, write=True) as store:
        assert_frame_equal(content(store)[0], trials, check_column_order=False)
        assert_frame_equal(content(store)[1], evaluations, check_column_order=False)
        assert bool(store.warnings) is not silent
        drive(store)
        assert_frame_equal(content(store)[0], good_trials, check_column_order=False)
        assert_frame_equal(content(store)[1], good_evaluations, check_column_order=False)
    aside = list((folder / "damaged").glob("*")) if (folder / "damaged").exists() else []
    if not silent:
        assert {path.name.split("-")[0] for path in aside} <= {"trials", "measurements"}
        assert kind == "gone" or any(path.name == f"{half}-{victim.name}" for path in aside)
    assert sealed and Store.open(folder).warnings == []


def test_a_gap_takes_back_what_came_after_it(folder: Path) -> None:
    with Store.open(folder, write=True) as store:
        for rung in range(3):
            store.commit(*unit(8, 0, rung))
            if rung == 0:
                before = set((folder / "trials").iterdir())
            elif rung == 1:
                (middle,) = set((folder / "trials").iterdir()) - before
    middle.write_bytes(b"PAR1 not")
    for write in (False, True):
        with Store.open(folder, write=write) as store:
            trials, evaluations = content(store)
            assert set(trials["steps"]) == {RUNGS[0]} and len(evaluations) == 5 * TRIALS
    with Store.open(folder, write=True) as store:  # and the rows beyond the gap do not come back
        store.commit(*unit(8, 0, 1))
        assert set(store.trials()["steps"]) == {RUNGS[1]}
        assert len(store.measurements().collect()) == 10 * TRIALS


def test_two_drivers_at_once_would_still_measure_every_step_once(folder: Path) -> None:
    """A driver that was suspended past its lease can commit once more before it notices."""
    with Store.open(folder, write=True) as store:
        store.commit(*unit(8, 0, 0))
        snapshot = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
        store.commit(*unit(8, 0, 1))
        theirs = {path: path.read_bytes() for path in folder.rglob("*.parquet") if path not in snapshot}
    for path in theirs:
        path.unlink()
    with Store.open(folder, write=True) as store:
        rows, evaluations = unit(8, 0, 1)
        store.commit(rows, evaluations.with_columns(seconds=pl.lit(0.75)))
    for path, data in theirs.items():
        path.write_bytes(data)
    for write in (False, True):
        with Store.open(folder, write=write) as store:
            trials, evaluations = content(store)
            assert len(trials) == TRIALS and len(evaluations) == 10 * TRIALS
            assert not evaluations.select(pl.struct("trial", "step").is_duplicated().any()).item()
    assert len(list((folder / "trials").iterdir())) == 1


def test_a_reader_beside_a_merging_driver_retries(folder: Path) -> None:
    with Store.open(folder, write=True) as store:
        for key in list(all_units())[:6]:
            store.commit(*unit(*key))

        def merge_under_the_reader(primitive: str, path: Path) -> None:
            if path.parent.name == "measurements" and len(list(path.parent.iterdir())) > 1:
                store.compact()

        reader = Store.open(folder, files=faulty(merge_under_the_reader))
        assert_content(reader, 6)
        assert reader.warnings == []


def test_a_segment_that_always_vanishes_is_no_endless_loop(folder: Path) -> None:
    with Store.open(folder, write=True) as store:
        store.commit(*unit(8, 0, 0))

    def vanish(primitive: str, path: Path) -> None:
        if path.suffix == ".parquet":
            raise FileNotFoundError(2, "gone", str(path))

    with pytest.raises(StoreError, match="vanishes at every attempt"):
        Store.open(folder, files=faulty(vanish)).trials()


def test_an_unreadable_segment_is_named(folder: Path) -> None:
    with Store.open(folder, write=True) as store:
        store.commit(*unit(8, 0, 0))
    with pytest.raises(StoreError, match="cannot read .*trials.*fault"):
        Store.open(folder, files=faulty(at(1, OSError(errno.EIO, "x"), "read"))).trials()


def test_segments_of_strange_content_are_set_aside(folder: Path) -> None:
    with Store.open(folder, write=True) as store:
        store.commit(*unit(8, 0, 0))
    strange: list[bytes] = [b"", b"PAR1", b"PAR1PAR1", b"<script>alert(1)</script>", b"\x80\x04K\x01."]
    for frame, metadata in (
        (pl.DataFrame({"trial": [1]}), {}),
        (
            unit(8, 9, 0)[0],
            {"batchscope.schema": "1", "batchscope.measurements": "../../x", "batchscope.replaces": "[]"},
        ),
        (unit(8, 9, 0)[0], {"batchscope.schema": "x"}),
    ):
        buffer = io.BytesIO()
        frame.write_parquet(buffer, metadata=metadata)
        strange.append(buffer.getvalue())
    for data in strange:
        name = f"b8-{'0' * 16}-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
        (folder / "trials" / name).write_bytes(data)
    (folder / "trials" / "notes.txt").write_text("mine")
    reader = Store.open(folder)
    assert len(reader.trials()) == TRIALS and len(reader.warnings) == len(strange)
    with Store.open(folder, write=True) as store:
        assert len(store.trials()) == TRIALS
    assert Store.open(folder).warnings == [] and (folder / "trials" / "notes.txt").exists()
    assert trial_id(8, 0) in set(Store.open(folder).trials()["trial"])
