"""How worker processes start: forked from one process that has imported what all of them need.

Every process that imports torch by itself takes two seconds and some hundred MiB for it; forked ones take
milliseconds, and share that memory. The process that they are forked from starts while the driver is still importing
and loading data itself. It holds no data and has no thread pool of torch's, so forking it is safe where forking the
driver is not. What it was started with, its environment above all, may be older than what the driver has now: workers
are told (see ``local._serve``).
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing import forkserver
from typing import Any

# An import that a fork server cannot do is done by every worker for itself.
PRELOADED = ["batchscope.executors.preloaded"]


def begin() -> bool:
    """Start the process that workers are forked from, in the background, unless it runs; false where there is none."""
    # Elsewhere there is no forking, or system libraries do not survive it.
    if sys.platform != "linux":
        return False
    forkserver.set_forkserver_preload(PRELOADED)
    try:
        forkserver.ensure_running()
    except OSError:  # no place for its socket: a folder for temporary files that is full, or has too long a path
        return False
    return True


def context() -> Any:
    """What starts workers: a context of ``multiprocessing``."""
    return multiprocessing.get_context("forkserver" if begin() else "spawn")
