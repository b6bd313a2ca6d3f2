"""Hostile names, files and folders: shown as text, refused, or set aside; nothing is executed, nothing leaves."""

from __future__ import annotations

import ast
import json
import random
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import batchscope as bs
from batchscope import runs
from batchscope.cli.main import DONE, FAILED, MISUSE, invoke
from batchscope.errors import BatchscopeError
from batchscope.spec.study import Study
from cli import small_study
from engine.workbench import classification, study
from runs.same import assert_same_run, tables

SOURCE = Path(bs.__file__).parent
EVIL = "<script>alert(1)</script>\x1b[31m\x07\u202e[bold]x[/bold]"
STUDY = small_study.text(dimensions=4, steps=12)


# A probe hands a workload object to the process that it starts, through a pipe; nothing that is read from disk.
PIPED = {"probing/updates.py", "probing/process.py", "engine/reading.py"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_that_is_read_can_be_executed(path: Path) -> None:
    """No pickle in any of its forms, no evaluation of text; the workload file that the user names is the exception."""
    banned = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    if str(path.relative_to(SOURCE)) in PIPED:
        banned -= {"pickle"}
    calls = {"eval", "exec", "load_module", "unsafe_load", "full_load", "read_pickle", "exec_module"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not banned & {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in banned
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "torch.load", "np.load", "numpy.load", "yaml.unsafe_load"}
            last = called.rpartition(".")[2]
            assert last not in calls - {"eval", "exec"} or path.name == "user_file.py", called
            if called == "yaml.load":
                assert path.name == "documents.py"  # the safe loader, and stricter


def test_a_hostile_workload_name_is_text_in_report_and_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = study("engine.program=loop", "search.trials=2", "budget.steps=8").model_copy(update={"workload": EVIL})
    runs.run(changed, tmp_path / "run", workload=classification())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page and "\x07" not in page
    capfd.readouterr()
    for arguments in (["status"], ["analyze"], ["status", "--json"], ["report"]):
        assert invoke([arguments[0], str(tmp_path / "run"), *arguments[1:]]) == DONE
        shown = "".join(capfd.readouterr())
        assert not {"\x1b", "\x07", "\u202e"} & set(shown), arguments
        if arguments == ["status"]:
            assert "<script>alert(1)</script>" in shown and "[bold]x[/bold]" in shown


def test_hostile_names_in_a_study_are_text_in_what_the_terminal_says(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    document = yaml.safe_load(STUDY)
    for change in (
        {"workload": EVIL},
        {EVIL: 1},
        {"goals": [EVIL]},
        {"policy": EVIL},
        {"workload": f"{EVIL}.py:{EVIL}"},
    ):
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(document | change))
        assert invoke(["run", str(tmp_path / "study.yaml"), "-o", str(tmp_path / "run"), "--workers", "0"]) == MISUSE
        said = capfd.readouterr().err
        assert "script" in said and not {"\x1b", "\x07", "\u202e"} & set(said), said
        assert "Traceback" not in said


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, cut short so that it has several segments and checkpoints, and the same run finished."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchscope.runs.driver.COMMIT_SECONDS", 0.0)
        patch.setattr("batchscope.executors.worker.CHECKPOINT_SECONDS", 0.0)
        patch.setattr("batchscope.store.store.Store.compact", lambda store, size: None)
        patch.setattr("batchscope.store.store.Store.drop_states", lambda store, keys: None)
        runs.run(Study.from_text(STUDY), folder / "loose", workers=0)
    runs.run(Study.from_text(STUDY), folder / "run", workers=0)
    return folder


KINDS = ("flip", "truncate", "empty", "remove", "duplicate", "swap", "rename", "foreign")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 10**6)), min_size=1, max_size=3))
@example(
    [("flip", 29956), ("remove", 1), ("duplicate", 138)]
)  # a measurements segment's copy among the trials segments
@pytest.mark.slow
def test_whatever_is_done_to_the_files_there_is_no_wrong_curve(
    good: Path, tmp_path: Path, changes: list[tuple[str, int]]
) -> None:
    """A reader shows values that were measured, or says what is wrong; a driver ends with the undisturbed run."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good / "loose", folder)
    for kind, number in changes:
        meddle(folder, kind, random.Random(number))
    truth = tables(good / "run")[1]
    try:
        run = bs.open_run(folder)
        evaluations = run.measurements.drop("seconds").collect().select(truth.columns)
        assert evaluations.join(truth, on=truth.columns, how="anti", nulls_equal=True).is_empty()
        known = dict(run.trials.select("trial", "steps").iter_rows())
        assert all(step <= known[trial] for trial, step in evaluations.select("trial", "step").iter_rows())
        assert (
            len(evaluations) == len(truth) or run.warnings or any(kind in {"remove", "rename"} for kind, _ in changes)
        )
        run.summary()
    except BatchscopeError as error:
        assert str(error)
    runs.run(Study.from_text(STUDY), folder, workers=0)
    shutil.rmtree(folder / "damaged", ignore_errors=True)
    for path in (*folder.glob("trials/x-*"), *folder.glob("measurements/x-*"), *folder.glob("*/*.bak")):
        path.unlink(missing_ok=True)  # names that are not ours are nobody's segments
    for path in folder.glob("measurements/*.parquet"):
        if "step" not in pl.read_parquet_schema(path):
            path.unlink()  # a segment of trials, which no commit knows in this place
    assert_same_run(folder, good / "run")


def meddle(folder: Path, kind: str, generator: random.Random) -> None:
    files = sorted(path for name in ("trials", "measurements", "checkpoints") for path in (folder / name).iterdir())
    if len(files) < 2:
        return
    path, other = generator.sample(files, 2)
    data = bytearray(path.read_bytes())
    match kind:
        case "flip" if data:
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            path.write_bytes(data)
        case "truncate" if data:
            path.write_bytes(data[: generator.randrange(len(data))])
        case "empty":
            path.write_bytes(b"")
        case "remove":
            path.unlink()
        case "duplicate":
            (other.parent / path.name).write_bytes(data)
        case "swap":
            path.write_bytes(other.read_bytes())
            other.write_bytes(data)
        case "rename":
            path.rename(
                path.with_name(generator.choice(["x-1.parquet", "x-2.bak", f"b4{path.name[path.name.find('-') :]}"]))
            )
        case "foreign":
            path.with_name(f"x-{path.name}").write_bytes(generator.randbytes(50))


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "a/../../escaped", "..", "\x1b[31m"])
def test_a_group_of_an_import_cannot_leave_the_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f'model,batch,steps\n"{name}",8,100\n"{name}",16,60\nb,8,90\n')
    before = {path for path in tmp_path.rglob("*")}
    arguments = ["--batch-size", "batch", "--steps", "steps", "--group", "model"]
    status = invoke(["import", "curve", str(table), "-o", str(tmp_path / "runs"), *arguments])
    said = capfd.readouterr().err
    assert status in {FAILED, MISUSE} and "Traceback" not in said and "\x1b" not in said, said
    assert {path for path in tmp_path.rglob("*")} <= before | {tmp_path / "runs"}


def test_links_out_of_a_run_folder_are_neither_read_nor_written(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(good / "run", folder)
    (folder / "trials").rename(tmp_path / "elsewhere")
    (folder / "trials").symlink_to(tmp_path / "elsewhere")
    for verb in (["status"], ["analyze"], ["report"]):
        assert invoke([*verb, str(folder)]) == FAILED
        assert "is a link out of the run folder" in capfd.readouterr().err


def test_a_workload_in_the_document_of_an_imported_run_is_only_text(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An imported folder that names a Python file as its workload gets nothing executed."""
    folder = tmp_path / "run"
    shutil.copytree(good / "run", folder)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\n")
    text = (folder / "study.yaml").read_text()
    (folder / "study.yaml").write_text(text.replace("noisy_quadratic/4", f"{tmp_path}/evil.py:make"))
    for verb in (["status"], ["analyze", "--json"], ["report"]):
        assert invoke([verb[0], str(folder), *verb[1:]]) == DONE
        capfd.readouterr()
    assert not (tmp_path / "pwned").exists()
    assert json.loads((folder / "summary.json").read_text())["workload"].endswith("evil.py:make")
