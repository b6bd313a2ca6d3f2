"""Predictions of real trainings: what they hold, where they come from, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import batchscope as bs
from batchscope.cli.main import DONE, FAILED, MISUSE, invoke
from batchscope.errors import BatchscopeError, PredictionError
from batchscope.spec.prediction import Prediction, steps_at

GOAL = "validation/loss < 0.3"
GIVEN = ["noisy_quadratic/10", "--optimizer", "sgd", "--batch-size", "4", "--steps", "900"]


@pytest.fixture(scope="module")
def found() -> Prediction:
    """Of a noisy quadratic that takes some 200 steps."""
    return bs.predict("noisy_quadratic/10", goal=GOAL, optimizer="sgd", learning_rate=0.03, batch_size=4, steps=900)


def test_every_method_answers_beside_the_others(found: Prediction) -> None:
    assert list(found.by) == ["gradient_noise", "hessian_noise", "branches"]
    measured = found.by[found.method].critical_batch_size
    assert measured is not None and measured.value is not None
    assert found.critical_batch_size.value == pytest.approx(measured.value * found.record.ratio)
    assert found.record.trainings >= 8 and found.record.held >= 0.9 * found.record.trainings
    assert sum(found.cost.by.values()) == pytest.approx(found.cost.trainings)


def test_the_curve_is_the_law_through_the_training(found: Prediction) -> None:
    steps = {point.batch_size: point.steps.value for point in found.curve}
    critical = found.critical_batch_size.value
    assert steps[4] == found.steps and critical is not None
    assert steps[64] == pytest.approx(steps_at(64, critical, 4, found.steps))
    assert min(steps) == 1 and max(steps) == 1024
    widened = found.record.curve_widened
    for point in found.curve:
        assert point.steps.value and point.steps.low and point.steps.high
        assert point.steps.value / point.steps.low == pytest.approx(widened)
        assert point.steps.high / point.steps.value == pytest.approx(widened)


def test_what_is_written_is_read(found: Prediction, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(found.to_json())
    assert Prediction.from_json(tmp_path / "p.json") == found
    for text, told in (
        ("[]", "is no prediction"),
        ("{", "cannot read"),
        ('{"critical_batch_size": 1, "schema": 9}', "schema 9"),
        ('{"critical_batch_size": 1}', "critical_batch_size"),
    ):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(PredictionError, match=told):
            Prediction.from_json(tmp_path / "p.json")
    with pytest.raises(PredictionError, match="batchscope predict WORKLOAD"):
        Prediction.from_json(tmp_path / "none.json")


def test_the_example_of_the_page_runs(found: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "predictions.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.setattr(bs, "predict", lambda *_, **__: found)  # the training of the fixture
    exec(compile(block, "docs/predictions.md", "exec"), {})


def test_without_a_rate_the_fastest_of_four_is_taken() -> None:
    shown = bs.predict("noisy_quadratic/4", goal=GOAL, optimizer="sgd", batch_size=16, steps=400, branches=False)
    assert shown.hyperparameters["learning_rate"] in (0.1, 0.3)
    assert list(shown.by) == ["gradient_noise", "hessian_noise"]


def test_on_a_terminal_and_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["predict", *GIVEN, "--goal", GOAL, "--learning-rate", "0.05", "--no-branches"]
    assert invoke([*asked, "-o", "p.json"]) == DONE
    shown = capsys.readouterr()
    assert "it takes one training" in shown.err
    assert "Predicted critical batch size" in shown.out and "It cost" in shown.out
    assert Prediction.from_json("p.json").goal == GOAL
    assert [path.name for path in Path().iterdir()] == ["p.json"]


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (GIVEN, MISUSE, "give --goal"),
        ([*GIVEN, "--goal", "validation/error < 1"], MISUSE, "It measures validation/loss"),
        ([*GIVEN, "--goal", "soon"], MISUSE, "cannot read the goal"),
        ([*GIVEN[:-1], "3", "--goal", GOAL], FAILED, "train for longer"),
        ([*GIVEN, "--goal", GOAL, "-o", "."], MISUSE, "is a folder"),
    ],
)
def test_refusals(arguments: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["predict", *arguments]) == status
    assert told in " ".join(capsys.readouterr().err.replace("│", "").split())


def test_a_loss_for_a_batch_has_no_noise_of_single_examples() -> None:
    import torch  # here, because only this test builds a workload

    data = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    workload = bs.Workload(
        model=lambda: torch.nn.Linear(3, 1),
        loss=lambda outputs, targets: (outputs[:, 0] - targets).square().mean(),
        train=(data, data.sum(1)),
        validation=(data, data.sum(1)),
        loss_per="batch",
        evaluation_batch_size=32,
    )
    with pytest.raises(BatchscopeError, match="no noise of their own"):
        bs.predict(workload, goal="validation/loss < 0.5", learning_rate=0.05, steps=100, branches=False)
