"""What do driver, store and progress cost beside the engine, at 10,000 tiny units?

A study of softmax regression on the digits in this process: packs of one trial, so that every unit is a few steps of
one small trial. The engine's time is that within ``Worker.run``, which trains and evaluates; everything else of the run
(races, commits, checkpoints' bookkeeping, progress) is overhead. Wanted: under 5%. The second figure is what a worker
process adds: the driver's own processor time for a unit that is computed elsewhere.

    python benchmarks/overhead.py                  # 10,000 units
    python benchmarks/overhead.py --units 300      # a quick run

Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path

import torch

from batchscope.engine.choice import ProgramChoice
from batchscope.executors.worker import Result, Worker
from batchscope.plan.race import Unit
from batchscope.runs.driver import drive
from batchscope.runs.prepared import Prepared, prepare
from batchscope.runs.progress import Progress
from batchscope.spec.study import Study

STUDY = """
workload: digits/softmax
batch_sizes: [16]
search: {{trials: {trials}, space: {{learning_rate: {{min: 1e-4, max: 1e-2, scale: log}}, momentum: 0.9}}}}
goals: ["validation/error < 1e-9"]
budget: {{steps: {steps}}}
evaluation: {{ratio: 1.05}}
engine: {{program: loop, pack_size: 1, threads: 1}}
"""


def prepared(study: Study, folder: Path, workers: int) -> Prepared:
    """The study, ready to be driven."""
    nothing = {"workload": None, "data_dir": None, "replay_choices": None, "max_memory": None}
    return prepare(study, folder, workers=workers, device="cpu", **nothing)  # type: ignore[arg-type]


def measure(units: int, steps: int, workers: int) -> dict[str, float]:
    """Run about so many units; seconds of the run, of the engine, and of the driver's processor."""
    computed, engine, told = 0, 0.0, 0
    original = Worker.run

    def timed(worker: Worker, unit: Unit, choice: ProgramChoice) -> Result | None:
        nonlocal computed, engine
        started = time.perf_counter()
        result = original(worker, unit, choice)
        engine += time.perf_counter() - started
        computed += 1
        return result

    def tell(progress: Progress) -> None:
        nonlocal told
        told += 1

    rungs = 1
    study = Study.from_text(STUDY.format(trials=1, steps=steps))
    with tempfile.TemporaryDirectory() as folder:
        rungs = len(prepared(study, Path(folder) / "rungs", 0).grids[16].rungs())
        study = Study.from_text(STUDY.format(trials=max(1, units // rungs), steps=steps))
        run = prepared(study, Path(folder) / "run", workers)
        Worker.run = timed  # type: ignore[method-assign]
        processor, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        try:
            drive(run, tell)
        finally:
            Worker.run = original  # type: ignore[method-assign]
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - processor.ru_utime - processor.ru_stime
    return {
        "units": max(1, units // rungs) * rungs,
        "seconds": seconds,
        "engine_seconds": engine,
        "driver_processor_seconds": spent,
        "progress_calls": told,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=500, help="budget of a trial")
    options = parser.parse_args()
    inline = measure(options.units, options.steps, 0)
    share = 1 - inline["engine_seconds"] / inline["seconds"]
    print(f"in this process: {inline['units']} units in {inline['seconds']:.1f} s, {share:.1%} of it not the engine's")
    spread = measure(options.units, options.steps, 1)
    each = 1000 * spread["driver_processor_seconds"] / spread["units"]
    print(f"one worker process: {spread['seconds']:.1f} s, {each:.3f} ms of the driver's processor time a unit")
    document = {
        "benchmark": "overhead",
        "wanted": 0.05,
        "overhead": round(share, 4),
        "driver_milliseconds_per_unit": round(each, 4),
        "inline": inline,
        "worker": spread,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
