"""What a study would cost: trials, rungs, looks, time and memory, before anything is run."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from batchscope import workloads
from batchscope.engine.choice import PACK_SIZES, Choice, choose, milliseconds_per_step, program_of
from batchscope.engine.evaluate import evaluate
from batchscope.engine.pack import Pack
from batchscope.engine.randomness import keeping_generators
from batchscope.engine.training import Cell, Loaded
from batchscope.executors.local import available_cores
from batchscope.plan.sampling import first_trials
from batchscope.runs.preflight import check_goals, grids_of, resolve_device, timelines_of
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload
from batchscope.tensors import leaves

# A step holds the state, its successor, gradients, and about as much again in intermediate results.
STATES_HELD = 4


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
        evaluation_seconds: Likewise.
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
        memory_bytes: Of all workers together, roughly.
    """

    rows: tuple[Row, ...]
    workers: int
    memory_bytes: int

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
) -> Estimate:
    """Time a few steps and one evaluation at every batch size; no trial is run and nothing is written.

    Args:
        study: What would be run.
        workload: The workload itself, where the study's name for it is only a name.
        workers: As for a run.
        device: As for a run.
        data_dir: As for a run.
    """
    device = resolve_device(device)
    loaded = Loaded(workload or workloads.load(study.workload, data_dir), study, torch.device(device))
    check_goals(study, loaded.workload)
    if workers is None:
        workers = available_cores() if device == "cpu" else 1
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, available_cores() // max(1, workers)))
    rows, state_bytes = [], 0
    try:
        with keeping_generators(loaded.device):
            for batch_size, grid in grids_of(study, timelines_of(study, loaded.workload)).items():
                row, held = _row(study, Cell(loaded, batch_size), grid.last, len(grid.rungs()), len(grid.looks()))
                rows.append(row)
                state_bytes = max(state_bytes, held)
    finally:
        torch.set_num_threads(threads)
    parts = [part for part in (loaded.workload.train, loaded.validation) if isinstance(part, tuple)]
    data_bytes = sum(tensor.numel() * tensor.element_size() for part in parts for tensor in leaves(part))
    copies = max(1, workers) + (1 if workers else 0)
    groups = math.ceil(study.search.count / min(row.choice.pack_size for row in rows))
    live = state_bytes * (groups * len(rows) + STATES_HELD * max(1, workers))
    return Estimate(tuple(rows), workers, data_bytes * copies + live)


def _row(study: Study, cell: Cell, steps: int, rungs: int, looks: int) -> tuple[Row, int]:
    trials = first_trials(study.search, cell.batch_size, study.seed, min(study.search.count, PACK_SIZES[-1]))
    choice = choose(cell, trials, study.engine)
    program = program_of(choice, cell)
    pack = Pack.fresh(cell, trials[: choice.pack_size])
    evaluate(program.evaluate, cell, pack.state)
    started = time.perf_counter()
    evaluate(program.evaluate, cell, pack.state)
    look = (time.perf_counter() - started) / len(pack.trials)
    step = min(choice.timings.values(), default=None) or milliseconds_per_step(program, pack.trials)
    count = study.search.count
    row = Row(cell.batch_size, count, steps, rungs, looks, choice, count * steps * step / 1000, count * looks * look)
    return row, sum(value.numel() * value.element_size() for value in pack.state.values())
