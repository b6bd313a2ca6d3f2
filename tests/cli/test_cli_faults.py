"""A disk, a folder or a file that is not what it should be: named on the command line, exit status 1, no traceback."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from batchscope.cli.main import DONE, FAILED, MISUSE, invoke
from batchscope.spec.study import Study
from batchscope.store.disk import Files
from cli import small_study
from rows import first
from runs.same import assert_same_run

STUDY = small_study.text(trials=4)
Shown = Callable[..., str]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "study.yaml").write_text(STUDY)
    assert invoke(["run", str(folder / "study.yaml"), "-o", str(folder / "run"), "--workers", "0"]) == DONE
    return folder / "run"


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def shown(capfd: pytest.CaptureFixture[str]) -> Shown:
    """Invoke a verb, check its exit status, and return what it said on standard error."""

    def shown(*arguments: object, status: int = FAILED) -> str:
        capfd.readouterr()
        assert invoke([str(argument) for argument in arguments]) == status, capfd.readouterr().err
        said = capfd.readouterr()
        assert "Traceback" not in said.err and "fault of Batchscope" not in said.err
        assert status == DONE or said.out == ""
        return said.err

    return shown


def run(good: Path, folder: Path) -> tuple[str, ...]:
    return "run", str(good.parent / "study.yaml"), "-o", str(folder), "--workers", "0"


@pytest.mark.parametrize(
    ("primitive", "code", "advice"),
    first(
        2,
        [
            ("_write", errno.ENOSPC, "free some space"),
            ("_write", errno.EDQUOT, "quota"),
            ("_sync", errno.EIO, "copy the folder to a sound one"),
            ("_rename", errno.EROFS, "read-only"),
            ("_make_folder", errno.EACCES, "change the permissions"),
            ("_unlink", errno.EPERM, "change the permissions"),
            ("_read", errno.EIO, "copy the folder to a sound one"),
        ],
    ),
)
def test_a_refusing_disk_is_named_and_the_same_command_goes_on(
    good: Path, tmp_path: Path, shown: Shown, primitive: str, code: int, advice: str
) -> None:
    works, folder = getattr(Files, primitive), tmp_path / "run"
    for moment in (0, 3):
        count = iter(range(10**6))

        def refuse(files: Files, *rest: object, first: int = moment, count: object = count) -> object:
            if next(count) >= first:  # type: ignore[call-overload]
                raise OSError(code, os.strerror(code))
            return works(files, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Files, primitive, refuse)
            patch.setattr("batchscope.runs.driver.COMMIT_SECONDS", 0.0)
            patch.setattr("batchscope.executors.worker.CHECKPOINT_SECONDS", 0.0)
            said = shown(*run(good, folder), status=FAILED)
        assert os.strerror(code) in said and advice in said and str(folder) in said
    shown(*run(good, folder), status=DONE)
    assert_same_run(folder, good)


def damage(change: str, path: Path) -> None:
    data = bytearray(path.read_bytes())
    if change == "flip":
        data[len(data) // 2] ^= 4
    path.write_bytes(data if change == "flip" else data[: len(data) // 2])


@pytest.mark.parametrize(("half", "change"), [("trials", "flip"), ("measurements", "truncate")])
def test_a_damaged_segment_is_named_by_every_reader_and_mended_by_the_driver(
    good: Path, folder: Path, tmp_path: Path, shown: Shown, half: str, change: str
) -> None:
    victim = next((folder / half).glob("b4-*"))
    damage(change, victim)
    for number, verb in enumerate(
        (["status"], ["analyze"], ["analyze", "--json"], ["report"], ["export", "--format", "csv", "-o"])
    ):
        rest = [*verb[1:], str(tmp_path / "export")] if verb[-1] == "-o" else verb[1:]
        said = shown(verb[0], folder, *rest, status=DONE)
        assert victim.name in said and "batch size 4" in said, number
    document = json.loads((folder / "summary.json").read_text())  # and by what stays when the terminal is closed
    assert victim.name in document["goals"][0]["notes"][0]
    assert victim.name in (folder / "report.html").read_text()
    assert [row["batch_size"] for row in document["goals"][0]["curve"]] == [16]
    assert victim.exists()  # a reader changes nothing
    shown(*run(good, folder), status=DONE)
    aside = [path.name for path in (folder / "damaged").iterdir()]
    assert f"{half}-{victim.name}" in aside
    shutil.rmtree(folder / "damaged")
    assert_same_run(folder, good)
    assert victim.name not in (folder / "report.html").read_text()


@pytest.mark.parametrize("change", ["flip", "another trial's"])
def test_a_damaged_checkpoint_is_set_aside_and_costs_time_only(
    good: Path, tmp_path: Path, shown: Shown, change: str
) -> None:
    folder, far = tmp_path / "run", 'goals=["validation/loss < 0.001"]'
    rename, count = Files._rename, iter(range(10**6))

    def refuse(files: Files, source: Path, target: Path) -> None:
        if target.parent.name == "trials" and next(count) == 3:
            raise OSError(errno.EIO, "x")
        rename(files, source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchscope.runs.driver.COMMIT_SECONDS", 0.0)
        patch.setattr("batchscope.executors.worker.CHECKPOINT_SECONDS", 0.0)
        patch.setattr(Files, "_rename", refuse)
        shown(*run(good, folder), far, status=FAILED)  # the second rung of the second pack is not committed
    checkpoints = sorted((folder / "checkpoints").glob("4-*.safetensors"))
    assert len(checkpoints) == 2
    if change == "another trial's":
        checkpoints[0].write_bytes(checkpoints[1].read_bytes())
    else:
        for path in checkpoints:
            damage(change, path)
    shown(*run(good, folder), far, status=DONE)
    assert (folder / "damaged").exists() is (change == "flip")
    shutil.rmtree(folder / "damaged", ignore_errors=True)
    shown(*run(good, tmp_path / "undisturbed"), far, status=DONE)
    assert_same_run(folder, tmp_path / "undisturbed")


def missing_study(folder: Path) -> None:
    (folder / "study.yaml").unlink()


def damaged_study(folder: Path) -> None:
    (folder / "study.yaml").write_bytes((folder / "study.yaml").read_bytes()[:40])


def binary_study(folder: Path) -> None:
    (folder / "study.yaml").write_bytes(b"\xff\x00\xfe")


def missing_provenance(folder: Path) -> None:
    (folder / "provenance.json").unlink()


def newer_run(folder: Path) -> None:
    provenance = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps({**provenance, "schema": 7}))


def deep_provenance(folder: Path) -> None:
    (folder / "provenance.json").write_text("[" * 200_000)


def newer_segment(folder: Path) -> None:
    import hashlib

    path = next((folder / "trials").iterdir())
    metadata = pl.read_parquet_metadata(path)
    metadata.pop("ARROW:schema", None)
    data = io.BytesIO()
    pl.read_parquet(path).write_parquet(data, metadata={**metadata, "batchscope.schema": "7"})
    sealed = hashlib.sha256(data.getvalue()).hexdigest()[:16]
    path.with_name(f"{path.name.rpartition('-')[0]}-{sealed}.parquet").write_bytes(data.getvalue())
    path.unlink()


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def segments_are_a_file(folder: Path) -> None:
    shutil.rmtree(folder / "trials")
    (folder / "trials").write_text("x")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing_study, "put its study.yaml back"),
        (damaged_study, "put the study of this run back"),
        (binary_study, "put the study of this run back"),
        (missing_provenance, "provenance.json is missing or damaged: put it back"),
        (deep_provenance, "provenance.json is missing or damaged: put it back"),
        (newer_run, "schema version 7, this Batchscope reads up to 2: type pip install --upgrade batchscope"),
        (newer_segment, "schema version 7, this Batchscope reads up to 2: type pip install --upgrade batchscope"),
        (no_folder, "is no run folder: there is no such folder"),
        (empty_folder, "is no run folder: it has no study.yaml"),
        (a_file, "is a file: give the folder of a run"),
        (segments_are_a_file, "Not a directory"),
    ],
)
def test_a_folder_that_cannot_be_read_is_named_by_every_verb(
    folder: Path, tmp_path: Path, shown: Shown, change: Callable[[Path], None], words: str
) -> None:
    change(folder)
    for verb in (["status"], ["status", "--json"], ["analyze"], ["report"], ["export", "--format", "csv", "-o"]):
        if verb[0] == "export" and change in {damaged_study, binary_study}:
            continue  # the tables do not need it
        rest = [*verb[1:], str(tmp_path / "export")] if verb[-1] == "-o" else verb[1:]
        said = shown(verb[0], folder, *rest)
        assert words in said and str(folder) in said or "trials/" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing_study, "choose another folder, or put back the study.yaml of the run that this was"),
        (missing_provenance, "a driver needs the file itself"),
        (newer_run, "type pip install --upgrade batchscope"),
        (newer_segment, "type pip install --upgrade batchscope"),
        (a_file, "is a file: choose another folder for the run"),
        (segments_are_a_file, "Not a directory"),
    ],
)
def test_a_driver_refuses_what_it_cannot_go_on_with(
    good: Path, folder: Path, shown: Shown, change: Callable[[Path], None], words: str
) -> None:
    change(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    said = shown(*run(good, folder))
    assert words in said and (str(folder) in said or "trials/" in said)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("change", [no_folder, empty_folder, damaged_study])
def test_a_driver_begins_or_mends_the_rest(
    good: Path, folder: Path, shown: Shown, change: Callable[[Path], None]
) -> None:
    change(folder)
    shown(*run(good, folder), status=DONE)
    assert_same_run(folder, good)


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({"choices": "x"}, "choices: Input should be a valid dictionary"),
        ({"choices": {"4": {"program": "loop"}}}, "choices.4.pack_size: Field required"),
        ({"choices": {"4": {"program": "os.system", "pack_size": 1}}}, "there are loop, "),
        ({"choices": {"4": {"program": "loop", "pack_size": 0}}}, "packs of 0"),
        ({"context": 3}, "does not say of which workload and algorithm"),
    ],
)
def test_notes_of_a_driver_that_cannot_be_are_named(
    good: Path, folder: Path, shown: Shown, notes: dict[str, object], words: str
) -> None:
    path = folder / "provenance.json"
    noted = {**json.loads(path.read_text()), **notes}
    del noted["finished"]  # else nothing of the rest is needed
    path.write_text(json.dumps(noted))
    said = shown(*run(good, folder))
    assert words in said and str(path) in said


def test_a_widened_space_that_cannot_be_is_named(folder: Path, shown: Shown) -> None:
    path = folder / "provenance.json"
    spaces = {"4": [{"learning_rate": {"min": 3, "max": "<script>", "scale": "log"}}]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "spaces": spaces}))
    said = shown("analyze", folder)
    assert "spaces.4.0.learning_rate" in said and str(path) in said


def test_paths_that_cannot_be_are_named(
    good: Path, tmp_path: Path, shown: Shown, capfd: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / ("x" * 300)
    for arguments in (
        ("status", long),
        (*run(good, long)[:3], str(long), "--workers", "0"),
        ("analyze", tmp_path / "a\nb"),
    ):
        assert str(tmp_path) in shown(*arguments)
    assert "exists already" in shown("export", good, "--format", "csv", "-o", good.parent / "study.yaml")
    assert invoke(["report", str(good), "--svg", str(tmp_path / "nothing" / "x.svg")]) == FAILED
    assert "nothing/x.svg: No such file or directory" in capfd.readouterr().err


def test_a_workload_in_place_of_a_study_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "mine/my_workload.py"]) == MISUSE
    assert "give mine/my_workload.yaml, or write both anew with  batchscope init mine/my" in capsys.readouterr().err


def test_init_makes_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["init", str(tmp_path / "new/dir/mine.py")]) == 0
    assert (tmp_path / "new/dir/mine.yaml").exists()
    (tmp_path / "file").touch()
    assert invoke(["init", str(tmp_path / "file/mine.py")]) == MISUSE
    assert "cannot make the folder" in capsys.readouterr().err


def test_init_writes_a_study_that_names_its_file_whatever_that_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a: b #c", "it's [mine]", "{x}", "\u00e9 %YAML"):
        assert invoke(["init", f"{name}.py"]) == DONE
        assert Study.from_yaml(f"{name}.yaml").workload == f"{name}.py:make"
        assert f"batchscope run {shlex.quote(f'{name}.yaml')}" in capsys.readouterr().out
