"""How worker processes start: forked from one process that has imported what all of them need.

Every process that imports torch by itself takes two seconds and some hundred MiB for it; forked ones take
milliseconds, and share that memory. The process that they are forked from starts while the driver is still importing
and loading data itself. It holds no data and has no thread pool of torch's, so forking it is safe where forking the
driver is not. What it was started with, its environment above all, may be older than what the driver has now: workers
are told (see ``local._serve``).
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import Any

# The name of the file that says whose a folder for temporary files is.
MARK = "batchscope"
# An import that a fork server cannot do is done by every worker for itself.
PRELOADED = ["batchscope.executors.preloaded"]


def begin() -> bool:
    """Start the process that workers are forked from, in the background, unless it runs; false where there is none."""
    # Elsewhere there is no forking, or system libraries do not survive it.
    if sys.platform != "linux":
        return False
    forkserver.set_forkserver_preload(PRELOADED)
    try:
        resource_tracker.ensure_running()  # which clears the mask of signals
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()  # deaf to Ctrl-C from its first moment, before it can say so itself
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _mark()
        _tidy()
    except OSError:  # no place for its socket: a folder for temporary files that is full, or has too long a path
        return False
    return True


def _mark() -> None:
    """Say in the folder of the server's socket whose it is, if it is ours: whoever is killed cannot remove it."""
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)
    with suppress(OSError):
        mark = Path(util.get_temp_dir()) / MARK
        if server and not mark.exists() and _fields(server)[1] == str(os.getpid()):  # not of what forked this process
            mark.write_text(_identity(os.getpid()))


def _tidy() -> None:
    """Remove the folders of drivers that were killed."""
    for mark in Path(tempfile.gettempdir()).glob(f"pymp-*/{MARK}"):
        with suppress(OSError, ValueError):
            owner = mark.read_text()
            realm, pid, _ = owner.rsplit(" ", 2)
            if _identity(os.getpid()).startswith(f"{realm} ") and _identity(int(pid)) != owner:
                shutil.rmtree(mark.parent)


def _identity(pid: int) -> str:
    """Boot, process namespace, number and start of a process; a number that was given again is another."""
    try:
        started = _fields(pid)[19]
    except OSError:
        started = "gone"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()} {pid} {started}"


def _fields(pid: int) -> list[str]:
    """What the kernel says of a process, from its state on (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def context() -> Any:
    """What starts workers: a context of ``multiprocessing``."""
    return multiprocessing.get_context("forkserver" if begin() else "spawn")
