"""``bs.recommend``: a run, or a curve, with a probe, to what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from batchscope.advice.from_prediction import recommend_from
from batchscope.advice.recommendation import Recommendation
from batchscope.advice.recommendation import recommend as of_curve
from batchscope.analysis import Curve
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal
from batchscope.spec.prediction import Prediction
from batchscope.spec.probe import Probe
from batchscope.spec.study import Study


class Answering(Protocol):
    """A run, as far as a recommendation asks it."""

    workload: str
    study: Study | None

    def steps_to_result(self, goal: str | Goal | None = None) -> Curve:
        """The curve of a goal, by default of the study's first one."""


def recommend(
    curve_or_run: Curve | Answering | Prediction,
    probe: Probe | str | Path | None = None,
    *,
    goal: str | Goal | None = None,
    devices: Sequence[int] = (1,),
    bandwidth: float | None = None,
    latency: float = 0.0,
    price: float | None = None,
    power: float | None = None,
    deadline: str | float | None = None,
    budget: float | None = None,
    batch_sizes: Sequence[int] | None = None,
    extrapolate: bool = False,
    any_workload: bool = False,
) -> Recommendation:
    """Which batch size on how many devices reaches the goal fastest, and which cheapest.

    Args:
        curve_or_run: Steps to result: ``run.steps_to_result(goal)``, or the run itself, which also tells the optimizer
            and the schedule, and is checked against the probe; or what ``bs.predict`` found, and all of it is marked
            as predicted.
        probe: Seconds of a step, or the path of the file that ``batchscope probe --json`` printed. Without it hardware
            is idealised: time is steps, cost is examples.
        goal: Of a run, by default its study's first.
        devices: Numbers of devices to choose among.
        bandwidth: GB/s between neighbouring devices, for the ring all-reduce of gradients; None takes bytes as free.
        latency: Microseconds between neighbouring devices.
        price: Of one device for one hour; without it cost is in device-hours.
        power: Watts that one device samples.
        deadline: Seconds, or a text such as ``"2h"``: adds the cheapest option that meets it.
        budget: In the currency of ``price``: adds the fastest option within it.
        batch_sizes: To choose among; all that reached the goal by default.
        extrapolate: Take the fitted law's steps, and the time model's seconds, where nothing was measured; such options
            are marked.
        any_workload: Take a probe of another workload.

    Returns:
        The recommendation; iterating it gives the options of the time-cost Pareto front.

    Raises:
        AnalysisError: If the probe is of another workload, the batch size changes during a trial, or the question
            cannot be answered; a probe file that cannot be read is a ``ProbeError``.
    """
    if isinstance(probe, str | Path):
        probe = Probe.from_json(probe)
    study: Study | None = None
    if isinstance(curve_or_run, Prediction):
        if goal is not None:
            raise AnalysisError(f"a prediction has its goal, {curve_or_run.goal}, already: leave out --goal")
        if probe is not None and not any_workload:
            _require_workload(curve_or_run.workload, probe)
        return recommend_from(
            curve_or_run,
            probe,
            devices=devices,
            bandwidth=bandwidth,
            latency=latency,
            price=price,
            power=power,
            deadline=deadline,
            budget=budget,
            batch_sizes=batch_sizes,
            extrapolate=extrapolate,
        )
    if isinstance(curve_or_run, Curve):
        if goal is not None:
            raise AnalysisError(f"a curve has its goal, {curve_or_run.goal}, already: give the run, or no goal")
        curve = curve_or_run
    elif not hasattr(curve_or_run, "steps_to_result"):
        raise AnalysisError(f"a recommendation is for a run or a curve, got {type(curve_or_run).__name__}")
    else:
        if probe is not None and not any_workload:
            _require_workload(curve_or_run.workload, probe)
        study, curve = curve_or_run.study, curve_or_run.steps_to_result(goal)
    return of_study(
        curve,
        study,
        probe,
        devices=devices,
        bandwidth=bandwidth,
        latency=latency,
        price=price,
        power=power,
        deadline=deadline,
        budget=budget,
        batch_sizes=batch_sizes,
        extrapolate=extrapolate,
    )


def of_study(curve: Curve, study: Study | None, probe: Probe | None = None, **options: Any) -> Recommendation:
    """The recommendation for a curve of a study; ``options`` are those of ``recommend``.

    Raises:
        AnalysisError: If the batch size changes during a trial, or the question cannot be answered.
    """
    if study is None:
        return of_curve(curve, probe, **options)
    if study.algorithm.changes_batch_size:
        raise AnalysisError(
            "a recommendation is for a batch size that stays, and this study changes it during training "
            "(batch_schedule, first_epochs): run the study without them"
        )
    # Where several are searched, it is one of each point's hyperparameters.
    optimizer = "" if study.search.optimizers else study.algorithm.optimizer
    found = of_curve(curve, probe, optimizer=optimizer, schedule=described(study), **options)
    return found if probe is None else replace(found, notes=(*found.notes, *_differences(study, probe)))


def described(study: Study) -> str:
    """The learning-rate schedule of a study, and its warm-up, in words."""
    named = study.algorithm.learning_rate_schedule
    parts = [f"{name} {value}" for name, value in named.parameters.items()]
    text = ", ".join([named.name, *parts])
    if parts and named.unit != "steps":
        text += f" (in {named.unit})" if named.unit == "epochs" else " (in shares of the budget)"
    warm_up = study.algorithm.warm_up
    if warm_up is not None:
        length, unit, _ = warm_up.settled
        shown = {"steps": "steps", "epochs": "epochs", "budget": "of the budget"}[unit]
        text += f", after a warm-up of {'a searched number of' if length is None else f'{length:g}'} {shown}"
    return text


def _require_workload(workload: str, probe: Probe) -> None:
    """Refuse a probe of something else: its seconds say nothing of this run's steps.

    Raises:
        AnalysisError: Naming both.
    """
    if _bare(workload) != _bare(probe.workload):
        raise AnalysisError(
            f"the run is of {workload!r} and the probe of {probe.workload!r}: run batchscope probe {workload} --json > "
            "probe.json, or add --any-workload (any_workload=True) if they are one model and data under two names"
        )


def _bare(workload: str) -> str:
    """A user's file without the folders before it: it may be named from two places."""
    file, colon, function = workload.rpartition(":")
    return f"{Path(file).name}:{function}" if colon and file.endswith(".py") else workload


def _differences(study: Study, probe: Probe) -> list[str]:
    notes, trained = [], " and ".join(study.search.optimizers) or study.algorithm.optimizer
    if probe.optimizer != trained:
        notes.append(
            f"the probe timed updates of {probe.optimizer}, the study trained with {trained}: a step may take longer, "
            "or less long, than is said here"
        )
    for name, words in (("clip_gradient_norm", "gradient clipping"), ("average_weights", "averaged weights")):
        spaces = study.search.spaces.values()
        has = getattr(study.algorithm, name) is not None or any(name in space for space in spaces)
        if has != (getattr(probe, name) is not None):
            one, other = ("without", "with") if has else ("with", "without")
            notes.append(
                f"the probe timed updates {one} {words}, the study trained {other}: batchscope probe study.yaml times "
                "updates as a study makes them"
            )
    if probe.dtype != study.engine.dtype:
        notes.append(f"the probe timed {probe.dtype}, the study trained in {study.engine.dtype}")
    return notes
