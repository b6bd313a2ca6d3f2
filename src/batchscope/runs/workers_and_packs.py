"""How a run is laid out on a machine: workers, threads for each, and the packs that fit into the memory."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchscope.engine.choice import PACK_SIZES, ProgramChoice
from batchscope.machine.cores import available_cores
from batchscope.machine.memory import available_bytes
from batchscope.runs.demand import Demand, resident
from batchscope.runs.memory_plan import MemoryPlan, fit
from batchscope.spec.study import Study


@dataclass(frozen=True)
class Layout:
    """Workers, threads for each, and what fits."""

    threads: int
    fit: MemoryPlan

    @property
    def workers(self) -> int:
        """Processes; 0 for none beside the driver."""
        return self.fit.workers


def lay_out(
    study: Study,
    need: Demand,
    workers: int | None,
    device: str,
    choices: Mapping[int, ProgramChoice],
    threads: int | None,
    max_memory: int | None,
) -> Layout:
    """Decide workers and threads, and how large packs may be.

    Groups of trials do not wait for each other inside a rung, and one core for each group loses nothing to
    synchronisation, so there are as many workers as cores, and threads only where there are fewer groups than cores.
    What does not fit into the memory is a ``StudyError``.

    Args:
        study: What is run.
        need: The memory that it takes.
        workers: As asked for; None to decide.
        device: Where to train.
        choices: Those that are made already, by batch size.
        threads: Those of the run that is gone on with or replayed; None to decide.
        max_memory: Bytes; None for what is available.
    """
    cores = available_cores()
    sharing = cores if device == "cpu" else 1
    packs = {size: _packs(study, choices.get(size), sharing) for size in study.batch_sizes}
    if threads is None and study.engine.threads != "auto":
        threads = study.engine.threads
    if workers is None:
        groups = sum(math.ceil(study.search.count / min(allowed)) for allowed in packs.values())
        workers = min(max(1, cores // (threads or 1)), groups) if device == "cpu" else 1
    limit = max_memory
    if limit is None and (free := available_bytes()) is not None:
        limit = free + resident()  # the driver is there already
    fitted = fit(need, workers, packs, limit)
    share = max(1, cores // max(1, fitted.workers))
    return Layout(threads or min(share, thread_limit() or share), fitted)


def thread_limit() -> int | None:
    """The most threads of a process, as ``OMP_NUM_THREADS`` says; None where it says nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return max(1, int(first)) if first.isdecimal() else None


def _packs(study: Study, choice: ProgramChoice | None, sharing: int) -> Sequence[int]:
    """The pack sizes that a batch size may have; where they are open, every worker gets a pack of its trials."""
    if choice is not None:
        return [choice.pack_size]
    if study.engine.pack_size != "auto":
        return [study.engine.pack_size]
    if study.engine.program == "loop":
        return [1]
    most = min(PACK_SIZES[-1], math.ceil(study.search.count / sharing))
    return sorted({1, *(size for size in PACK_SIZES if size < most), most})
