"""Models x programs x (full, ragged, partial): each agrees with the loop, or is refused by name before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from batchscope import workloads
from batchscope.engine.choice import PROGRAMS, choose, in_words
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import Measurements, Program, advance
from batchscope.engine.qualification import Reference, qualify
from batchscope.engine.training import Loaded, Training
from batchscope.engine.watch import Watch
from batchscope.errors import WorkloadError
from batchscope.plan.sampling import first_trials
from batchscope.spec.goal import Goal
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload
from engine.zoo import MODELS, NEVER_A_GRAPH

TRIALS = 4
STUDY = """
workload: zoo
algorithm: {optimizer: momentum}
batch_sizes: [7]
search: {trials: 4, space: {learning_rate: {min: 1e-3, max: 1e-1, scale: log}, momentum: 0.9}}
goals: ["validation/error < 0.001"]
budget: {steps: 12}
engine: {threads: 1}
"""

GRAPHS = ("traced", "vmap")
COMPILED = ("compiled_loop", "compiled")
# Machine code is made of the very graphs that are compared above, a minute or so for each model: of each kind one.
MADE_OF = ("convolution, batch norm, view", "GRU", "masked attention, tied weights", "spectral and weight norm")
# Of each family of models one in the default suite, for the time; what must be refused is refused in milliseconds.
QUICK = {("convolution, batch norm, view", "traced"), ("GRU", "vmap"), ("modules in place", "traced")}


def row(name: str, program: str) -> Any:
    quick = (name, program) in QUICK or (name in NEVER_A_GRAPH and program in GRAPHS)
    return pytest.param(name, program, marks=() if quick else pytest.mark.slow)


def bench(workload: Workload, dtype: str = "float64", program: str = "auto") -> Training:
    study = Study.from_text(STUDY, [f"engine.dtype={dtype}", f"engine.program={program}"])
    return Training(Loaded(workload, study, torch.device("cpu")), 7)


def trained(program: Program) -> tuple[dict[str, Tensor], list[Measurements]]:
    """A pack to the end: with evaluations in full and in part, and from the middle on with half of its members."""
    trials = first_trials(program.training.loaded.study.search, 7, 0, TRIALS)
    goal = (Goal.parse("validation/error < 0.001"),)
    first = advance(
        program, Pack.fresh(program.training, trials), 6, (1, 6), watch=Watch(goal, (0,) * 4, frozenset({6}))
    )
    assert first is not None
    last = advance(program, first[0].only([0, 2]), 12, (8, 12), watch=Watch(goal, (0, 0), frozenset({12})))
    assert last is not None
    return last[0].state, [first[1], last[1]]


def assert_same(program: Program) -> None:
    """In float64, where rounding explains nothing that is to be seen."""
    (state, evaluations), (wanted, reference) = trained(program), trained(Loop(program.training))
    for name, value in wanted.items():
        torch.testing.assert_close(state[name], value, rtol=1e-7, atol=1e-9, msg=name)
    for ours, theirs in zip(evaluations, reference, strict=True):
        assert ours.ends == theirs.ends
        for name, rows in theirs.metrics.items():
            for own, other in zip(ours.metrics[name], rows, strict=True):
                assert measured(own) == pytest.approx(measured(other), rel=1e-7, abs=1e-9), name


def measured(values: list[float | None]) -> dict[int, float]:
    """By trial, those that an evaluation gave."""
    return {k: value for k, value in enumerate(values) if value is not None}


@pytest.mark.parametrize(
    ("name", "program"),
    [row(name, program) for name in MODELS for program in GRAPHS]
    + [row(name, program) for name in MADE_OF for program in COMPILED],
)
def test_a_program_agrees_with_the_loop_or_is_refused(name: str, program: str) -> None:
    training = bench(MODELS[name]())
    trials = first_trials(training.loaded.study.search, 7, 0, TRIALS)
    try:
        found = PROGRAMS[program](training)
        qualify(found, Reference(training, trials), TRIALS)
    except Exception as error:
        assert in_words(error)
        with pytest.raises(WorkloadError, match=f"engine.program: {program} cannot compute batch size 7: .*Write"):
            choose(training, trials, training.loaded.study.engine.model_copy(update={"program": program}))
        return
    assert name not in NEVER_A_GRAPH
    assert_same(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_right_in_float64_is_not_refused_for_its_rounding(name: str, dtype: str) -> None:
    for program in GRAPHS:
        # In bfloat16 some operations have no kernel under a transform.
        words = refused(name, program, dtype)
        assert "numbers are not" not in words or refused(name, program, "float64"), words


def refused(name: str, program: str, dtype: str) -> str:
    """Why a program does not qualify; empty where it does."""
    training = bench(MODELS[name](), dtype)
    trials = first_trials(training.loaded.study.search, 7, 0, TRIALS)
    try:
        qualify(PROGRAMS[program](training), Reference(training, trials), TRIALS)
    except Exception as error:
        return in_words(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["digits/softmax", "digits/mlp-32-dropout", "noisy_quadratic/20", "mnist/fc-32", "mnist/simple-cnn-narrow"]
)
@pytest.mark.parametrize("program", GRAPHS)
def test_every_built_in_workload_has_its_graphs(name: str, program: str, request: pytest.FixtureRequest) -> None:
    data_dir: Path | None = request.getfixturevalue("data_dir") if "mnist" in name else None
    training = bench(workloads.load(name, data_dir), "float32")
    trials = first_trials(training.loaded.study.search, 7, 0, TRIALS)
    qualify(PROGRAMS[program](training), Reference(training, trials), TRIALS)
