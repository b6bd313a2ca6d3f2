"""How processes end: workers with their driver, and a dead one's end in words."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Where Linux counts the processes that it has ended because memory ran out: of the control group, of the machine.
_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it is gone, whatever it is doing then."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_with_driver() -> None:
    """For a worker: end with the driver, be it the parent or not, and leave its signals to it.

    A worker that is forked from a server has that for its parent, and the server dies with the driver. A thread does
    the same where the kernel does not; it cannot end a function that holds the interpreter's lock for ever.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the driver hears them, and says what follows
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    die_with_parent()
    driver = multiprocessing.parent_process()
    if driver is not None:
        threading.Thread(target=_follow, args=(driver,), name="batchscope-driver", daemon=True).start()


def _follow(driver: multiprocessing.process.BaseProcess) -> None:
    driver.join()
    os._exit(1)


def out_of_memory_kills() -> int | None:
    """How many processes the kernel has ended here because memory ran out; None where it does not say."""
    found = None
    for path in _COUNTERS:
        with suppress(OSError, ValueError):
            lines = dict(line.split() for line in path.read_text().splitlines())
            found = (found or 0) + int(lines.get("oom_kill", 0))
    return found


def ending(status: int | None, kills_before: int | None) -> str:
    """What ended a process, for a person.

    Args:
        status: Its exit status, as ``multiprocessing`` gives it: below 0 for a signal.
        kills_before: Of ``out_of_memory_kills``, before it ended.
    """
    if status is None or status >= 0:
        return f"ended with exit status {status}: code of the workload has called os._exit, most likely"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name != "SIGKILL":
        what = {"SIGSEGV": "a segmentation fault", "SIGBUS": "a bus error", "SIGABRT": "an abort"}.get(name)
        fault = f"{what} ({name})" if what else name
        return f"was ended by {fault}: a fault in compiled code that the workload calls, most likely"
    kills = out_of_memory_kills()
    if kills is None:
        return "was killed (SIGKILL): it may have run out of memory; try --workers 1, or a smaller engine.pack_size"
    if kills > (kills_before or 0):
        return "was killed (SIGKILL) because memory ran out: try --workers 1, or a smaller engine.pack_size"
    return "was killed (SIGKILL), and not because memory ran out: by somebody, or by a scheduler"
