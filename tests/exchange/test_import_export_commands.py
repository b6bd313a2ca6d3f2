"""``batchscope import`` and ``batchscope export`` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchscope.cli.main import invoke
from batchscope.store import Store, find_runs

LONG = "bs,run,step,loss,lr,size\n64,a,10,1.0,0.1,S\n64,a,20,0.5,0.1,S\n128,b,10,0.4,0.2,L\n128,c,oops,0.4,0.2,L\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(LONG)
    return path


def test_csv_as_typed(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = "--batch-size bs --trial run --step step --metric validation/loss=loss --hyperparameter learning_rate=lr"
    command = ["import", "csv", str(source), "-o", str(run), *options.split(), "--goal", "validation/loss < 0.6"]
    assert invoke(command) == 0
    out, err = capsys.readouterr()
    assert out == f"2 trials and 3 measurements\n{run}\n"
    assert err == "note: 1 rows whose step is no whole number of at least 0, left out (first: trial c, oops)\n"
    assert invoke(["analyze", str(run), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(point["batch_size"], point["steps"]) for point in document["goals"][0]["curve"]] == [(64, 20), (128, 10)]
    assert invoke(command) == 1
    assert "exists already" in capsys.readouterr().err


def test_groups_and_export_as_typed(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    options = "--batch-size bs --trial run --step step --metric validation/loss=loss --group size"
    assert invoke(["import", "csv", str(source), "-o", str(runs), *options.split()]) == 0
    assert find_runs(runs) == [runs / "L", runs / "S"]
    for file_format in ("csv", "parquet", "batch-science"):
        assert invoke(["export", str(runs), "--format", file_format]) == 0
        assert (runs / "exports" / file_format / "L").is_dir()
    assert find_runs(runs) == [runs / "L", runs / "S"]
    capsys.readouterr()
    assert invoke(["import", "parquet", str(runs / "exports" / "parquet" / "S"), "-o", str(tmp_path / "again")]) == 0
    assert Store.open(tmp_path / "again").trials().equals(Store.open(runs / "S").trials())
    assert invoke(["import", "csv", str(runs / "exports" / "csv" / "S"), "-o", str(tmp_path / "third")]) == 0
    assert Store.open(tmp_path / "third").trials().equals(Store.open(runs / "S").trials())


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["csv", "{}", "-o", "{run}"], 2, "give --batch-size"),
        (["csv", "{}", "-o", "{run}", "--batch-size", "bs", "--step", "s", "--metric", "a/b=loss"], 2, "no column 's'"),
        (["csv", "{}", "-o", "{run}", "--batch-size", "bs", "--step", "step", "--metric", "loss"], 2, "NAME=COL"),
        (["csv", "{}.no", "-o", "{run}", "--batch-size", "b", "--step", "s", "--metric", "a/b=c"], 1, "no file"),
        (["batch-science", "{}", "-o", "{run}"], 1, "no folder"),
        (["curve", "{}", "-o", "{run}"], 2, "--batch-size"),
        (["nonsense", "{}"], 2, "nonsense"),
    ],
)
def test_misuse_is_said_and_leaves_nothing(
    source: Path, tmp_path: Path, arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [argument.replace("{run}", str(tmp_path / "run")).replace("{}", str(source)) for argument in arguments]
    assert invoke(["import", *filled]) == status
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_curve_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "curve.csv"
    source.write_text("size,b,s\n" + "".join(f"M,{2**k},{100 + 6400 // 2**k}\n" for k in range(10)))
    options = "--batch-size b --steps s --group size"
    assert invoke(["import", "curve", str(source), "-o", str(tmp_path / "runs"), *options.split()]) == 0
    capsys.readouterr()
    assert invoke(["analyze", str(tmp_path / "runs" / "M"), "--json"]) == 0
    curve = json.loads(capsys.readouterr().out)["goals"][0]["curve"]
    assert [point["steps"] for point in curve] == [100 + 6400 // 2**k for k in range(10)]


def test_export_of_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["export", str(tmp_path), "--format", "csv"]) == 1
    assert "is no run folder" in capsys.readouterr().err
    assert invoke(["export", str(tmp_path), "--format", "xml"]) == 2
