"""The one training that branches and predictions are about: of a workload and settings, a study, or a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from batchscope import workloads
from batchscope.advice.recommend import recommend
from batchscope.errors import AnalysisError, StudyError
from batchscope.prediction.one_training import OneTraining, one_training
from batchscope.runs.run_folder import Run
from batchscope.spec.goal import Goal
from batchscope.spec.space import OPTIMIZER
from batchscope.spec.study import Engine, Study
from batchscope.spec.workload import Workload

BATCH_SIZE = 16
# A fresh training takes more than the fewest steps of a search, by so much at the most.
PATIENCE = 4.0
# A goal that nothing reaches: what is trained for a length has none, and a study has one.
NO_GOAL = "validation/loss < -1e300"


@dataclass(frozen=True)
class TrainingRequest:
    """What was given; arguments are those of ``branch``."""

    what: str | Path | Workload | Study | Run
    batch_size: int | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    epochs: float | None = None
    steps: int | None = None
    goal: str | Goal | None = None
    seed: int | None = None

    def refuse(self, *names: str, because: str) -> None:
        """Refuse settings that what was given brings itself.

        Raises:
            StudyError: That names the first.
        """
        for name in names:
            if getattr(self, name) is not None:
                raise StudyError(f"{because}: leave out --{name.replace('_', '-')}")


def training_of(
    source: TrainingRequest, data_dir: str | Path | None = None, *, to_goal: bool = False
) -> tuple[OneTraining, Workload]:
    """The training, and its workload, loaded.

    Errors are those of ``branch``.

    Args:
        source: What was given.
        data_dir: Where data sets lie.
        to_goal: Whether it is trained to a goal, its length being the most that it may take.
    """
    what = source.what
    if isinstance(what, str | Path) and (Path(what) / "study.yaml").is_file():
        what = Run(what)
    elif isinstance(what, str | Path) and Path(what).suffix in (".yaml", ".yml"):
        what = Study.from_yaml(what)
    if isinstance(what, Run):
        one = _of_run(what, source, PATIENCE if to_goal else 1.0)
    elif isinstance(what, Study):
        source.refuse("optimizer", "learning_rate", "momentum", "epochs", "steps", because="the study says it")
        goals = what.goals if source.goal is None else (Goal.parse(str(source.goal)),)
        one = one_training(_seeded(what, source.seed).model_copy(update={"goals": goals}), source.batch_size)
    else:
        if to_goal and source.goal is None:
            raise StudyError('what the training is to reach is to be said: give --goal "validation/error < 0.1", say')
        one = _of_workload(what.name or "workload" if isinstance(what, Workload) else str(what), source)
    if isinstance(what, Workload):
        return one, what.measuring(one.study.metrics)
    return one, workloads.load(one.study.workload, data_dir).measuring(one.study.metrics)


def _of_workload(name: str, source: TrainingRequest) -> OneTraining:
    if source.learning_rate is None:
        raise StudyError(f"how {name} is trained is to be said: give --learning-rate 0.1, say, or a study, or a run")
    if source.epochs is not None and source.steps is not None:
        raise StudyError("the length of the training is given in --epochs or in --steps, not in both")
    space = {"learning_rate": source.learning_rate}
    space |= {} if source.momentum is None else {"momentum": source.momentum}
    document: dict[str, Any] = {
        "workload": name,
        "batch_sizes": [BATCH_SIZE if source.batch_size is None else source.batch_size],
        "search": {"trials": 1, "space": space},
        "goals": [NO_GOAL if source.goal is None else str(source.goal)],
        "budget": {"epochs": source.epochs or 1} if source.steps is None else {"steps": source.steps},
        "seed": source.seed or 0,
    }
    if source.optimizer is not None:
        document["algorithm"] = {"optimizer": source.optimizer}
    return one_training(Study.from_mapping(document, "the training"))


def _of_run(run: Run, source: TrainingRequest, patience: float) -> OneTraining:
    """The setting that reaches the goal with the fewest examples, for as long as it takes, or so many times as long."""
    source.refuse("optimizer", "learning_rate", "momentum", "epochs", "steps", because="the run says it")
    if run.study is None:
        raise AnalysisError("an imported run does not say how it was trained, so that nothing can be trained like it")
    sizes = None if source.batch_size is None else [source.batch_size]
    option = recommend(run, goal=source.goal, batch_sizes=sizes).cheapest
    if option.steps.value is None or not option.hyperparameters:
        raise AnalysisError(f"no setting of {run.folder} is known to reach the goal; ask for an easier one with --goal")
    study = run.study.of(option.hyperparameters)
    space = {name: value for name, value in option.hyperparameters.items() if name != OPTIMIZER}
    document = study.model_dump(mode="json", exclude_none=True)
    document |= {"batch_sizes": [option.batch_size], "search": {"trials": 1, "space": space}}
    document["goals"] = [str(source.goal or run.goals[0])]
    if not study.algorithm.depends_on_budget:
        document["budget"] = {"steps": math.ceil(patience * option.steps.value)}
    return one_training(_seeded(Study.from_mapping(document, str(run.folder)), source.seed))


def _seeded(study: Study, seed: int | None) -> Study:
    return study if seed is None else study.model_copy(update={"seed": seed})


@contextmanager
def on_threads(engine: Engine, threads: int | None) -> Iterator[None]:
    """Inside, torch computes with as many threads as asked for, as the study's engine has, or with one; then as before.

    Raises:
        StudyError: If the number is below one.
    """
    if threads is not None and threads < 1:
        raise StudyError(f"threads must be at least 1, got {threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or (1 if engine.threads == "auto" else engine.threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)
