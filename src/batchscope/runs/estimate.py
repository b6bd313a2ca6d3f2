"""What a study would cost: trials, rungs, evaluations, time and memory, before anything is run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from batchscope import workloads
from batchscope.amounts import parse_size
from batchscope.engine.calling import called
from batchscope.engine.choice import (
    CannotTrain,
    ProgramChoice,
    choose,
    in_words,
    milliseconds_per_step,
    program_of,
)
from batchscope.engine.evaluate import Part, evaluated_size, parts
from batchscope.engine.pack import Pack
from batchscope.engine.randomness import keeping_generators
from batchscope.engine.training import Loaded, Training, losses
from batchscope.machine.devices import resolve_device
from batchscope.plan.rungs import Grid
from batchscope.plan.sampling import first_trials
from batchscope.runs.demand import demand
from batchscope.runs.preflight import check_goals, check_size, grids_of, timelines_of
from batchscope.runs.program_choices import check_pins, replayed
from batchscope.runs.workers_and_packs import lay_out
from batchscope.spec.study import Study
from batchscope.spec.trial import Trial, by_optimizer
from batchscope.spec.workload import Workload
from batchscope.tensors import size_of

# For timing steps and evaluations at all batch sizes together; what would take longer is reckoned from smaller ones.
TIMED_SECONDS = 6.0
# Steps of the loop that a choice takes at the least, and the examples that are timed to see how long those are.
CHOOSING_STEPS = 6
TIMED_EVALUATIONS = 2
FIRST_EXAMPLES = 8


@dataclass(frozen=True)
class BatchSizeEstimate:
    """What one batch size would cost.

    Attributes:
        batch_size: Which.
        trials: Feasible ones wanted.
        confirmations: Trainings with new seeds at the most: of the candidates of every goal, on every seed.
        steps: Budget of a trial.
        rungs: At which all trials are waited for.
        evaluations: Evaluations of a trial that is trained to the budget.
        choice: The program, and how it was timed; without timings where a step would have taken too long to try.
        train_seconds: For all trainings to the budget on one worker; a race most often ends far earlier.
        evaluation_seconds: Likewise, with every evaluation in full; most evaluations of a race end early.
    """

    batch_size: int
    trials: int
    confirmations: int
    steps: int
    rungs: int
    evaluations: int
    choice: ProgramChoice
    train_seconds: float
    evaluation_seconds: float

    @property
    def trainings(self) -> int:
        """Trials and confirmations."""
        return self.trials + self.confirmations


@dataclass(frozen=True)
class Estimate:
    """What a study would cost at the most.

    Attributes:
        rows: One for each batch size.
        workers: Processes that share the work.
        threads: For each.
        memory_bytes: The peak of all processes together, libraries included, within a factor of 2.
        on_disk: Whether states of trials that wait are kept on disk, because not all fit.
        skipped: Batch sizes whose updates cannot be computed, which a run would leave out, and why.
        notes: What is used of the workload's data as it was given, and what its form costs.
    """

    rows: tuple[BatchSizeEstimate, ...]
    workers: int
    threads: int
    memory_bytes: int
    on_disk: bool = False
    skipped: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Wall time if every trial were trained to the budget."""
        return sum(row.train_seconds + row.evaluation_seconds for row in self.rows) / max(1, self.workers)


