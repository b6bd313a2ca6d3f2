"""``status`` in every state that a run can be in: what it says is so, in words and in JSON."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from batchscope import runs
from batchscope.cli.main import DONE, invoke
from batchscope.runs import Progress
from batchscope.spec.study import Study
from batchscope.store import Store
from batchscope.store.lock import Owner
from cli import small_study

STUDY = small_study.text(goal=0.0001)
NOBODY = "nobody is running it"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("status") / "run"
    runs.run(Study.from_text(STUDY), folder, workers=0)
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose driver was interrupted while trials were on their way."""
    folder = tmp_path_factory.mktemp("status") / "run"

    def interrupt(progress: Progress) -> None:
        if (folder / "study.yaml").exists() and runs.open_run(folder).trials.height:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchscope.runs.driver.COMMIT_SECONDS", 0.0)
        patch.setattr("batchscope.runs.reporter.TELL_SECONDS", 0.0)
        with pytest.raises(runs.Interrupted):
            runs.run(Study.from_text(STUDY), folder, workers=0, on_progress=interrupt)
    return folder


def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    assert invoke(["status", str(folder), "--json"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert invoke(["status", str(folder)]) == DONE
    words = capsys.readouterr().out
    assert (NOBODY in words) == (document["driver"] is None) == (document["state"] != "running")
    if document["driver"] is None:
        assert " running" not in words.replace(NOBODY, "") and '"running"' not in json.dumps(document)
    return document, words


def test_finished(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, words = told(finished, capsys)
    assert document["state"] == "finished" and f"finished, {NOBODY}" in words
    assert sum(sum(size["trials"].values()) for size in document["batch_sizes"]) == 6


def test_not_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store.create(tmp_path / "run", Study.from_text(STUDY).to_yaml(), {}).close()
    document, words = told(tmp_path / "run", capsys)
    assert document["state"] == "unfinished" and words.count("not begun") == 2


def test_interrupted(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, words = told(stopped, capsys)
    assert document["state"] == "unfinished" and f"unfinished, {NOBODY}" in words
    assert any(size["trials"].get("unfinished") for size in document["batch_sizes"]) and " unfinished;" in words


def test_at_work(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    with Store.open(tmp_path / "run", write=True):
        document, words = told(tmp_path / "run", capsys)
    assert document["state"] == "running" and "process" in document["driver"]
    assert any(size["trials"].get("running") for size in document["batch_sizes"]) and " running" in words


def test_killed(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lock of a driver that is dead holds nothing: its process number is another's by now."""
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "run" / "lock").write_text(json.dumps(asdict(Owner.this_process()) | {"started": "1"}))
    document, _ = told(tmp_path / "run", capsys)
    assert document["state"] == "unfinished"


def test_a_finished_run_that_was_given_more_to_do(
    finished: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    note = json.loads((finished / "provenance.json").read_text())["finished"]
    path = tmp_path / "run" / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": note}))
    assert told(tmp_path / "run", capsys)[0]["state"] == "unfinished"


def test_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text("b,s,loss\n8,1,0.5\n8,2,0.4\n")
    columns = ["--batch-size", "b", "--step", "s", "--metric", "validation/loss=loss"]
    assert invoke(["import", "csv", str(tmp_path / "log.csv"), "-o", str(tmp_path / "run"), *columns]) == DONE
    document, words = told(tmp_path / "run", capsys)
    assert document["state"] == "imported" and f"imported, {NOBODY}" in words


def test_every_key_of_the_document_is_told_in_the_docs(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "study.md").read_text().partition("## How far it is")[2]
    document, _ = told(finished, capsys)
    for key in (*document, *document["batch_sizes"][0]):
        assert f"`{key}`" in page.partition("\n## ")[0]
