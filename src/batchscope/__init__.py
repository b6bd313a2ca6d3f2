"""Which batch size, learning rate and schedule trains your model fastest, or cheapest: measured, not guessed.

The public names load their rooms when they are first used, so that ``import batchscope`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscope.lazy import exports

__version__ = "0.1.0"

if TYPE_CHECKING:
    __all__: list[str]
    from batchscope import meters as meters
    from batchscope import nn as nn
    from batchscope import optim as optim
    from batchscope import schedules as schedules
    from batchscope.advice.recommend import recommend as recommend
    from batchscope.engine.by_hand import ByHand as ByHand
    from batchscope.errors import BatchscopeError as BatchscopeError
    from batchscope.probing.probe import probe as probe
    from batchscope.runs import Run as Run
    from batchscope.runs import branch as branch
    from batchscope.runs import open_run as open_run
    from batchscope.runs import predict as predict
    from batchscope.runs import run as run
    from batchscope.spec.goal import Goal as Goal
    from batchscope.spec.probe import Probe as Probe
    from batchscope.spec.study import Study as Study
    from batchscope.spec.workload import Stream as Stream
    from batchscope.spec.workload import Workload as Workload
else:  # a type checker is not told of __getattr__: it would believe every name
    __all__, __getattr__ = exports(
        __name__,
        {
            "": ("meters", "nn", "optim", "schedules"),
            "engine.by_hand": ("ByHand",),
            "errors": ("BatchscopeError",),
            "advice.recommend": ("recommend",),
            "probing.probe": ("probe",),
            "runs": ("Run", "branch", "open_run", "predict", "run"),
            "spec.goal": ("Goal",),
            "spec.probe": ("Probe",),
            "spec.study": ("Study",),
            "spec.workload": ("Stream", "Workload"),
        },
    )


def __dir__() -> list[str]:
    return sorted((*__all__, "__version__"))
