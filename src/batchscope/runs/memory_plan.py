"""What of a run fits into the memory that there is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from batchscope.amounts import counted, memory
from batchscope.errors import StudyError
from batchscope.runs.demand import Demand, MiB


@dataclass(frozen=True)
class MemoryPlan:
    """What is run at once so that it fits.

    Attributes:
        workers: Processes; 0 for none beside the driver.
        pack_limits: For every batch size, the largest pack.
        held_bytes: What a worker may keep of states that it is not advancing; None for all.
        bytes: The peak of driver and workers together, roughly.
    """

    workers: int
    pack_limits: Mapping[int, int]
    held_bytes: int | None
    bytes: int


def fit(need: Demand, workers: int, packs: Mapping[int, Sequence[int]], limit: int | None) -> MemoryPlan:
    """As many workers as fit with the largest packs; if not even one does, one with smaller packs.

    Args:
        need: What computing takes.
        workers: The most.
        packs: For every batch size, the pack sizes that are allowed.
        limit: Bytes, for driver and workers together; None for no limit.

    Raises:
        StudyError: If one worker with the smallest packs does not fit, with what to type.
    """
    largest = {size: max(allowed) for size, allowed in packs.items()}
    for count in range(max(1, workers), 0, -1):
        found = _fitted(need, min(count, workers), largest)
        if limit is None or found.bytes <= limit:
            return found
        spilled = _with_states_on_disk(need, found, limit)
        if spilled is not None:
            return spilled
    assert limit is not None
    count = min(1, workers)
    least = {size: min(allowed) for size, allowed in packs.items()}
    chosen = {}
    for size, allowed in packs.items():
        fitting = [pack for pack in allowed if _bare(need, count, {size: pack}) <= limit]
        chosen[size] = max(fitting, default=min(allowed))
    spilled = _with_states_on_disk(need, _fitted(need, count, chosen), limit)
    if spilled is None:
        size = max(least, key=lambda size: need.worker(size, least[size]))
        pack, bytes_needed = least[size], _bare(need, count, least)
        smaller = "" if pack == 1 else f"a smaller pack (engine.pack_size={pack // 2}), "
        raise StudyError(
            f"one worker with {counted(pack, 'trial')} at once needs about {memory(bytes_needed)} "
            f"at batch size {size}, and the limit is {memory(limit)}; type {smaller}smaller batch_sizes, "
            f"or --max-memory {math.ceil(1.05 * bytes_needed / MiB)}MiB if the machine has it"
        )
    return spilled


def _bare(need: Demand, workers: int, packs: Mapping[int, int]) -> int:
    """Bytes without states that are only kept: the driver, and every worker at its most."""
    peak = max(need.worker(size, pack) for size, pack in packs.items())
    return need.libraries + need.data + workers * need.libraries + max(1, workers) * peak


def _fitted(need: Demand, workers: int, packs: Mapping[int, int]) -> MemoryPlan:
    return MemoryPlan(workers, dict(packs), None, _bare(need, workers, packs) + need.held)


def _with_states_on_disk(need: Demand, found: MemoryPlan, limit: int) -> MemoryPlan | None:
    left = limit - _bare(need, found.workers, found.pack_limits)
    if left < 0:
        return None
    if left >= need.held:
        return found
    return replace(found, held_bytes=left // max(1, found.workers), bytes=limit)
