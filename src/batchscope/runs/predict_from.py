"""``bs.predict``: what one training to its goal says of other batch sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from batchscope import workloads
from batchscope.machine.devices import resolve_device
from batchscope.prediction.predicting import prediction_of
from batchscope.prediction.track_record import METHODS
from batchscope.runs.one_training import TrainingRequest, on_threads, training_of
from batchscope.runs.preflight import check_goals
from batchscope.runs.run_folder import Run
from batchscope.spec.goal import Goal
from batchscope.spec.prediction import Prediction
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload

# Rates are tried where none is given; it only has to be there.
ANY_RATE = 0.1
EPOCHS = 20.0


def predict(
    source: str | Path | Workload | Study | Run,
    *,
    goal: str | Goal | None = None,
    batch_size: int | None = None,
    optimizer: str | None = None,
    learning_rate: float | None = None,
    momentum: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    branches: bool = True,
    seed: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    data_dir: str | Path | None = None,
    on_progress: Callable[[str], None] = lambda doing: None,
) -> Prediction:
    """Predict the critical batch size and the steps of other batch sizes from one training to a goal.

    Three methods, beside each other: the gradient noise scale along the training (McCandlish et al. 2018), the same
    with the Hessian, and branches. What is printed is the answer of the one with the best record, corrected and
    widened as that says.

    Args:
        source: The name of a workload, or the workload itself, with the settings below; a study of one point, or its
            file; or a run, or its folder: then the training is the setting that reaches the goal with the fewest
            examples.
        goal: To be reached; of a workload it must be given, of a study or a run it is the first by default.
        batch_size: B_0; 16 for a workload. Of a study, one of its batch sizes.
        optimizer: Of a workload, as in a study.
        learning_rate: Of a workload; None tries four, each for no longer than the best one took.
        momentum: Of a workload; None for the optimizer's default.
        epochs: Of a workload, the most to train for; 20, unless ``steps`` is given.
        steps: Likewise, in steps at B_0.
        branches: Whether to branch too, the dearest of the three.
        seed: Of initial values and orders; None for the study's.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes a GPU if there is one.
        threads: Of the CPU; None for those of the study's engine, or one, which is the fastest for small models.
        data_dir: Where data sets lie.
        on_progress: Told what is being done.

    A goal that is not reached, or a training that tells nothing, is a ``PredictionError``; what cannot be trained as
    asked a ``StudyError``.
    """
    of_workload = isinstance(source, Workload) or not _is_study(source)
    if of_workload and epochs is None and steps is None:
        epochs = EPOCHS
    try_rates = of_workload and learning_rate is None
    rate = ANY_RATE if try_rates else learning_rate
    request = TrainingRequest(source, batch_size, optimizer, rate, momentum, epochs, steps, goal, seed)
    one, workload = training_of(request, data_dir, to_goal=True)
    check_goals(one.study, workload)
    with workloads.explained(one.study.workload), on_threads(one.study.engine, threads):
        return prediction_of(
            one,
            workload,
            torch.device(resolve_device(device)),
            one.study.goals[0],
            methods=METHODS if branches else METHODS[:2],
            try_rates=try_rates,
            on_progress=on_progress,
        )


def _is_study(source: object) -> bool:
    if isinstance(source, Study | Run):
        return True
    path = Path(str(source))
    return (path / "study.yaml").is_file() or path.suffix in (".yaml", ".yml")
