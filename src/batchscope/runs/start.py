"""Run a study: the one function behind ``bs.run`` and ``batchscope run``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from batchscope import workloads
from batchscope.amounts import parse_size
from batchscope.runs.bar import bar
from batchscope.runs.finished import finished_run
from batchscope.runs.run_folder import Run
from batchscope.spec.study import Study

if TYPE_CHECKING:
    from batchscope.runs.progress import Progress
    from batchscope.spec.workload import Workload


def run(
    study: Study,
    folder: str | Path,
    *,
    workload: Workload | None = None,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    replay_choices: str | Path | None = None,
    max_memory: int | str | None = None,
) -> Run:
    """Run a study, or what is missing of it, and write its summary and report.

    Args:
        study: What to run.
        folder: Where: a folder that does not exist, or one that holds a run of this study.
        workload: The workload itself, where the study's name for it is only a name; then everything runs in this
            process.
        workers: Processes; 0 runs in this process; None takes one for each core on a CPU, but no more than there are
            groups of trials to run at once, and one on a GPU. Fewer if they do not fit into the memory.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes a GPU if there is one.
        data_dir: Where data sets lie; None for ``BATCHSCOPE_DATA`` or the user's cache directory.
        on_progress: Called when units of work are done, at most ten times a second; by default a bar on a terminal and
            in a notebook.
        replay_choices: The folder of another run, whose programs, pack sizes and threads are taken instead of measured:
            the same study gives the same bits.
        max_memory: What to plan for, in bytes or as ``"8GiB"``: workers and packs are chosen so that all processes
            together are expected to take no more; the plan is not enforced. None for what is available.

    What cannot be run is a ``BatchscopeError`` that says what to type. Ctrl-C, SIGTERM and SIGHUP are ``Interrupted``,
    with everything that was finished written: run again to go on.
    """
    folder = Path(folder)
    if workload is None and replay_choices is None and (done := finished_run(study, folder, device)):
        done.write_report()
        return done
    from batchscope.runs.driver import drive  # here, because a run that is finished needs no torch
    from batchscope.runs.prepared import prepare  # here, because a run that is finished needs no torch

    shown = bar(str(folder)) if on_progress is None else nullcontext(on_progress)
    with workloads.explained(study.workload), shown as report:
        prepared = prepare(
            study,
            folder,
            workload=workload,
            workers=workers,
            device=device,
            data_dir=None if data_dir is None else Path(data_dir),
            replay_choices=None if replay_choices is None else Path(replay_choices),
            max_memory=None if max_memory is None else parse_size(max_memory),
        )
        drive(prepared, report)
    result = Run(folder)
    result.write_report()
    return result
