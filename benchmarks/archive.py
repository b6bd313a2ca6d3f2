"""How long, and in how much memory, does an archive of the published size take?

Question: the database of Sh19 has 168,160 trials and 71,638,836 measurements in 454 studies. Can it be imported, and
the steps to result of all its workloads be found with intervals, on 2 cores in under 4 GB, the analysis in at most
60 s? And how does that compare with pandas doing the same?

The archive is made up (the data itself is not redistributed here), in exactly the published layout: six metrics, as
many trials and measurements, a third of the trials diverged or unfinished, and S = S_min (1 + B_crit / B).

    python benchmarks/archive.py --scale 0.1                                       # a tenth of the workloads
    python benchmarks/archive.py --scale 1 --pandas 0.1 --folder /tmp/archive      # everything; pandas on a tenth

What is done, each in a process of its own, whose time from start to end and peak memory are given:

* import: the tree of CSV files becomes runs.
* analyze: `batchscope analyze RUNS`, the command itself, with start-up, checksums and printing: by the
  published selection rule, every workload's steps to result, their intervals, and the regimes with theirs.
* analyze --json: the same with every other analysis, as one document.
* pandas, tree: the published loader's way (Sh19, batch_science/data_loader.py): read_csv for every trial that the
  selection takes, then steps to result of every study and a bootstrap interval of each.
* pandas, parquet: the same answers from the runs' Parquet files, by somebody who knows pandas and our files well: only
  the needed columns, and the goal handed down to pyarrow, so that other rows never become a table.

"The same" is: the steps to result and the number of trials that reached the goal, at every batch size, by the same
selection, compared for equality here; and one interval a batch size. The interval of pandas is the plain bootstrap, the
cheapest there is, which is wrong for a minimum (docs/statistics.md). Regimes and checksums are ours alone; pandas is
not charged for them. The last line of the output is one JSON document.
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
EVALUATIONS = 470  # of a trial that was not cut short: makes the whole archive a little larger than the published one
METRICS = [
    f"{part}/{name}" for part in ("train", "val", "test") for name in ("cross_entropy_error", "classification_error")
]
GOAL, BEST, TRAIN_STEPS = 0.3, 0.25, 100_000
SELECTED = 100  # COMPLETE trials of a study that the published figures use
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
    trials = evaluations = 0
    steps = np.unique(np.round(np.linspace(0, TRAIN_STEPS, EVALUATIONS)).astype(np.int64))
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
                trials, evaluations = trials + 1, evaluations + end
    return {"trials": trials, "measurements": evaluations}


def do_import(folder: Path, runs: Path) -> dict[str, Any]:
    """Import it."""
    from batchscope.exchange.importers import import_batch_science

    made = import_batch_science(folder, runs, goals=[f"validation/error < {GOAL}"])
    size = sum(path.stat().st_size for path in runs.rglob("*.parquet"))
    return {"runs": len(made.runs), "trials": made.trials, "measurements": made.measurements, "bytes": size}


Found = dict[str, dict[str, list[int | None]]]
"""Of every workload and batch size: steps to result, and how many trials reached the goal."""


def pandas_tree(folder: Path, names: list[str]) -> dict[str, Any]:
    """From the trees, as the published loader does it: read_csv for every trial, then one table a study."""
    import pandas as pd  # type: ignore[import-untyped]

    found: Found = {}
    for name in names:
        found[name] = {}
        for study in sorted((folder / name).iterdir(), key=lambda path: int(path.name)):
            tables = {}
            for trial in sorted((path for path in study.iterdir() if path.is_dir()), key=lambda path: int(path.name)):
                if json.loads((trial / "metadata.json").read_text())["status"] == "COMPLETE":
                    tables[int(trial.name)] = pd.read_csv(trial / "measurements.csv", index_col="step")
                    if len(tables) == SELECTED:
                        break
            evaluations = pd.concat(tables, names=["trial"]).reset_index()
            good = evaluations[evaluations["val/classification_error"] < GOAL]
            found[name][study.name] = _answer(good.groupby("trial")["step"].min(), len(tables))
    return {"found": found}


def pandas_parquet(runs: Path, names: list[str]) -> dict[str, Any]:
    """From our Parquet files, with the needed columns only and the goal handed down to pyarrow."""
    import pandas as pd

    found: Found = {}
    for name in names:
        trials = pd.read_parquet(runs / name / "trials", columns=["trial", "batch_size", "index", "status"])
        complete = trials[trials["status"] == "complete"].sort_values("index")
        chosen = complete.groupby("batch_size").head(SELECTED)
        goal = [("validation/error", "<", GOAL)]
        good = pd.read_parquet(runs / name / "measurements", columns=["trial", "step"], filters=goal)
        first = chosen.join(good.groupby("trial")["step"].min(), on="trial")
        found[name] = {
            str(batch_size): _answer(study["step"].dropna(), len(study))
            for batch_size, study in first.groupby("batch_size")
        }
    return {"found": found}


def _answer(first: Any, trials: int) -> list[int | None]:
    """Steps to result and trials that reached it; and a bootstrap interval, for the time that it takes."""
    every = np.full(trials, np.inf)
    every[: len(first)] = first.to_numpy()
    draws = np.random.default_rng(0).choice(every, (1000, trials)).min(1)
    np.quantile(draws, [0.05, 0.95], method="lower")
    return [None if first.empty else int(first.min()), len(first)]


def ours(document: dict[str, Any]) -> Found:
    """The same from what `analyze --json` prints."""
    return {
        name: {str(row["batch_size"]): [row["steps"], row["reached"]] for row in run["goals"][0]["curve"]}
        for name, run in document["runs"].items()
    }


def command(name: str, arguments: list[str], output: Path) -> dict[str, Any]:
    """Run a command with its output to a file: seconds from start to end, processor time and peak memory."""
    with output.open("wb") as file:
        started = time.perf_counter()
        child = subprocess.Popen(arguments, stdout=file)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{name} failed")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    processor = usage.ru_utime + usage.ru_stime
    print(f"{name:>16}: {seconds:8.1f} s  {processor:8.1f} s of processor time  {peak:5.2f} GiB", flush=True)
    return {"seconds": round(seconds, 2), "cpu_seconds": round(processor, 2), "peak_gib": round(peak, 3)}


def staged(stage: str, *arguments: object) -> dict[str, Any]:
    """Run one stage of this file in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        given = json.dumps([str(argument) for argument in arguments])
        measured = command(stage, [sys.executable, __file__, "--stage", stage, given], Path(answer.name))
        return json.loads(Path(answer.name).read_text()) | measured


