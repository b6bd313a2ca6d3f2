"""Many loose segments are read together, and what is read is what each of them alone would give."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from batchscope.store import Store
from batchscope.store.segments import Segments
from store.store_units import drive, unit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loose commits of two batch sizes, merged ones, one of another run, and one whose bytes were changed."""
    place = tmp_path_factory.mktemp("many")
    with Store.create(place / "other", "workload: y\n", {}) as store:
        store.commit(*unit(8, 9, 0))
    with Store.create(place / "run", "workload: x\n", {}) as store:
        drive(store)
        for rung in range(12):
            for size in (4, 32):
                store.commit(*unit(size, 0, rung, rungs=tuple(range(10, 130, 10)), trials=2))
    for name in ("trials", "measurements"):
        shutil.copytree(place / "other" / name, place / "run" / name, dirs_exist_ok=True)
    victim = sorted((place / "run" / "trials").glob("b32-*"))[3]
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    return place / "run"


def seen(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, list[str]]:
    store = Store.open(folder)
    trials, measurements = store.tables()
    return trials, measurements.collect().sort("trial", "step"), store.warnings


@pytest.mark.parametrize("columns", ["the same", "several"])
def test_what_is_read_together_is_what_each_alone_gives(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    if columns == "several":
        folder = Path(shutil.copytree(folder, tmp_path / "run"))
        with Store.open(folder, write=True) as store:
            trials, measurements = unit(64, 0, 0)
            store.commit(trials.rename({"hyperparameter/learning_rate": "hyperparameter/momentum"}), measurements)
            store.commit(*unit(64, 1, 0))
    calls = []
    read = pl.read_parquet

    def counted(source: Any, **options: Any) -> pl.DataFrame:
        calls.append(source)
        return read(source, **options)

    monkeypatch.setattr(pl, "read_parquet", counted)
    together = seen(folder)
    assert columns == "several" or len(calls) <= 6  # of 25 loose segments and two merged ones, in two halves each
    monkeypatch.setattr(Segments, "_read_commits", lambda *_: None)
    alone = seen(folder)
    for got, wanted in zip(together[:2], alone[:2], strict=True):
        assert_frame_equal(got, wanted)
    assert together[2] == alone[2] and (columns == "several" or len(alone[2]) == 2)
