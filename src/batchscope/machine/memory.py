"""How much memory there is, below every limit that holds for this process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory of this machine that a process could take without driving anything else out; None if not known.

    It is the least of the kernel's estimate and of what the limits of the control groups of this process leave.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    found = [_kernel_estimate(root), *_left_by_groups(root)]
    return min((value for value in found if value is not None), default=None)


def _kernel_estimate(root: Path) -> int | None:
    with suppress(OSError):
        match = re.search(r"^MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
        return int(match.group(1)) * 1024 if match else None
    return None


def _left_by_groups(root: Path) -> Iterator[int]:
    """What each limit above this process leaves; files that the kernel can drop at any time count as free."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                base, limit, usage, cache = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
            elif "memory" in controllers.split(","):
                base, limit, usage, cache = (
                    root / "sys/fs/cgroup/memory",
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "total_inactive_file",
                )
            else:
                continue
            here = base / path.lstrip("/")
            for folder in (here, *here.parents):  # a limit of any group above holds too
                with suppress(OSError, ValueError):  # "max", or a group that is not shown in this container
                    room = int((folder / limit).read_text()) - int((folder / usage).read_text())
                    match = re.search(rf"^{cache} (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
                    yield max(room + (int(match.group(1)) if match else 0), 0)
                if folder == base:
                    break
