"""What is settled before the first step: budgets, evaluations, device, and whether the goals can be measured at all."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import torch

from batchscope.analysis.outcomes import ended_early, undecided
from batchscope.engine.randomness import keeping_generators
from batchscope.errors import StudyError
from batchscope.machine.allocation import Bounded
from batchscope.plan.rungs import Grid
from batchscope.plan.timeline import Timeline
from batchscope.spec.goal import is_metric
from batchscope.spec.metric_names import is_named
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload


def timelines_of(study: Study, workload: Workload) -> dict[int, Timeline]:
    """The clock at every batch size; whatever of the algorithm cannot be had there is refused here."""
    found = [
        {size: Timeline(own, size, workload.train_size) for size in study.batch_sizes}
        for own in study.by_optimizer.values()
    ]
    for timeline in (timeline for timelines in found for timeline in timelines.values()):
        for step in {0, timeline.last - 1}:
            timeline.factors(step, step + 1, {name: torch.ones(1) for name in timeline.searched})
    return found[0]  # of whatever optimizer: a batch schedule has one


def grids_of(study: Study, timelines: Mapping[int, Timeline]) -> dict[int, Grid]:
    """Evaluations and rungs at every batch size."""
    ratio, first = study.evaluation.ratio, study.evaluation.first
    return {size: Grid(ratio, first, timeline.last) for size, timeline in timelines.items()}


def check_size(workload: Workload) -> None:
    """Build the model once, where no tensor may be larger than memory can hold beside its gradient.

    Errors:
        MemoryError: From the line of the model that asks for too much.
    """
    with keeping_generators(torch.device("cpu")), Bounded():
        workload.model()


def check_goals(study: Study, workload: Workload) -> None:
    """Refuse a goal on a metric that the workload does not measure, and what its loss cannot serve.

    Raises:
        StudyError: With every such goal, and the nearest metric that there is.
    """
    known = workload.metric_names
    faults = _of_loss(study, workload)
    for number, goal in enumerate(study.goals):
        if goal.metric not in known:
            nearest = difflib.get_close_matches(goal.metric, known, n=1, cutoff=0.0)[0]
            name = goal.metric.removeprefix("validation/")
            remedy = f"add metrics: [{name}] to the study." if is_named(name) else f"did you mean {nearest}?"
            faults.append(
                f"goals[{number}]: {study.workload} does not measure {goal.metric}; {remedy} "
                f"It measures {', '.join(known)}"
            )
    if faults:
        raise StudyError("\n".join(faults))


def _of_loss(study: Study, workload: Workload) -> list[str]:
    """What the study asks for that a workload which needs the plain loop cannot have."""
    faults = []
    if workload.loss_per == "batch":
        searched = any("label_smoothing" in space for space in study.search.spaces.values())
        smooths = study.algorithm.label_smoothing > 0 or searched
        asked = {"label_smoothing": smooths, "discard_small_loss": study.algorithm.discard_small_loss is not None}
        for name in (name for name, is_asked in asked.items() if is_asked):
            faults.append(
                f"algorithm.{name}: it changes the losses of single examples, and the loss of {study.workload} gives "
                "one value for a batch; remove it"
            )
    program = study.engine.program
    if (reason := study.needs_loop) and program not in ("auto", "loop"):
        faults.append(f"engine.program: {program} cannot serve {reason}; write auto, or loop")
    if workload.needs_loop and program not in ("auto", "loop"):
        faults.append(f"engine.program: {program} cannot serve {study.workload}: {workload.needs_loop}; write auto")
    return faults


def check_extension(study: Study, folder: Path, measurements: pl.LazyFrame) -> None:
    """Refuse to go on with a run whose evaluations ended early without what this study asks for.

    Raises:
        StudyError: If a goal is easier than those that the evaluations had in mind, or the policy needs every
            evaluation.
    """
    columns = measurements.collect_schema().names()
    remedy = "give another folder with -o, or run with evaluation.sequential=false there from the start"
    for goal in study.goals:
        if goal.metric in columns and undecided(measurements, goal):
            raise StudyError(
                f"{folder} cannot tell when its trials reached {goal}: evaluations there ended early, once "
                "it was clear that a trial was out of reach of the goals of that time, and none of these was as easy; "
                f"{remedy}"
            )
    if not study.ends_evaluations_early and any(ended_early(measurements, name) for name in columns if is_metric(name)):
        raise StudyError(
            f"policy: {study.policy} needs every evaluation in full, and evaluations in {folder} ended early, once it "
            f"was clear that a trial was out of reach of its goals; {remedy}"
        )
