"""A folder of imported runs: one call, the answers of each alone, and the curves on one scale."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from batchscope import open_run
from batchscope.cli.main import DONE, MISUSE, invoke
from batchscope.errors import AnalysisError, BatchscopeError
from batchscope.exchange.importers import import_csv, import_curve
from batchscope.runs import Run, ask_each, comparison, holds_several

SIZES = [2**k for k in range(8)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two curves with critical batch sizes 16 and 32, and a run that states no goal."""
    folder = tmp_path_factory.mktemp("several")
    rows = [
        f"{name},{size},{100 + 100 * corner // size}\n" for name, corner in (("x", 16), ("y", 32)) for size in SIZES
    ]
    (folder / "curves.csv").write_text("model,bs,steps\n" + "".join(rows))
    import_curve(folder / "curves.csv", folder / "runs" / "lm", batch_size="bs", steps="steps", group="model")
    (folder / "long.csv").write_text("bs,step,loss\n64,10,0.5\n64,20,0.25\n")
    options = {"batch_size": "bs", "step": "step", "metrics": {"validation/loss": "loss"}}
    import_csv(folder / "long.csv", folder / "runs" / "open", **options)  # type: ignore[arg-type]
    return folder / "runs"


def test_each_run_answers_as_it_does_alone(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["analyze", str(runs), "--json"]) == DONE
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert list(document["runs"]) == ["lm/x", "lm/y", "open"] and document["schema"] == 1
    for name in ("lm/x", "lm/y"):
        assert document["runs"][name] == open_run(runs / name).summary()
    assert "has no goal of its own" in document["runs"]["open"]["refused"]
    assert shown.err.startswith("open has no answer: ")
    relative = {(row["run"], row["batch_size"]): row["relative"] for row in document["comparison"]["curves"]}
    assert document["comparison"]["reference"] == 1 and len(relative) == 2 * len(SIZES)
    assert relative["lm/x", 16] == pytest.approx(200 / 1700) and relative["lm/y", 32] == pytest.approx(200 / 3300)


def test_the_curves_and_an_overview_are_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["analyze", str(runs)]) == DONE
    out = capsys.readouterr().out
    assert out.index("lm/x") < out.index("1,700") < out.index("lm/y") < out.index("3,300") < out.index("fewest steps")


def test_a_goal_is_asked_of_every_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["analyze", str(runs), "--goal", "validation/loss < 0.3", "--json"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert document["runs"]["open"]["goals"][0]["curve"][0]["steps"] == 20
    assert "It measured reached/goal" in document["runs"]["lm/x"]["refused"]


def test_where_no_run_has_an_answer_the_goal_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["analyze", str(runs), "--goal", "train/loss < 1", "--json"]) == MISUSE
    assert "none of the 3 runs" in capsys.readouterr().err
    assert invoke(["analyze", str(runs), "--goal", "train/loss"]) == MISUSE
    assert capsys.readouterr().err.count("cannot read the goal") == 1


def test_answers_come_in_the_order_of_the_paths_and_refusals_stop_nothing(runs: Path) -> None:
    def question(run: Run) -> str:
        if run.folder.name == "x":
            raise AnalysisError("not I")
        return "yes"

    answers = list(ask_each(runs, question))
    assert [name for name, _ in answers] == ["lm/x", "lm/y", "open"]
    assert isinstance(answers[0][1], BatchscopeError) and [answer for _, answer in answers[1:]] == ["yes", "yes"]


def test_what_is_one_run_is_not_several(runs: Path, tmp_path: Path) -> None:
    assert holds_several(runs) and holds_several(runs / "lm")
    assert not holds_several(runs / "open") and not holds_several(tmp_path)


def test_curves_without_a_common_batch_size_are_not_compared(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("bs,steps\n3,10\n5,8\n")
    import_curve(tmp_path / "c.csv", tmp_path / "run", batch_size="bs", steps="steps")
    curves = {"a": open_run(runs / "lm" / "x").curves(), "b": open_run(tmp_path / "run").curves()}
    assert "they share none" in comparison(curves)["refused"]


def test_reading_imported_runs_loads_no_torch(runs: Path) -> None:
    code = (
        "import sys; from batchscope.cli.main import invoke; invoke(['analyze', sys.argv[1]]); "
        "assert not {'torch', 'plotly', 'scipy.stats'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(runs)], check=True, capture_output=True)
