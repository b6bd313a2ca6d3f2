"""How long, and in how much memory, does an archive of the published size take?

Question: the database of Sh19 has 168,160 trials and 71,638,836 measurements in 454 studies. Can it be imported, and
the steps to result of all its workloads be found with intervals, on 2 cores in under 4 GB, the analysis in at most
60 s? And how does that compare with pandas doing the same, either from the trees as the published notebook reads them,
or from the same Parquet files, and then finding the steps to result and bootstrapping them?

The archive is made up (the data itself is not redistributed here), in exactly the published layout: six metrics, as
many trials and measurements, a third of the trials diverged or unfinished, and S = S_min (1 + B_crit / B).

    python benchmarks/archive.py --scale 0.05            # a twentieth of the workloads
    python benchmarks/archive.py --scale 1 --pandas 0.1  # everything; pandas on a tenth

Every stage runs in a process of its own; its peak memory is that process's. The last line of the output is one JSON
document.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

TRIALS, MEASUREMENTS, STUDIES, WORKLOADS = 168_160, 71_638_836, 454, 35
LOOKS = 470  # of a trial that was not cut short: makes the whole archive a little larger than the published one
METRICS = [
    f"{part}/{name}" for part in ("train", "val", "test") for name in ("cross_entropy_error", "classification_error")
]
GOAL, BEST, TRAIN_STEPS = 0.3, 0.25, 100_000
CONFIGS = {
    "learning_rate": {"max_value": 10.0, "min_value": 1e-4, "scale": "LOG_SCALE", "type": "DOUBLE"},
    "momentum": {"max_value": 0.999, "min_value": 0.5, "scale": "REVERSE_LOG_SCALE", "type": "DOUBLE"},
}


def workloads(scale: float) -> list[tuple[str, list[int], int]]:
    """Name, batch sizes and trials of a study, of the workloads in a share of the archive."""
    count = max(1, round(WORKLOADS * scale))
    sizes = np.full(WORKLOADS, STUDIES // WORKLOADS)
    sizes[: STUDIES - sizes.sum()] += 1
    return [
        (
            f"data_{number:02d}/model/nesterov_momentum",
            [2 ** (k + 2) for k in range(sizes[number])],
            math.ceil(TRIALS / STUDIES),
        )
        for number in range(count)
    ]


def generate(folder: Path, scale: float) -> dict[str, Any]:
    """Write the archive."""
    import polars as pl

    generator = np.random.default_rng(0)
    trials = looks = 0
    steps = np.unique(np.round(np.linspace(0, TRAIN_STEPS, LOOKS)).astype(np.int64))
    for name, batch_sizes, per_study in workloads(scale):
        dataset, model, optimizer = name.split("/")
        critical = 2 ** generator.uniform(5, 11)
        for batch_size in batch_sizes:
            study = folder / name / str(batch_size)
            study.mkdir(parents=True)
            about = {"batch_size": batch_size, "dataset": dataset, "model": model, "optimizer": optimizer}
            about |= {"early_stopping": False, "parameter_configs": CONFIGS, "train_steps": TRAIN_STEPS}
            (study / "study.json").write_text(json.dumps(about))
            fewest = 2000 * (1 + critical / batch_size)
            for number in range(1, per_study + 1):
                rate, momentum = 10 ** generator.uniform(-4, 1), 1 - 10 ** generator.uniform(-3, -0.3)
                off = abs(math.log10(rate / (1 - momentum))) + generator.exponential(0.1)
                status = generator.choice(["COMPLETE", "INFEASIBLE", "INCOMPLETE"], p=[0.65, 0.27, 0.08])
                half_life = fewest * math.exp(off) / 8
                error = BEST + (0.9 - BEST) / (1 + steps / half_life) + generator.normal(0, 0.003, len(steps))
                end = len(steps) if status == "COMPLETE" else int(generator.integers(len(steps) // 2, len(steps)))
                columns = {
                    metric: error * (3 if "cross" in metric else 1) + k / 100 for k, metric in enumerate(METRICS)
                }
                columns["val/classification_error"] = error
                trial = study / str(number)
                trial.mkdir()
                settings = {"learning_rate": rate, "momentum": momentum}
                about = {
                    "parameters": settings,
                    "status": str(status),
                    "steps": int(steps[end - 1]),
                    "trial_id": number,
                }
                (trial / "metadata.json").write_text(json.dumps(about))
                frame = pl.DataFrame({"step": steps, **columns}).head(end)
                frame.write_csv(trial / "measurements.csv", float_precision=6)
                trials, looks = trials + 1, looks + end
    return {"trials": trials, "measurements": looks}


def do_import(folder: Path, runs: Path) -> dict[str, Any]:
    """Import it."""
    from batchscope.store.importers import import_batch_science

    made = import_batch_science(folder, runs, goals=[f"validation/error < {GOAL}"])
    size = sum(path.stat().st_size for path in runs.rglob("*.parquet"))
    return {"runs": len(made.runs), "trials": made.trials, "measurements": made.measurements, "bytes": size}


def analyze(runs: Path) -> dict[str, Any]:
    """Steps to result with intervals and regimes of every workload, by the published selection rule."""
    from batchscope.analysis import steps_to_result
    from batchscope.spec import documents
    from batchscope.spec.goal import Goal
    from batchscope.store import Store, find_runs
    from batchscope.store.imported import selected

    found: dict[str, dict[int, int | None]] = {}
    for run in find_runs(runs):
        store = Store.open(run)
        trials, measurements = store.tables()
        document = documents.load(store.study_text, "study.yaml")
        curve = steps_to_result(selected(trials, document), measurements, Goal.parse(document["goals"][0]))
        name = str(run.relative_to(runs)) if run != runs else "."
        found[name] = dict(curve.table.select("batch_size", "steps").iter_rows())
    return {"steps": found}


def pandas_csv(folder: Path, names: list[str]) -> dict[str, Any]:
    """From the trees, as the published loader does it: read_csv for every trial, then one table a workload."""
    import pandas as pd  # type: ignore[import-untyped]

    found = {}
    for name in names:
        tables = {}
        for study in sorted((folder / name).iterdir(), key=lambda path: int(path.name)):
            for trial in sorted((path for path in study.iterdir() if path.is_dir()), key=lambda path: int(path.name)):
                if json.loads((trial / "metadata.json").read_text())["status"] == "COMPLETE":
                    table = pd.read_csv(trial / "measurements.csv", index_col="step")
                    tables[int(study.name), int(trial.name)] = table
                    if sum(batch_size == int(study.name) for batch_size, _ in tables) == 100:
                        break
        found[name] = _steps(pd.concat(tables, names=["batch_size", "trial_id"]), "val/classification_error")
    return {"steps": found}


def pandas_parquet(runs: Path, names: list[str]) -> dict[str, Any]:
    """From our Parquet files, read by pandas into the same table."""
    import pandas as pd

    found = {}
    for name in names:
        trials = pd.read_parquet(runs / name / "trials")
        chosen = trials[trials["status"] == "complete"].sort_values("index").groupby("batch_size").head(100)
        looks = pd.read_parquet(runs / name / "measurements").merge(chosen[["trial", "index"]], on="trial")
        table = looks.rename(columns={"index": "trial_id"}).set_index(["batch_size", "trial_id", "step"])
        found[name] = _steps(table, "validation/error")
    return {"steps": found}


def _steps(table: Any, metric: str) -> dict[int, int | None]:
    """Steps to result, as the published notebook finds them, and a bootstrap interval of each for the time it takes."""
    found: dict[int, int | None] = {}
    generator = np.random.default_rng(0)
    for batch_size, study in table.groupby("batch_size"):
        ordered = study.sort_index(level=["step", "trial_id"])
        good = ordered[ordered[metric] < GOAL]
        found[int(batch_size)] = None if good.empty else int(good.index.get_level_values("step")[0])
        first = good.reset_index().groupby("trial_id")["step"].min()
        every = first.reindex(study.index.get_level_values("trial_id").unique()).to_numpy()
        np.quantile(
            np.nan_to_num(generator.choice(every, (1000, len(every))), nan=np.inf).min(1), [0.05, 0.95], method="lower"
        )
    return found


def staged(stage: str, *arguments: object) -> dict[str, Any]:
    """Run one stage in a process of its own: its answer, seconds and peak memory."""
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        command = [sys.executable, __file__, "--stage", stage, "--answer", answer.name]
        started = time.perf_counter()
        child = subprocess.Popen([*command, json.dumps([str(argument) for argument in arguments])])
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{stage} failed")
        result = json.loads(Path(answer.name).read_text())
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{stage:>15}: {seconds:8.1f} s  {peak / 2**30:5.2f} GiB", flush=True)
    cpu = round(usage.ru_utime + usage.ru_stime, 2)
    return {**result, "seconds": round(seconds, 2), "cpu_seconds": cpu, "peak_gib": round(peak / 2**30, 3)}


def main() -> None:
    """Generate, import, analyze; then pandas on its share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.05, help="share of the archive")
    parser.add_argument("--pandas", type=float, default=1.0, help="share of the workloads that pandas gets; 0 for none")
    parser.add_argument("--folder", type=Path, help="where to put it all; otherwise a temporary folder")
    parser.add_argument("--keep", action="store_true", help="use what lies there, and leave it there")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        given = json.loads(options.arguments)
        stages: dict[str, Callable[[], dict[str, Any]]] = {
            "generate": lambda: generate(Path(given[0]), float(given[1])),
            "import": lambda: do_import(Path(given[0]), Path(given[1])),
            "analyze": lambda: analyze(Path(given[0])),
            "pandas csv": lambda: pandas_csv(Path(given[0]), json.loads(given[1])),
            "pandas parquet": lambda: pandas_parquet(Path(given[0]), json.loads(given[1])),
        }
        options.answer.write_text(json.dumps(stages[options.stage]()))
        return
    root = options.folder or Path(tempfile.mkdtemp(prefix="archive-"))
    tree, runs = root / "tree", root / "runs"
    results: dict[str, Any] = {}
    if not (options.keep and tree.exists()):
        results["generate"] = staged("generate", tree, options.scale)
    if not (options.keep and runs.exists()):
        results["import"] = staged("import", tree, runs)
    results["analyze"] = staged("analyze", runs)
    ours = results["analyze"].pop("steps")
    names = list(ours)[: max(1, round(len(ours) * options.pandas))] if options.pandas else []
    if names:
        part = root / "part"
        shutil.rmtree(part, ignore_errors=True)
        for name in names:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).symlink_to(runs / name)
        results["analyze the pandas share"] = staged("analyze", part)
        for stage, source in (("pandas parquet", runs), ("pandas csv", tree)):
            results[stage] = staged(stage, source, json.dumps(names))
            assert results[stage].pop("steps") == {name: ours[name] for name in names}, f"{stage} finds other steps"
        same = results["analyze the pandas share"]
        assert same.pop("steps") == {name: ours[name] for name in names}
        for stage in ("pandas parquet", "pandas csv"):
            results[stage]["times as long"] = round(results[stage]["seconds"] / same["seconds"], 1)
    machine = {
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    versions = {name: metadata.version(name) for name in ("polars", "numpy")}
    if not options.keep:
        shutil.rmtree(root)
    print(json.dumps({"benchmark": "archive", "scale": options.scale, **machine, **versions, **results}))


if __name__ == "__main__":
    main()
