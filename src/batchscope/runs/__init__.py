"""Plan, executor, store, analysis: the only room where they meet."""

from batchscope.runs.advice import recommend
from batchscope.runs.driver import Interrupted
from batchscope.runs.estimate import Estimate, estimate
from batchscope.runs.probing import Probing, probe
from batchscope.runs.progress import Lane, Progress
from batchscope.runs.result import Run, open_run
from batchscope.runs.start import run

__all__ = [
    "Estimate",
    "Interrupted",
    "Lane",
    "Probing",
    "Progress",
    "Run",
    "estimate",
    "open_run",
    "probe",
    "recommend",
    "run",
]
