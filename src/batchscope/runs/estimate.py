"""What a study would cost: trials, rungs, looks, time and memory, before anything is run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from batchscope import workloads
from batchscope.engine.choice import Choice, choose, milliseconds_per_step, program_of
from batchscope.engine.evaluate import evaluate
from batchscope.engine.pack import Pack
from batchscope.engine.randomness import keeping_generators
from batchscope.engine.training import Cell, Loaded
from batchscope.machine.devices import resolve_device
from batchscope.plan.rungs import Grid
from batchscope.plan.sampling import first_trials
from batchscope.runs.choices import check_pins, replayed
from batchscope.runs.demand import demand
from batchscope.runs.layout import lay_out
from batchscope.runs.memory import parse_size
from batchscope.runs.preflight import check_goals, grids_of, timelines_of
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload


@dataclass(frozen=True)
class Row:
    """What one batch size would cost.

    Attributes:
        batch_size: Which.
        trials: Feasible ones wanted.
        steps: Budget of a trial.
        rungs: At which all trials are waited for.
        looks: Evaluations of a trial that is trained to the budget.
        choice: The program, and how it was timed.
        train_seconds: For all trials to the budget on one worker; a race most often ends far earlier.
        evaluation_seconds: Likewise, with every look in full; most looks of a race end early.
    """

    batch_size: int
    trials: int
    steps: int
    rungs: int
    looks: int
    choice: Choice
    train_seconds: float
    evaluation_seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a study would cost at the most.

    Attributes:
        rows: One for each batch size.
        workers: Processes that share the work.
        threads: For each.
        memory_bytes: The peak of all processes together, libraries included, within a factor of 2.
        on_disk: Whether states of trials that wait are kept on disk, because not all fit.
    """

    rows: tuple[Row, ...]
    workers: int
    threads: int
    memory_bytes: int
    on_disk: bool = False

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
    known = workload or workloads.load(study.workload, data_dir)
    check_goals(study, known)
    timelines = timelines_of(study, known)
    choices: Mapping[int, Choice] = {}
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
    rows = []
    try:
        with keeping_generators(loaded.device):
            for batch_size, grid in grids_of(study, timelines).items():
                cell, most = Cell(loaded, batch_size), layout.fit.pack_limits[batch_size]
                trials = first_trials(study.search, batch_size, study.seed, most)
                choice = choices.get(batch_size) or choose(cell, trials, study.engine)
                rows.append(_row(study, cell, choice, grid))
    finally:
        torch.set_num_threads(threads)
    on_disk = layout.fit.held_bytes is not None
    return Estimate(tuple(rows), layout.workers, layout.threads, layout.fit.bytes, on_disk)


def _row(study: Study, cell: Cell, choice: Choice, grid: Grid) -> Row:
    trials = first_trials(study.search, cell.batch_size, study.seed, min(study.search.count, choice.pack_size))
    program = program_of(choice, cell)
    pack = Pack.fresh(cell, trials)
    evaluate(program.evaluate, cell, pack.state)
    started = time.perf_counter()
    evaluate(program.evaluate, cell, pack.state)
    look = (time.perf_counter() - started) / len(pack.trials)
    step = min(choice.timings.values(), default=None) or milliseconds_per_step(program, pack.trials)
    count, steps, looks = study.search.count, grid.last, len(grid.looks())
    train, evaluation = count * steps * step / 1000, count * looks * look
    return Row(cell.batch_size, count, steps, len(grid.rungs()), looks, choice, train, evaluation)
