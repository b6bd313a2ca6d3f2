"""Every value of every key of a study through every verb, in process, as a user would type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from batchscope.cli.main import DONE, MISUSE, invoke
from batchscope.spec.study import Study
from batchscope.store import Store
from spec.key_values import BASE, ROWS, Row

# The default suite walks what once could not be read again; `make slow` walks the rest.
FEW = {"search.space.label_smoothing=[0, 0.1]", "search.confirm.seeds=2"}


def walked(row: Row) -> ParameterSet:
    return pytest.param(row, id=row.name, marks=() if row.name in FEW else pytest.mark.slow)


@pytest.mark.parametrize("row", [walked(row) for row in ROWS])
def test_every_verb_answers_for_every_value(row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def typed(*arguments: str, status: int = DONE) -> str:
        capsys.readouterr()
        found = invoke([*arguments])
        out, err = capsys.readouterr()
        assert found == status, f"{row.name}: {' '.join(arguments)} ended with {found}:\n{err}"
        assert "Traceback" not in err
        return out

    file, run = tmp_path / "study.yaml", str(tmp_path / "run")
    file.write_text(BASE)
    study = Study.from_text(BASE, row.overrides)
    command = ["run", str(file), *row.overrides, "-o", run, "--workers", "0"]
    typed(*command)
    written = (tmp_path / "run" / "study.yaml").read_text()
    assert Study.from_text(written) == study
    trials = Store.open(run).trials()
    assert set(trials["batch_size"]) == set(study.batch_sizes) and not trials.filter(status="running").height
    typed(*command)
    assert Store.open(run).trials().equals(trials), "a second run has nothing to do"
    assert (tmp_path / "run" / "study.yaml").read_text() == written
    goals = json.loads(typed("analyze", run, "--json"))["goals"]
    assert [goal["goal"] for goal in goals] == [str(goal) for goal in study.goals]
    typed("report", run)
    # What nothing reached, and what changes its batch size, has no recommendation, and says so.
    reached = any(point["steps"] for point in goals[0]["curve"])
    advised = reached and not study.algorithm.changes_batch_size
    typed("recommend", run, "--json", status=DONE if advised else MISUSE)
    for file_format in ("csv", "parquet", "batch-science"):
        out, again = str(tmp_path / file_format), str(tmp_path / f"again-{file_format}")
        typed("export", run, "--format", file_format, "-o", out)
        typed("import", file_format, out, "-o", again)
        if file_format != "batch-science":  # which has a layout, and a name for what it holds, of its own
            assert Store.open(again).trials().equals(trials)
            same = json.loads(typed("analyze", again, "--json", "--goal", str(study.goals[0])))["goals"][0]
            assert [point["steps"] for point in same["curve"]] == [point["steps"] for point in goals[0]["curve"]]
