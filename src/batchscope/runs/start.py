"""Run a study: the one function behind ``bs.run`` and ``batchscope run``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from batchscope.runs.driver import Driver, Progress
from batchscope.runs.result import Run
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload


def run(
    study: Study,
    folder: str | Path,
    *,
    workload: Workload | None = None,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Run:
    """Run a study, or what is missing of it, and write its summary and report.

    Args:
        study: What to run.
        folder: Where: a folder that does not exist, or one that holds a run of this study.
        workload: The workload itself, where the study's name for it is only a name; then everything runs in this
            process.
        workers: Processes; 0 runs in this process; None takes one for each core on a CPU, and one on a GPU.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes a GPU if there is one.
        data_dir: Where data sets lie; None for ``BATCHSCOPE_DATA`` or the user's cache directory.
        on_progress: Called whenever a unit of work is done.

    What cannot be run is a ``BatchscopeError`` that says what to type. Ctrl-C is ``Interrupted``, with everything that
    was finished written: run again to go on.
    """
    folder = Path(folder)
    driver = Driver(
        study,
        folder,
        workload=workload,
        workers=workers,
        device=device,
        data_dir=None if data_dir is None else Path(data_dir),
        on_progress=on_progress,
    )
    driver.run()
    result = Run(folder)
    result.write_report()
    return result
