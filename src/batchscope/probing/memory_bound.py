"""How much memory was used, and a bound that makes an allocation fail instead of the machine."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

if sys.platform != "win32":
    import resource

# Of the memory that is available, what updates may take: the rest is for whatever else the machine does meanwhile.
AVAILABLE_SHARE = 0.9

# What allocators say; torch has a class of its own for CUDA only.
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|bad_alloc|"
    r"could not create a memory|ALLOC_FAILED",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory was not enough, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


@contextmanager
def bounded(device: torch.device, most: int | None) -> Iterator[None]:
    """Let an allocation fail, as an exception, that would take more than ``most`` bytes from now on.

    On a CPU it bounds what the process adds to its private memory (Linux only; elsewhere nothing is bounded). On
    CUDA it bounds all that the process holds on the device. None bounds nothing. What was set before is restored.
    """
    if most is None:
        yield
    elif device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        before = torch.cuda.get_per_process_memory_fraction(device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, most / total), device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(before, device)
    elif sys.platform == "linux" and (held := _status("VmData")) is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bounds = [held + most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    else:
        yield


class PeakMemory:
    """The most memory in use over a stretch of work, over a level.

    On CUDA it is ``max_memory_allocated`` over what was allocated when this was made: parameters and data count if
    they came later. On a CPU it is the growth of the resident memory since this was made, and is known only in a
    process that does nothing else.
    """

    def __init__(self, device: torch.device, *, own_process: bool) -> None:
        """Take the level."""
        self._device, self._own_process = device, own_process
        self._read: Callable[[], int | None] = lambda: None
        if device.type == "cuda":
            self._read = lambda: torch.cuda.max_memory_allocated(device)
            self._level = torch.cuda.memory_allocated(device)
        elif own_process:
            self._read = lambda: _status("VmHWM") or _largest_resident()
            _give_back_freed_memory()
            self._level = _status("VmRSS") or _largest_resident() or 0

    def reset(self) -> None:
        """Begin a stretch; where the kernel cannot, the stretch goes on from the last one."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._own_process:
            _give_back_freed_memory()
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM and nothing else

    def read(self) -> int | None:
        """Bytes over the level since ``reset``; None where they cannot be told."""
        most = self._read()
        return None if most is None else max(most - self._level, 0)


def _status(name: str) -> int | None:
    """A line of /proc/self/status in bytes."""
    with suppress(OSError):
        match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(match.group(1)) * 1024 if match else None
    return None


def _give_back_freed_memory() -> None:
    """Let what was freed be resident no more: taken again, it would not show as growth."""
    gc.collect()
    with suppress(OSError, AttributeError):  # the allocator of glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _largest_resident() -> int | None:
    """The most this process ever had resident, where there is no /proc."""
    if sys.platform == "win32":
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
