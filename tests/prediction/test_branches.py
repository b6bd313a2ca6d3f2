"""Branches of real trainings: against closed forms, against a loop in torch, and the warm-up that follows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import batchscope as bs
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import advance
from batchscope.engine.training import Loaded, Training
from batchscope.errors import AnalysisError, StudyError
from batchscope.interval import Interval
from batchscope.prediction.branches import Branch, Branches, BranchPoint, warm_up
from batchscope.prediction.one_training import OneTraining
from batchscope.runs.one_training import TrainingRequest, training_of
from batchscope.schedules import Constant, staged_batch_schedule
from engine.workbench import Plain, classification, study
from prediction.exact_branches import Quadratic

STEPS, REPLICATES = 320, 6


@pytest.fixture(scope="module")
def quadratic() -> Branches:
    """Of a noisy quadratic with momentum, to a factor of four."""
    return bs.branch(
        "noisy_quadratic/20",
        at=[0.1, 0.5],
        batch_size=4,
        optimizer="momentum",
        learning_rate=0.03,
        momentum=0.8,
        steps=STEPS,
        window=0.1,
        largest_factor=4,
        replicates=REPLICATES,
        tolerance=0.999,
    )


def test_losses_are_those_of_the_closed_form(quadratic: Branches) -> None:
    """The excess of the mean of four evaluations, one after each of the last updates of the largest factor."""
    exact = Quadratic(20, 4, 0.03, 0.8)
    assert quadratic.window == 32 * 4
    for point in quadratic.points:
        losses = exact.expected(point.examples // 4, 32, (1, 2, 4), [20, 24, 28, 32])
        spread = exact.simulated(point.examples // 4, 32, (1, 2, 4), [20, 24, 28, 32], 400, seed=0)
        apart = 4 / np.sqrt(REPLICATES)
        assert point.loss_after == pytest.approx(losses[0], abs=apart * spread[0].std())
        for index, branch in enumerate(point.branches, 1):
            excess = (losses[index] - losses[0]) / losses[0]
            own = ((spread[index] - spread[0]) / spread[0].mean()).std()
            assert branch.excess.value == pytest.approx(excess, abs=apart * own + 0.02), (point.at, branch.factor)


def test_the_pairs_share_their_noise(quadratic: Branches) -> None:
    """The difference of two branches that see the same examples is told far better than that of two that do not."""
    exact = Quadratic(20, 4, 0.03, 0.8)
    losses = exact.simulated(160, 32, (1, 2), [20, 24, 28, 32], 400, seed=1)
    unpaired = np.sqrt(losses[0].var() + losses[1].var()) / losses[0].mean()
    found = quadratic.points[1].branches[0].excess
    assert found.high is not None and found.value is not None
    assert (found.high - found.value) * np.sqrt(REPLICATES) / 2.015 < unpaired / 1.5


def test_the_cost_is_what_was_trained(quadratic: Branches) -> None:
    """Six trainings to 0.5 + 0.1 of the length, two branches at two points; evaluations of the one example there is."""
    trained = REPLICATES * (0.5 + 0.1 + 2 * 2 * 0.1)
    evaluated = REPLICATES * 2 * (1 + 4 * 3) / 3 / (STEPS * 4)
    assert quadratic.cost.trainings == pytest.approx(trained + evaluated)
    assert quadratic.cost.at_most == pytest.approx(quadratic.cost.trainings)


def test_the_same_again_is_the_same(quadratic: Branches) -> None:
    document = json.loads(quadratic.to_json())
    assert document["schema"] == 1
    assert [point["examples"] for point in document["points"]] == [128, 640]
    assert document["points"][0]["branches"][1]["batch_size"] == 16
    assert document["warm_up"]["total_examples"] == STEPS * 4


def test_a_training_with_stages_is_that_of_a_loop_in_torch() -> None:
    """The rate moves with the batch size; the optimizer's state stays as it is."""
    one = study("batch_sizes=[4]", "search.space={learning_rate: 0.05, momentum: 0.9}", "budget.steps=24")
    data = classification(lambda: Plain(dropout=0.0))
    loaded = Loaded(data, one, torch.device("cpu"), drawn_at_once=4)
    plan = staged_batch_schedule(
        Constant(), {0: 4, 10 * 4 / 96: 8, 16 * 4 / 96: 16}, train_size=96, epochs=1, rule="square_root"
    )
    training = Training(loaded, 4, schedule=plan)
    trial = OneTraining(one).trial(0)
    pack = Pack.fresh(training, [trial])
    module = loaded.module(trial.seed)
    advanced = advance(Loop(training), pack, plan.total_updates, ())
    assert advanced is not None and plan.total_updates == 10 + 3 + 2
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    seen = 0
    for size, updates in ((4, 10), (8, 3), (16, 2)):
        optimizer.param_groups[0]["lr"] = 0.05 * (size / 4) ** 0.5
        for _ in range(updates):
            inputs, targets = loaded.batches(0).take(seen, size)
            optimizer.zero_grad()
            torch.autograd.backward(data.loss(module(inputs), targets).mean())
            optimizer.step()
            seen += size
    for name, value in module.named_parameters():
        torch.testing.assert_close(advanced[0].state[f"parameter/{name}"][0], value.detach(), rtol=1e-10, atol=1e-12)


