"""Segments of another run, copied into a folder: named, not counted, and left where they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from batchscope.store import Store
from store.store_units import content, drive, unit, whole
from store.store_units import units as all_units


@pytest.mark.parametrize("merged", [False, True])
def test_segments_of_another_run_are_named_and_do_not_count(tmp_path: Path, merged: bool) -> None:
    with Store.create(tmp_path / "other", "workload: y\n", {}) as store:
        store.commit(*unit(8, 0, 0, rungs=(50,), trials=5))
        store.commit(*unit(8, 0, 1, rungs=(50, 90), trials=5))
        if merged:
            store.compact()
    with Store.create(tmp_path / "run", "workload: x\n", {}) as store:
        store.commit(*unit(8, 0, 0))
        drive(store)
    for name in ("trials", "measurements"):
        shutil.copytree(tmp_path / "other" / name, tmp_path / "run" / name, dirs_exist_ok=True)
    copied = {path.name for path in (tmp_path / "other" / "trials").iterdir()}
    count = len(list(all_units()))
    for write in (False, True, False):
        with Store.open(tmp_path / "run", write=write) as store:
            for got, expected in zip(content(store), whole(count), strict=True):
                assert_frame_equal(got, expected, check_column_order=False)
            assert len(store.warnings) == len(copied)
            assert all("is of another run" in line for line in store.warnings)
            if write:
                store.compact()
    assert copied <= {path.name for path in (tmp_path / "run" / "trials").iterdir()}


def test_a_folder_that_is_copied_as_a_whole_is_the_same_run(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run", "workload: x\n", {}) as store:
        drive(store)
        store.write_provenance({"more": 1})
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with Store.open(tmp_path / "copy", write=True) as store:
        assert store.warnings == [] and len(store.trials())
    (tmp_path / "copy" / "provenance.json").write_text('{"schema": 1}')  # as the message says, to read what is there
    assert Store.open(tmp_path / "copy").warnings == [] and len(Store.open(tmp_path / "copy").trials())
