"""Plan, executor, store, analysis: the only room where they meet.

Its names load what they need when they are first used: a run that is only read needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchscope.runs.advice import recommend as recommend
    from batchscope.runs.driver import Interrupted as Interrupted
    from batchscope.runs.estimate import Estimate as Estimate
    from batchscope.runs.probing import Probing as Probing
    from batchscope.runs.probing import probe as probe
    from batchscope.runs.progress import Lane as Lane
    from batchscope.runs.progress import Progress as Progress
    from batchscope.runs.result import Run as Run
    from batchscope.runs.result import open_run as open_run
    from batchscope.runs.several import ask_each as ask_each
    from batchscope.runs.several import comparison as comparison
    from batchscope.runs.several import holds_several as holds_several
    from batchscope.runs.start import run as run

_HOMES = {
    "Estimate": "estimate",
    "Interrupted": "driver",
    "Lane": "progress",
    "Probing": "probing",
    "Progress": "progress",
    "Run": "result",
    "ask_each": "several",
    "comparison": "several",
    "holds_several": "several",
    "open_run": "result",
    "probe": "probing",
    "recommend": "advice",
    "run": "start",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'batchscope.runs' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"batchscope.runs.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