def point(at: int, critical: float | None, largest: int = 8) -> BranchPoint:
    """A point of a training of 1,000 examples at batch size 10."""
    branches = (Branch(largest, Interval(0.0, 0.0, 0.0)),)
    return BranchPoint(at / 1000, at, 1.0, 1.0, branches, Interval(critical, 10.0, None))


def test_the_warm_up_is_the_largest_doubling_that_is_not_above_the_critical_batch_size() -> None:
    points = [point(100, 19.0), point(300, 45.0), point(600, None)]
    given = {"batch_size": 10, "examples": 1000, "train_size": 500, "learning_rate": 0.1, "momentum": 0.9}
    found = warm_up(points, Constant(), rule="linear", **given)  # type: ignore[arg-type]
    assert [(phase.example_start, phase.batch_size) for phase in found.phases] == [(0, 10), (300, 40), (580, 80)]
    assert [phase.learning_rate for phase in found.phases] == pytest.approx([0.1, 0.4, 0.8])
    assert found.total_updates == 30 + 7 + 5 and found.original_updates == 100
    assert found.largest_noise_scale_departure == pytest.approx(0, abs=1e-12)  # the linear rule keeps it


def test_noise_that_makes_a_critical_batch_size_fall_is_averaged_out() -> None:
    points = [point(100, 80.0), point(300, 20.0), point(600, 40.0)]  # 3, 1, 2 doublings: 2, 2, 2
    given = {"batch_size": 10, "examples": 1000, "train_size": None, "learning_rate": 0.1, "momentum": 0.9}
    found = warm_up(points, Constant(), rule="square_root", **given)  # type: ignore[arg-type]
    assert [(phase.example_start, phase.batch_size) for phase in found.phases] == [(0, 10), (100, 40)]
    assert found.phases[1].learning_rate == pytest.approx(0.2)


def test_the_example_of_the_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "branches.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    exec(compile(block, "docs/branches.md", "exec"), {})


def test_adam_moves_its_rate_by_the_square_root() -> None:
    given = {"optimizer": "adam", "learning_rate": 0.01, "steps": 170}
    found = bs.branch("digits/softmax", at=[0.3], window=0.1, replicates=2, **given)  # type: ignore[arg-type]
    assert found.rule == "square_root"
    assert found.points[0].branches[0].excess.value is not None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "give --learning-rate"),
        ({"learning_rate": 0.1, "steps": 60}, "train for 80 steps or more"),
        ({"learning_rate": 0.1, "steps": 400, "at": [0.99]}, "up to 0.92"),
        ({"learning_rate": 0.1, "steps": 400, "replicates": 1}, "at least 2 replicates"),
        ({"learning_rate": 0.1, "steps": 400, "rule": "cubic"}, "one of constant, linear, square_root"),
        ({"learning_rate": 0.1, "steps": 400, "tolerance": 0}, "--tolerance 0.01"),
        ({"learning_rate": 0.1, "steps": 400, "epochs": 1}, "not in both"),
        ({"learning_rate": 0.1, "steps": 400, "threads": 0}, "at least 1"),
        ({"learning_rate": 1e30, "steps": 400, "replicates": 2}, "smaller learning rate"),
    ],
)
def test_what_cannot_be_branched_says_what_to_type(given: dict[str, object], told: str) -> None:
    with pytest.raises(StudyError, match=told):
        bs.branch("noisy_quadratic/4", **given)  # type: ignore[arg-type]


def test_a_study_is_a_training_where_everything_has_one_value() -> None:
    several = bs.Study.from_text(
        "{workload: digits/softmax, batch_sizes: [8, 16], search: {space: {learning_rate: {min: 0.1, max: 1}}}, "
        'goals: ["validation/error < 0.1"], budget: {steps: 400}}'
    )
    with pytest.raises(StudyError, match="--batch-size"):
        bs.branch(several)
    with pytest.raises(StudyError, match="searches learning_rate: run it"):
        bs.branch(several, batch_size=8)
    with pytest.raises(StudyError, match="leave out --learning-rate"):
        bs.branch(several, batch_size=8, learning_rate=0.1)


@pytest.mark.usefixtures("without_page")
def test_a_run_gives_the_setting_of_the_fewest_examples(tmp_path: Path) -> None:
    text = (
        "{workload: digits/softmax, batch_sizes: [8, 64], engine: {program: loop, pack_size: 1, threads: 1}, "
        "search: {trials: 3, confirm: {seeds: 0}, space: {learning_rate: {min: 0.05, max: 1, scale: log}}}, "
        'goals: ["validation/error < 0.12"], budget: {epochs: 4}}'
    )
    run = bs.run(bs.Study.from_text(text), tmp_path / "run", workers=0)
    cheapest = bs.recommend(run).cheapest
    one, _ = training_of(TrainingRequest(tmp_path / "run"))
    assert one.batch_size == cheapest.batch_size
    assert dict(one.point) == dict(cheapest.hyperparameters)
    assert one.study.budget.steps == round(cheapest.steps.value or 0)
    with pytest.raises(AnalysisError):
        training_of(TrainingRequest(run, goal="validation/error < 0.001"))
