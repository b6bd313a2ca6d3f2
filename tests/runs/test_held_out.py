"""Test examples and kept weights: of the winners at their crossing, exactly, and deciding nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import batchscope as bs
from batchscope.engine.training import in_random_order
from batchscope.errors import AnalysisError
from batchscope.spec.workload import Workload
from engine.workbench import classification, error, study

ASKED = (
    "batch_sizes=[4, 16]",
    "search.trials=4",
    "search.confirm.seeds=2",
    "goals=['validation/error < 0.5', 'validation/error < 0.35']",
    "keep=best",
    "engine.program=loop",
)


def workload(**more: Any) -> Workload:
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(3, (90,), generator=generator)
    inputs = torch.randn(90, 6, generator=generator) + 1.2 * F.one_hot(labels, 6)
    return replace(classification(), test=(inputs, labels), **more)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> bs.Run:
    return bs.run(study(*ASKED), tmp_path_factory.mktemp("run") / "run", workload=workload())


def test_test_examples_are_measured_at_the_crossing_of_winners_and_confirmations(ran: bs.Run) -> None:
    given: Any = workload().test
    both: Any = in_random_order(given, 0)
    inputs, labels = both
    for goal in ran.goals:
        curve = ran.steps_to_result(goal)
        reached = curve.table.drop_nulls("steps")
        assert reached.height == 2
        for batch_size, steps in reached.select("batch_size", "steps").iter_rows():
            model = classification().model().double()
            model.load_state_dict(ran.weights(batch_size, goal))
            with torch.no_grad():
                outputs = model.eval()(inputs.double())
            mine = curve.test.filter(batch_size=batch_size, replicate=0)
            assert mine["step"].to_list() == [steps]
            assert mine.item(0, "test/error") == pytest.approx(float(error(outputs, labels).mean()), abs=1e-12)
            loss = float(F.cross_entropy(outputs, labels))
            assert mine.item(0, "test/loss") == pytest.approx(loss, rel=1e-9)
            assert curve.test.filter(batch_size=batch_size)["replicate"].to_list()[0] == 0
        assert set(curve.test["replicate"]) - {0} <= {1, 2} and curve.test.height > 2


def test_they_are_shown_apart_and_no_goal_can_name_them(ran: bs.Run) -> None:
    (first, _) = ran.summary()["goals"]
    point = first["curve"][0]
    assert set(point["test"]) == {"loss", "error", "confirmations"} and point["test"]["confirmations"]
    page = (ran.folder / "report.html").read_text()
    assert "Test examples" in page and "Nothing was chosen by these numbers" in page
    with pytest.raises(AnalysisError, match="got 'test/error'. It measured"):
        ran.steps_to_result("test/error < 0.5")


def test_they_decide_nothing(ran: bs.Run, tmp_path: Path) -> None:
    nonsense = replace(workload(), test=(torch.full((3, 6), torch.nan), torch.zeros(3, dtype=torch.int64)))
    other = bs.run(study(*ASKED), tmp_path / "nonsense", workload=nonsense)
    without = bs.run(study(*ASKED, "keep=none"), tmp_path / "without", workload=classification())
    keys = ["trial", "status", "steps"]
    for run in (other, without):
        assert run.trials.select(keys).equals(ran.trials.select(keys))
    assert without.steps_to_result().test.is_empty() and "test" not in without.summary()["goals"][0]["curve"][0]
    with pytest.raises(AnalysisError, match="run the study in a new folder with `keep: best`"):
        without.weights(4)


def test_only_the_weights_of_winners_stay(ran: bs.Run) -> None:
    files = {path.name for path in (ran.folder / "weights").iterdir()}
    curves = [ran.steps_to_result(goal).table.drop_nulls("steps") for goal in ran.goals]
    rows = [row for curve in curves for row in curve.select("batch_size", "winner", "steps").iter_rows()]
    assert files == {f"{size}-{trial}-{steps}.safetensors" for size, trial, steps in rows}
    assert ran.weights_line is not None and ran.weights_line.endswith(".weights(16))")


def test_a_run_without_a_race_has_them_too(tmp_path: Path) -> None:
    asked = study(*ASKED, "policy=full", "search.trials=2", "search.confirm.seeds=0", "batch_sizes=[16]")
    run = bs.run(asked, tmp_path / "full", workload=workload())
    curve = run.steps_to_result()
    assert curve.test["step"].to_list() == curve.table["steps"].to_list()
    run.weights(16)
    again = bs.run(asked, tmp_path / "full", workload=workload())
    assert again.steps_to_result().test.equals(curve.test)
