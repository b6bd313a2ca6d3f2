"""``bs.branch``: from a workload, a study or a run to the training that is branched from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from batchscope import workloads
from batchscope.machine.devices import resolve_device
from batchscope.prediction.branch_plan import LARGEST_FACTOR
from batchscope.prediction.branches import Branches
from batchscope.prediction.branching import AT, REPLICATES, TOLERANCE, Branching, branches_of
from batchscope.runs.one_training import TrainingRequest, on_threads, training_of
from batchscope.runs.run_folder import Run
from batchscope.spec.goal import Goal
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload


def branch(
    source: str | Path | Workload | Study | Run,
    *,
    at: Sequence[float] = AT,
    batch_size: int | None = None,
    optimizer: str | None = None,
    learning_rate: float | None = None,
    momentum: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    goal: str | Goal | None = None,
    window: float | None = None,
    largest_factor: int = LARGEST_FACTOR,
    replicates: int = REPLICATES,
    tolerance: float = TOLERANCE,
    rule: str | None = None,
    seed: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    data_dir: str | Path | None = None,
    on_progress: Callable[[Branching], None] = lambda progress: None,
) -> Branches:
    """The critical batch size over one training, by branches at larger batch sizes (Merrill et al. 2025).

    From points of the training at B_0 it is gone on at 2, 4, 8, ... times B_0 for the same examples, with the learning
    rate moved by the optimizer's rule and nothing else changed. The largest factor whose loss is not above the
    training's by more than the tolerance gives the critical batch size at that point. Training and branches see the
    same examples in the same order; the interval is from replicates, each a training with initial values and an order
    of its own.

    Args:
        source: The name of a workload, or the workload itself, with the settings below; a study of one point, or its
            file; or a run, or its folder: then the training is the setting that reaches the goal with the fewest
            examples, for as long as it takes.
        at: Shares of the training's examples.
        batch_size: B_0; 16 for a workload. Of a study, one of its batch sizes.
        optimizer: Of a workload, as in a study.
        learning_rate: Of a workload; it must be given.
        momentum: Of a workload; None for the optimizer's default.
        epochs: Length of the training of a workload; one, unless ``steps`` is given.
        steps: Likewise, in steps at B_0.
        goal: Of a run, by default its study's first.
        window: Share of the training that a branch is trained for; None for 4%, or for up to 20% of a short one, so
            that a branch at four times the batch size makes eight updates.
        largest_factor: Of the batch size; a branch makes at least eight updates.
        replicates: Trainings.
        tolerance: Share of the training's loss by which a branch may end above it.
        rule: ``linear``, ``square_root`` or ``constant``; None for linear with SGD and momentum, square root otherwise.
        seed: Of initial values and orders; None for the study's.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes a GPU if there is one.
        threads: Of the CPU; None for those of the study's engine, or one, which is the fastest for small models.
        data_dir: Where data sets lie.
        on_progress: Called before every branch.

    What cannot be branched from as asked, or diverges, is a ``StudyError``; a run without a setting that reaches the
    goal an ``AnalysisError``.
    """
    one, workload = training_of(
        TrainingRequest(source, batch_size, optimizer, learning_rate, momentum, epochs, steps, goal, seed), data_dir
    )
    with workloads.explained(one.study.workload), on_threads(one.study.engine, threads):
        return branches_of(
            one,
            workload,
            torch.device(resolve_device(device)),
            at=at,
            window=window,
            largest_factor=largest_factor,
            replicates=replicates,
            tolerance=tolerance,
            rule=rule,
            on_progress=on_progress,
        )
