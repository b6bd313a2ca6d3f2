"""Plan, executor, store, analysis: the only room where they meet.

Its names load what they need when they are first used: a run that is only read needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscope.lazy import exports

if TYPE_CHECKING:
    from batchscope.runs.branch_from import branch as branch
    from batchscope.runs.driver import Interrupted as Interrupted
    from batchscope.runs.estimate import Estimate as Estimate
    from batchscope.runs.finished import finished_run as finished_run
    from batchscope.runs.predict_from import predict as predict
    from batchscope.runs.progress import BatchSizeProgress as BatchSizeProgress
    from batchscope.runs.progress import Progress as Progress
    from batchscope.runs.run_folder import Run as Run
    from batchscope.runs.run_folder import open_run as open_run
    from batchscope.runs.several import ask_each as ask_each
    from batchscope.runs.several import comparison as comparison
    from batchscope.runs.several import holds_several as holds_several
    from batchscope.runs.start import run as run
else:  # a type checker is not told of __getattr__: it would believe every name
    __all__, __getattr__ = exports(
        __name__,
        {
            "branch_from": ("branch",),
            "predict_from": ("predict",),
            "driver": ("Interrupted",),
            "estimate": ("Estimate",),
            "finished": ("finished_run",),
            "progress": ("BatchSizeProgress", "Progress"),
            "run_folder": ("Run", "open_run"),
            "several": ("ask_each", "comparison", "holds_several"),
            "start": ("run",),
        },
    )
