"""A learning-rate function of the user's: in packs and the loop the schedule that it is, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import Program, advance
from batchscope.engine.vmap import Vmap
from batchscope.errors import BatchscopeError, StudyError
from batchscope.plan.sampling import first_trials
from batchscope.schedules import Function
from engine.workbench import study, training

KEY = "algorithm.learning_rate_schedule"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine2.py").write_text(
        "def falling(step, total_steps):\n    return 1 - step / total_steps\n\n"
        "def negative(step, total_steps):\n    return -1\n\ndef none(step, total_steps):\n    pass\n\n"
        "def fails(step, total_steps):\n    return 1 / 0\n"
    )
    return tmp_path / "mine2.py"


def states(program: Program) -> dict[str, torch.Tensor]:
    trials = first_trials(program.training.loaded.study.search, 8, 0, 5)
    advanced = advance(program, Pack.fresh(program.training, trials), 6, (6,))
    assert advanced is not None
    return advanced[0].state


@pytest.mark.parametrize("program", [Loop, Vmap])
def test_it_trains_as_the_schedule_that_it_is(file: Path, program: type[Program]) -> None:
    ours = training(None, f"{KEY}={file}:falling", "algorithm.warm_up.length=3")
    linear = training(None, f"{KEY}={{name: linear, unit: budget, decay_steps: 1}}", "algorithm.warm_up.length=3")
    expected = states(program(linear))
    for name, value in states(program(ours)).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("negative", r"negative\(0, 60\) must give a factor .* at least 0 and finite, got -1"),
        ("none", r"none\(0, 60\) must give a factor .* got None"),
        ("fails", r"fails\(0, 60\) failed: .*mine2.py, line 11: ZeroDivisionError"),
        ("absent", r"has no 'absent'; it has falling, negative, none, fails"),
    ],
)
def test_a_function_that_gives_no_factor_is_refused(file: Path, name: str, message: str) -> None:
    with pytest.raises(BatchscopeError, match=message):
        training(None, f"{KEY}={file}:{name}").timeline.factors(0, 1, {})


def test_ids_depend_on_the_file_and_on_the_budget(file: Path) -> None:
    named = study(f"{KEY}={file}:falling")
    before = named.context("fingerprint")
    assert study(f"{KEY}={file}:falling", "budget.steps=61").context("fingerprint") != before
    file.write_text(file.read_text() + "\n\ndef other():\n    return 1\n")
    assert named.context("fingerprint") != before


def test_it_goes_with_no_batch_schedule_and_counts_steps(file: Path) -> None:
    with pytest.raises(StudyError, match="does not say when the batch size should change"):
        study(f"{KEY}={file}:falling", "algorithm.first_epochs.batch_size=4")
    with pytest.raises(StudyError, match="is a function of steps; remove unit"):
        study(f"{KEY}={{name: '{file}:falling', unit: epochs}}")


def test_it_is_a_schedule_for_any_loop() -> None:
    schedule = Function(lambda step, total_steps: 0.5 ** (step // 10), 100)
    assert schedule.factor(torch.tensor([[0.0], [10.0], [29.0]])).tolist() == [[1.0], [0.5], [0.25]]
