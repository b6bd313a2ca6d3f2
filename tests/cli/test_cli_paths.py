"""Any name that a folder can have is a folder's name: patterns in it match nothing, and it need not be UTF-8."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest

import batchscope.store.segments
from batchscope.cli.main import DONE, invoke
from batchscope.errors import StoreError
from batchscope.store import Store
from cli import small_study
from store.store_units import TRIALS, content, unit

STUDY = small_study.text()
NAMES = [b"exp [v2] a*b?c{d,e}", b"caf\xe9\xff \n\x1b[31m"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paths")
    (folder / "study.yaml").write_text(STUDY)
    assert invoke(["run", str(folder / "study.yaml"), "-o", str(folder / "run"), "--workers", "0"]) == DONE
    return folder


@pytest.fixture(params=NAMES, ids=ascii)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / os.fsdecode(request.param)
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("the file system has no such names")
    return folder


@pytest.mark.parametrize("large", [False, True])
def test_a_run_is_kept_and_read_whatever_its_folder_is_called(
    good: Path, place: Path, large: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if large:  # measurements that are scanned where they lie
        monkeypatch.setattr(batchscope.store.segments, "LARGE_BYTES", 1)
    shutil.copytree(good / "run", run := place / "run")
    shutil.copy(good / "study.yaml", place / "mine.yaml")
    before = content(Store.open(run))
    monkeypatch.chdir(place)
    assert invoke(["run", "mine.yaml", "-o", str(run), "--workers", "0"]) == DONE
    assert not (run / "damaged").exists()
    for now, then in zip(content(Store.open(run)), before, strict=True):
        assert now.equals(then)
    for verb in ("status", "report") if large else ("status",):
        assert invoke([verb, str(run)]) == DONE
    assert invoke(["analyze", str(place)]) == DONE
    for kind in ("csv", "parquet", "batch-science"):
        assert invoke(["export", str(run), "--format", kind, "-o", str(place / kind)]) == DONE
    for kind in ("csv", "parquet"):
        assert invoke(["import", kind, str(place / kind), "-o", str(back := place / f"{kind} again")]) == DONE
        assert Store.open(back).trials().equals(Store.open(run).trials())
    said = capfd.readouterr()
    assert "damaged" not in said.err and "\x1b" not in said.out + said.err


def test_a_csv_file_is_imported_from_there(place: Path) -> None:
    (place / "log.csv").write_text("b,s,loss\n8,1,0.5\n8,2,0.4\n")
    columns = ["--batch-size", "b", "--step", "s", "--metric", "validation/loss=loss"]
    assert invoke(["import", "csv", str(place / "log.csv"), "-o", str(place / "run"), *columns]) == DONE
    assert Store.open(place / "run").measurements().collect()["step"].to_list() == [1, 2]


def test_a_segment_that_the_reader_cannot_read_is_not_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the right checksum it is as it was written: the fault is the reader's."""
    with Store.create(tmp_path / "run", "workload: x\n", {}) as store:
        store.commit(*unit(8, 0, 0))

    def fail(source: object) -> object:
        raise pl.exceptions.ComputeError("this encoding is not supported")

    with monkeypatch.context() as patch:
        for reader in ("read_parquet_schema", "read_parquet_metadata"):
            patch.setattr(pl, reader, fail)
            with pytest.raises(StoreError, match="as it was written, and polars .* cannot read it"):
                Store.open(tmp_path / "run", write=True)
    with Store.open(tmp_path / "run", write=True) as store:
        assert len(store.trials()) == TRIALS and not store.warnings


def test_formulas_of_others_are_defused_in_what_is_exported(tmp_path: Path) -> None:
    words = ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\t=1", "'=quoted", "''", "'", "-1.5", "plain", ""]
    rows = [
        {"trial": f"={number}", "b": 8, "s": step, "loss": -0.5, "word": word}
        for number, word in enumerate(words)
        for step in (1, 2)
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "log.csv")
    columns = ["--batch-size", "b", "--step", "s", "--metric", "validation/loss=loss", "--trial", "trial"]
    columns += ["--hyperparameter", "word=word"]
    assert invoke(["import", "csv", str(tmp_path / "log.csv"), "-o", str(tmp_path / "run"), *columns]) == DONE
    assert invoke(["export", str(tmp_path / "run"), "--format", "csv", "-o", str(tmp_path / "csv")]) == DONE
    for name in ("trials", "measurements"):
        table = pl.read_csv(tmp_path / "csv" / f"{name}.csv", infer_schema=False)
        for cell in (cell for row in table.iter_rows() for cell in row if cell):
            assert cell[0] not in "=+-@\t\r" or float(cell) < 0
    assert invoke(["import", "csv", str(tmp_path / "csv"), "-o", str(tmp_path / "again")]) == DONE
    once, again = Store.open(tmp_path / "run"), Store.open(tmp_path / "again")
    assert again.trials().equals(once.trials()) and "=0" in set(once.trials()["trial"])
    assert again.measurements().collect().equals(once.measurements().collect())


@pytest.fixture
def grouped(tmp_path: Path) -> list[str]:
    rows = "good,8,1,0.5\nbad\x1b[31m,8,1,x\n\x1b[2Jworse,8,1,0.1\nempty,8,1,\nfine,8,1,0.5\n"
    (tmp_path / "log.csv").write_text("g,b,s,loss\n" + rows)
    columns = ["--batch-size", "b", "--step", "s", "--metric", "validation/loss=loss", "--group", "g"]
    return ["import", "csv", str(tmp_path / "log.csv"), "-o", str(tmp_path / "runs"), *columns]


def test_groups_are_imported_all_or_none(
    grouped: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke(grouped) != DONE  # names that no folder may have
    assert "\x1b" not in capfd.readouterr().err and not (tmp_path / "runs").exists()
    text = (tmp_path / "log.csv").read_text().replace("\x1b[31m", "").replace("\x1b[2J", "")
    (tmp_path / "log.csv").write_text(text)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if target.name == "fine":
            raise OSError(28, os.strerror(28))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        assert invoke(grouped) != DONE
    assert [path.name for path in tmp_path.rglob("*")] == ["log.csv"]
    capfd.readouterr()
    assert invoke(grouped) == DONE
    said = capfd.readouterr()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["fine", "good", "worse"]
    for name in ("bad", "empty"):
        assert f"{name}: left out, it holds nothing that can be used" in said.err


def test_escape_codes_of_cells_and_lock_never_reach_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[31m\x07\u202e"
    (tmp_path / "log.csv").write_text(f"t,b,s,loss\n{evil},8,1,0.5\n{evil},8,1,0.5\n{evil},8,{evil},0.5\n")
    columns = ["--batch-size", "b", "--step", "s", "--metric", "validation/loss=loss", "--trial", "t"]
    assert invoke(["import", "csv", str(tmp_path / "log.csv"), "-o", str(tmp_path / "run"), *columns]) == DONE
    owner = {"host": evil, "pid": 1, "started": "", "realm": "", "token": "0" * 16}
    (tmp_path / "run" / "lock").write_text(json.dumps(owner))
    assert invoke(["status", str(tmp_path / "run")]) == DONE
    invoke(["export", str(tmp_path / "run"), "--format", "csv"])
    said = capfd.readouterr()
    assert "process 1" in said.out and not {"\x1b", "\x07", "\u202e"} & set(said.out + said.err)
