"""Which batch size, learning rate and schedule trains your model fastest, or cheapest: measured, not guessed.

The public names load their rooms when they are first used, so that ``import batchscope`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from batchscope import nn as nn
    from batchscope import optim as optim
    from batchscope import schedules as schedules
    from batchscope.errors import BatchscopeError as BatchscopeError
    from batchscope.runs import Run as Run
    from batchscope.runs import open_run as open_run
    from batchscope.runs import probe as probe
    from batchscope.runs import recommend as recommend
    from batchscope.runs import run as run
    from batchscope.spec.goal import Goal as Goal
    from batchscope.spec.probe import Probe as Probe
    from batchscope.spec.study import Study as Study
    from batchscope.spec.workload import Stream as Stream
    from batchscope.spec.workload import Workload as Workload

_HOMES = {
    "BatchscopeError": "batchscope.errors",
    "Goal": "batchscope.spec.goal",
    "Probe": "batchscope.spec.probe",
    "Run": "batchscope.runs",
    "Stream": "batchscope.spec.workload",
    "Study": "batchscope.spec.study",
    "Workload": "batchscope.spec.workload",
    "open_run": "batchscope.runs",
    "probe": "batchscope.runs",
    "recommend": "batchscope.runs",
    "run": "batchscope.runs",
}
_ROOMS = ("nn", "optim", "schedules")

__all__ = sorted((*_HOMES, *_ROOMS))


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"batchscope.{name}")
    raise AttributeError(f"module 'batchscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*__all__, "__version__"))