def analyzed(runs: Path, output: Path) -> tuple[dict[str, Any], dict[str, Any], Found]:
    """What `batchscope analyze` takes without and with --json, and what it finds."""
    verb = [sys.executable, "-m", "batchscope", "analyze", str(runs)]
    curves = command("analyze", verb, output)
    everything = command("analyze --json", [*verb, "--json"], output)
    return curves, everything | {"bytes": output.stat().st_size}, ours(json.loads(output.read_text()))


def main() -> None:
    """Generate, import, analyze; then pandas and we on its share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1, help="share of the archive")
    parser.add_argument("--pandas", type=float, default=1.0, help="share of the workloads that pandas gets; 0 for none")
    parser.add_argument("--folder", type=Path, help="where to put it all; otherwise a temporary folder")
    parser.add_argument("--keep", action="store_true", help="use what lies there, and leave it there")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        given = json.loads(options.arguments)
        stages: dict[str, Callable[[], dict[str, Any]]] = {
            "generate": lambda: generate(Path(given[0]), float(given[1])),
            "import": lambda: do_import(Path(given[0]), Path(given[1])),
            "pandas, tree": lambda: pandas_tree(Path(given[0]), json.loads(given[1])),
            "pandas, parquet": lambda: pandas_parquet(Path(given[0]), json.loads(given[1])),
        }
        print(json.dumps(stages[options.stage]()))
        return
    root = options.folder or Path(tempfile.mkdtemp(prefix="archive-"))
    tree, runs, output = root / "tree", root / "runs", root / "output"
    results: dict[str, Any] = {}
    if not (options.keep and tree.exists()):
        results["generate"] = staged("generate", tree, options.scale)
    if not (options.keep and runs.exists()):
        results["import"] = staged("import", tree, runs)
    results["analyze"], results["analyze --json"], found = analyzed(runs, output)
    names = list(found)[: max(1, round(len(found) * options.pandas))] if options.pandas else []
    if names:
        part = root / "part"
        shutil.rmtree(part, ignore_errors=True)
        for name in names:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).symlink_to(runs / name)
        share, _, again = analyzed(part, output)
        wanted = {name: found[name] for name in names}
        assert again == wanted
        results["pandas share"] = {"workloads": len(names), "analyze": share}
        for stage, source in (("pandas, tree", tree), ("pandas, parquet", runs)):
            theirs = staged(stage, source, json.dumps(names))
            assert theirs.pop("found") == wanted, f"{stage} finds other steps"
            theirs["times as long as analyze"] = round(theirs["seconds"] / share["seconds"], 1)
            results["pandas share"][stage] = theirs
    machine = {
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    versions = {name: metadata.version(name) for name in ("polars", "numpy", *(("pandas", "pyarrow") if names else ()))}
    if not options.keep:
        shutil.rmtree(root)
    print(json.dumps({"benchmark": "archive", "scale": options.scale, **machine, **versions, **results}))


if __name__ == "__main__":
    main()
