"""What memory there is, and what of a run fits into it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from batchscope.errors import StudyError
from batchscope.runs.demand import Demand, MiB

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|[KMGT]B|[KMGT]iB)?\s*", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Bytes of ``8GiB``, ``500 MB`` or a plain number of them.

    Raises:
        StudyError: If it is no size of at least one byte.
    """
    match = _SIZE.fullmatch(str(text))
    unit = (match[2] or "B").upper() if match else ""
    scale = (1024 if "I" in unit else 1000) ** "BKMGT".index(unit[0]) if match else 0
    size = int(float(match[1]) * scale) if match else 0
    if size < 1:
        raise StudyError(f"a size of memory is a number with MB, GB, MiB or GiB, got {text!r}; write 8GiB, say")
    return size


def size_text(size: float) -> str:
    """Bytes as one would type them."""
    return f"{math.ceil(size / MiB):,} MiB".replace(",", "") if size < 10 * 2**30 else f"{math.ceil(size / 2**30)} GiB"


def available(root: Path = Path("/")) -> int | None:
    """Bytes that can still be taken here: of the machine, or of the control group if that is less; None if unknown."""
    found = []
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    for folder, limit, used in _groups(root):
        try:
            found.append(int((folder / limit).read_text()) - int((folder / used).read_text()) + _reclaimable(folder))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return max(0, min(found)) if found else None


def _groups(root: Path) -> list[tuple[Path, str, str]]:
    """The control groups of this process, innermost first: folder, and the names of limit and use in it."""
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = [(groups, "memory.max", "memory.current")]
    found.append((groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
    for line in lines:
        number, controllers, path = line.split(":", 2)
        inner = [groups / path.strip("/"), *(groups / path.strip("/")).parents]
        if number == "0" and not controllers:
            found += [(folder, "memory.max", "memory.current") for folder in inner if folder.is_relative_to(groups)]
    return found


def _reclaimable(folder: Path) -> int:
    """Of what a group uses, the file cache that is given back when memory is short."""
    fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int(fields.get("inactive_file", 0))


@dataclass(frozen=True)
class Fit:
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


def fit(need: Demand, workers: int, packs: Mapping[int, Sequence[int]], limit: int | None) -> Fit:
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
            f"one worker with {pack} trial{'s' * (pack > 1)} at once needs about {size_text(bytes_needed)} "
            f"at batch size {size}, and the limit is {size_text(limit)}; type {smaller}smaller batch_sizes, "
            f"or --max-memory {math.ceil(1.05 * bytes_needed / MiB)}MiB if the machine has it"
        )
    return spilled


def _bare(need: Demand, workers: int, packs: Mapping[int, int]) -> int:
    """Bytes without states that are only kept: the driver, and every worker at its most."""
    peak = max(need.worker(size, pack) for size, pack in packs.items())
    return need.libraries + need.data + workers * need.libraries + max(1, workers) * peak


def _fitted(need: Demand, workers: int, packs: Mapping[int, int]) -> Fit:
    return Fit(workers, dict(packs), None, _bare(need, workers, packs) + need.held)


def _with_states_on_disk(need: Demand, found: Fit, limit: int) -> Fit | None:
    left = limit - _bare(need, found.workers, found.pack_limits)
    if left < 0:
        return None
    if left >= need.held:
        return found
    return replace(found, held_bytes=left // max(1, found.workers), bytes=limit)