def estimate(
    study: Study,
    *,
    workload: Workload | None = None,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    replay_choices: str | Path | None = None,
    max_memory: int | str | None = None,
) -> Estimate:
    """Time a few steps and one evaluation at every batch size; no trial is run and nothing is written.

    Args:
        study: What would be run.
        workload: The workload itself, where the study's name for it is only a name.
        workers: As for a run.
        device: As for a run.
        data_dir: As for a run.
        replay_choices: As for a run.
        max_memory: As for a run.

    What cannot be run, or does not fit, is a ``BatchscopeError`` as for a run.
    """
    device = resolve_device(device)
    known = (workload or workloads.load(study.workload, data_dir)).measuring(study.metrics)
    check_goals(study, known)
    check_size(known)
    timelines = timelines_of(study, known)
    choices: Mapping[int, ProgramChoice] = {}
    recorded_threads = None
    if replay_choices is not None:
        recorded = replayed(Path(replay_choices), study, device)
        check_pins(study, recorded)
        choices, recorded_threads = recorded.choices, recorded.threads
    need = demand(study, known, timelines, device)
    wanted = 0 if workload is not None else workers
    limit = None if max_memory is None else parse_size(max_memory)
    layout = lay_out(study, need, wanted, device, choices, recorded_threads, limit)
    loaded = Loaded(known, study, torch.device(device))
    threads = torch.get_num_threads()
    torch.set_num_threads(layout.threads)
    # Of several optimizers the one that a worker would begin with stands for all.
    timed = min(study.search.spaces, key=lambda name: loaded.of(name).needs_loop is None)
    rows: list[BatchSizeEstimate] = []
    skipped: dict[int, str] = {}
    grids, ends = grids_of(study, timelines), time.perf_counter() + TIMED_SECONDS
    try:
        with keeping_generators(loaded.device):
            per_example = _seconds_per_example(loaded)
            for place, (batch_size, grid) in enumerate(grids.items()):
                left = (ends - time.perf_counter()) / (len(grids) - place)
                timer = _Timer(study, Training(loaded.of(timed), batch_size), grid)
                if left < per_example * (CHOOSING_STEPS * batch_size + timer.evaluated):
                    rows.append(timer.reckoned(batch_size * per_example, per_example, rows[-1] if rows else None))
                    continue
                most = layout.fit.pack_limits[batch_size]
                each = first_trials(study.search, batch_size, study.seed, most * len(study.search.spaces))
                trials = by_optimizer(each)[timed]
                try:
                    rows.append(timer.timed(choices.get(batch_size), trials, left))
                except CannotTrain as error:
                    assert isinstance(error.__cause__, Exception)
                    skipped[batch_size] = in_words(error.__cause__)
                    if len(skipped) == len(grids):
                        raise error.__cause__ from None
                else:
                    last = rows[-1]
                    per_example = last.train_seconds / last.trainings / last.steps / batch_size
    finally:
        torch.set_num_threads(threads)
    fitted = layout.fit
    found = tuple(rows), layout.workers, layout.threads, fitted.bytes
    return Estimate(*found, fitted.held_bytes is not None, skipped, known.remarks)


def _seconds_per_example(loaded: Loaded) -> float:
    """Of an update of a few examples, which takes longer for each than one of many."""
    inputs, targets = loaded.batches(0).take(0, FIRST_EXAMPLES)
    module = loaded.module().train()
    seconds = math.inf
    for _ in range(2):
        started = time.perf_counter()
        try:
            losses(loaded.workload, called(module, inputs), targets).mean().backward()  # type: ignore[no-untyped-call]
        except Exception:  # of the user's own code: it is told where a step is taken
            return 0.0
        seconds = min(seconds, time.perf_counter() - started)
    return seconds / FIRST_EXAMPLES


class _Timer:
    """What the work at a batch size takes."""

    def __init__(self, study: Study, training: Training, grid: Grid) -> None:
        self._study, self._training, self._grid = study, training, grid

    @property
    def evaluated(self) -> int:
        """Examples that a choice, and the timing after it, evaluate at the least: a part of every size, two again."""
        sizes = [size_of(part.examples) for part in parts(self._training)]
        return sum(set(sizes)) + TIMED_EVALUATIONS * sizes[-1]

    def timed(self, recorded: ProgramChoice | None, trials: list[Trial], seconds: float) -> BatchSizeEstimate:
        """By measurement, of the recorded choice or of one that is made in about so many seconds."""
        if recorded is None:
            chosen = choose(self._training, trials, self._study.engine, seconds)
            choice, program = chosen.choice, chosen.program
        else:
            choice, program = recorded, program_of(recorded, self._training)
        pack = Pack.fresh(self._training, trials[: choice.pack_size])
        known = choice.timings.get(f"{choice.program}-{choice.pack_size}")
        step = known or milliseconds_per_step(program, pack.trials, seconds / 10)
        part: Part = list(parts(self._training))[-1]
        evaluation = math.inf
        for _ in range(TIMED_EVALUATIONS):
            started = time.perf_counter()
            program.evaluate(pack.state, part.examples)
            evaluation = time.perf_counter() - started
        size = size_of(part.examples)
        return self._row(choice, step / 1000, evaluation / len(pack.trials) * evaluated_size(self._training) / size)

    def reckoned(self, step: float, example: float, smaller: BatchSizeEstimate | None) -> BatchSizeEstimate:
        """From the seconds of a step and of an example, or from a smaller batch size whose evaluation was timed."""
        evaluation = smaller.evaluation_seconds / smaller.trainings / smaller.evaluations if smaller else None
        choice = replace(smaller.choice, timings={}) if smaller else ProgramChoice("loop", 1)
        return self._row(
            choice, step, evaluated_size(self._training) * example / 3 if evaluation is None else evaluation
        )

    def _row(self, choice: ProgramChoice, step: float, evaluation: float) -> BatchSizeEstimate:
        search, grid = self._study.search, self._grid
        count, evaluations = search.count, len(grid.evaluations())
        again = search.confirm.seeds * min(search.confirm.candidates * len(self._study.goals), count)
        train, evaluation = (count + again) * grid.last * step, (count + again) * evaluations * evaluation
        rungs = len(grid.rungs())
        size = self._training.batch_size
        return BatchSizeEstimate(size, count, again, grid.last, rungs, evaluations, choice, train, evaluation)
