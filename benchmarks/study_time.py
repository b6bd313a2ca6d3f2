"""How long does the same answer take: by us, and by Optuna around a plain PyTorch loop?

The answer is the steps to result of ``fashion_mnist/fc-256`` at batch sizes 16, 64, 256 and 1024: the fewest steps of
16 trials to a validation error below 0.15, in at most 10 epochs. All contenders have the same trials (the Sobol points
of our study, which the peer's ``QMCSampler`` gets enqueued), the same initial values, data order, evaluations and
validation examples, and a peer's trial stops when it reaches the goal. So steps must agree up to rounding; how many
trials do is reported, of those that both saw reach the goal: our race stops the others before.

    ours        ``batchscope run``; margin 1, because the answer that is asked for has no intervals, for whose sake a
                race otherwise runs the others on to 1.5 times the winner
    nopruner    Optuna (``benchmarks/study_peer.py``), no pruner
    pruner      the same with ``MedianPruner``, which may stop the trial that would have won: it is told whether it did

The peer uses all cores in the arrangement that a pilot of a few hundred steps finds fastest: processes of one thread
that share a journal file, ``n_jobs`` threads, or one trial after the other. The pilot's time is not counted.

Every contender runs in a fresh process. "Seconds" is its whole life, with the start of Python, imports and data, and
our report. Examples trained on (example-gradients) are the work, without what our engine spends on timing its programs;
evaluations are evaluations of one trial at the validation examples.

    python benchmarks/study_time.py [--data-dir DIR] [--batch-sizes 16,64,256,1024] [--trials 16] [--epochs-budget 10]
                                    [--peers pruner,nopruner | none] [--arrangement auto] [--repeat 1]
    python benchmarks/study_time.py --digits        # the digits data at two batch sizes: seconds for each contender

The full size takes the time of the peer without pruner, 5 to 10 minutes on two cores, and half as much again.

Progress goes to stderr; the last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import batchscope as bs
from step_contenders import processor

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "fashion_mnist.yaml"
PILOT_EXAMPLES = 16_000
PEERS = {"nopruner": False, "pruner": True}
WANTED = {"nopruner": 20.0, "pruner": 5.0}  # times our wall time
SAME = 1.06  # times our steps: rounding may move a crossing by an evaluation
ARRANGEMENTS = ("processes", "threads", "alone")

Found = dict[str, Any]


def plan_of(study: bs.Study, data_dir: Path | None) -> Found:
    """What the peer needs to run our trials."""
    from batchscope import workloads
    from batchscope.plan.sampling import first_trials
    from batchscope.runs.preflight import grids_of, timelines_of
    from batchscope.spec.examples import as_tensors
    from batchscope.spec.space import Range

    workload = workloads.load(study.workload, data_dir)
    grids = grids_of(study, timelines_of(study, workload))
    cells = {}
    for batch_size, grid in grids.items():
        trials = first_trials(study.search, batch_size, study.seed, study.search.count)
        cells[str(batch_size)] = {
            "points": [dict(trial.hyperparameters) for trial in trials],
            "seeds": [trial.seed for trial in trials],
            "evaluations": grid.evaluations(),
            "last": grid.last,
        }
    space = {name: (d.min, d.max) for name, d in study.search.space.items() if isinstance(d, Range)}
    return {
        "workload": study.workload,
        "data_dir": None if data_dir is None else str(data_dir),
        "seed": study.seed,
        "goal": study.goals[0].threshold,
        "validation_examples": len(as_tensors(workload.validation)[1]),
        "batch_sizes": cells,
        **space,
    }


def pilot_of(plan: Found, cores: int) -> Found:
    """A trial for each core and a few hundred steps, with as many evaluations for a step as the whole has."""
    cells = {}
    for batch_size, cell in plan["batch_sizes"].items():
        last = min(cell["last"], max(1, PILOT_EXAMPLES // int(batch_size)))
        evaluations = max(1, round(len(cell["evaluations"]) * last / cell["last"]))
        thinned = {"evaluations": [round(last * (i + 1) / evaluations) for i in range(evaluations)], "last": last}
        cells[batch_size] = {"points": cell["points"][:cores], "seeds": cell["seeds"][:cores], **thinned}
    return {**plan, "label": f"{plan['label']} pilot", "goal": -1.0, "batch_sizes": cells}


def timed(*arguments: object) -> float:
    """Seconds of the whole life of a fresh process."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, arguments)], stdout=sys.stderr)
    if done.returncode:
        raise SystemExit(f"{arguments} failed with status {done.returncode}")
    return time.perf_counter() - started


def ours(study: bs.Study, root: Path, data_dir: Path | None) -> Found:
    """Our answer, and for every batch size and trial the step at which it reached the goal."""
    study_file, folder = root / "study.yaml", root / "run"
    study_file.write_text(study.to_yaml())
    given = [] if data_dir is None else ["--data-dir", data_dir]
    seconds = timed("-m", "batchscope", "run", study_file, "-o", folder, *given)
    import polars as pl

    run, goal = bs.open_run(folder), study.goals[0]
    crossed = run.measurements.filter(pl.col(goal.metric) < goal.threshold).group_by("trial")
    steps = dict(crossed.agg(pl.col("step").min()).collect().iter_rows())
    evaluations = dict(run.measurements.group_by("batch_size").agg(pl.len()).collect().iter_rows())
    cells: Found = {}
    for (size,), trials in run.trials.group_by("batch_size"):
        by_index = {row["index"]: steps.get(row["trial"]) for row in trials.iter_rows(named=True)}
        choice = run.provenance["choices"][str(size)]
        cells[str(size)] = {
            "steps": fewest(by_index.values()),
            "crossings": by_index,
            "example_gradients": int(trials["examples"].sum()),
            "evaluations": evaluations[size],
            "train_seconds": float(trials["train_seconds"].sum()),
            "evaluation_seconds": float(trials["evaluation_seconds"].sum()),
            "statuses": dict(sorted(trials["status"].value_counts().iter_rows())),
            "program": f"{choice['program']}-{choice['pack_size']}",
        }
    return summed(seconds, cells)


def peer(plan: Found, arrangement: str, cores: int, root: Path) -> Found:
    """The peer's answer."""
    plan_file, answer = root / "plan.json", root / "peer.json"
    plan_file.write_text(json.dumps(plan))
    seconds = timed(HERE / "study_peer.py", plan_file, answer, "--arrangement", arrangement, "--cores", cores)
    document = json.loads(answer.read_text())
    cells: Found = {}
    for size, found in document["batch_sizes"].items():
        trials = {int(number): trial for number, trial in found["trials"].items()}
        crossings = {n: trial["steps"] if trial["status"] == "reached" else None for n, trial in trials.items()}
        statuses = [trial["status"] for trial in trials.values()]
        cells[size] = {
            "steps": fewest(crossings.values()),
            "crossings": crossings,
            "example_gradients": int(size) * sum(trial["steps"] for trial in trials.values()),
            "evaluations": sum(trial["evaluations"] for trial in trials.values()),
            "seconds": found["seconds"],
            "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
        }
    return {**summed(seconds, cells), "arrangement": arrangement}


def fewest(crossings: Any) -> int | None:
    return min((step for step in crossings if step is not None), default=None)


def summed(seconds: float, cells: Found) -> Found:
    sums = {name: sum(cell[name] for cell in cells.values()) for name in ("example_gradients", "evaluations")}
    return {
        "seconds": seconds,
        **sums,
        "batch_sizes": {size: cells[size] for size in sorted(cells, key=int)},
    }


def fastest_first(plan: Found, cores: int, root: Path) -> dict[str, float]:
    """The peer's arrangements for all cores, and the seconds that a pilot of all batch sizes takes in each."""
    pilot, seconds = pilot_of(plan, cores), {}
    for arrangement in ARRANGEMENTS:
        folder = root / f"pilot-{arrangement}"
        folder.mkdir(parents=True)
        found = peer(pilot, arrangement, cores, folder)
        seconds[arrangement] = round(sum(cell["seconds"] for cell in found["batch_sizes"].values()), 2)
    return dict(sorted(seconds.items(), key=lambda item: item[1]))


def compare(mine: Found, theirs: Found) -> Found:
    """For every batch size: both answers, and how many trials that both saw crossing did so at the same step."""
    compared: Found = {}
    for size, cell in mine["batch_sizes"].items():
        other = theirs["batch_sizes"][size]
        pairs = [(step, other["crossings"].get(n)) for n, step in cell["crossings"].items()]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        winner = min(cell["crossings"], key=lambda n: (cell["crossings"][n] or float("inf"), n))
        won = cell["steps"]
        compared[size] = {
            "ours": cell["steps"],
            "theirs": other["steps"],
            "same": cell["steps"] == other["steps"],
            "crossings_both": len(both),
            "crossings_same": sum(a == b for a, b in both),
            "largest_relative_difference": max((abs(a - b) / a for a, b in both), default=0.0),
            "only_ours": sum(a is not None and b is None for a, b in pairs),
            "only_theirs": sum(a is None and b is not None for a, b in pairs),  # the race had ended before
            "our_winner_stopped": won is not None and other["crossings"].get(winner) is None,
            "lost": won is not None and (other["steps"] is None or other["steps"] > SAME * won),
        }
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", default="16,64,256,1024")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs-budget", type=float, default=10)
    parser.add_argument("--margin", type=float, default=1.0, help="of our race")
    parser.add_argument("--goal", type=float, default=0.15, help="validation error to get below")
    parser.add_argument("--peers", default="pruner,nopruner", help="pruner, nopruner, both, or none")
    parser.add_argument("--arrangement", choices=("auto", *ARRANGEMENTS), default="auto", help="of the peer")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--repeat", type=int, default=1, help="runs of every contender, in turns; medians are reported")
    parser.add_argument("--digits", action="store_true", help="a small study on the embedded data")
    options = parser.parse_args()
    peers = [] if options.peers == "none" else options.peers.split(",")
    if unknown := set(peers) - set(PEERS):
        parser.error(f"--peers knows {', '.join(PEERS)} and none; got {', '.join(sorted(unknown))}")
    workload = "fashion_mnist/fc-256"
    if options.digits:
        workload, options.batch_sizes, options.trials, options.goal = "digits/mlp-32", "16,64", 6, 0.1
    overrides = [
        f"workload={workload}",
        f"batch_sizes=[{options.batch_sizes}]",
        f"search.trials={options.trials}",
        f'goals=["validation/error < {options.goal}"]',
        f"margin={options.margin}",
        f"budget.epochs={options.epochs_budget}",
    ]
    study = bs.Study.from_yaml(EXAMPLE, [*overrides, "search.confirm.seeds=0"])  # the peer confirms nothing
    plan = plan_of(study, options.data_dir)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    runs: dict[str, list[Found]] = {name: [] for name in ("ours", *peers)}
    arrangements: Found = {}
    with tempfile.TemporaryDirectory(prefix="study-time-") as place:
        for turn in range(options.repeat):
            for name in runs:
                root = Path(place) / f"{name}-{turn}"
                root.mkdir()
                if name == "ours":
                    runs[name].append(ours(study, root, options.data_dir))
                else:
                    theirs = {**plan, "label": name, "pruner": PEERS[name]}
                    if name not in arrangements:
                        pilots = fastest_first(theirs, cores, root) if options.arrangement == "auto" else {}
                        chosen = next(iter(pilots), options.arrangement)
                        arrangements[name] = {"arrangement": chosen, "pilot_seconds": pilots}
                    runs[name].append(peer(theirs, arrangements[name]["arrangement"], cores, root))
                print(f"{name}: {runs[name][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)

    results = {name: {**done[0], **medians(done), **arrangements.get(name, {})} for name, done in runs.items()}
    mine = results["ours"]
    against = {name: versus(name, mine, results[name]) for name in peers}
    document = {
        "benchmark": "study_time",
        "workload": workload,
        "goal": str(study.goals[0]),
        "trials": options.trials,
        "budget_epochs": options.epochs_budget,
        "validation_examples": plan["validation_examples"],
        "repeat": options.repeat,
        "contenders": results,
        "against": against,
        "machine": f"{processor()}, {cores} cores",
        "versions": {name: metadata.version(name) for name in ("batchscope", "torch", "optuna") if name in installed()},
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    show(results, against)
    print(json.dumps(shortened(document)))


def installed() -> set[str]:
    return {distribution.name.lower() for distribution in metadata.distributions()}


def medians(done: list[Found]) -> Found:
    seconds = [run["seconds"] for run in done]
    return {"seconds": statistics.median(seconds), "every_run": seconds}


def versus(name: str, mine: Found, theirs: Found) -> Found:
    """Ratios to ours; what the pruner cost."""
    compared, ratio = compare(mine, theirs), theirs["seconds"] / mine["seconds"]
    return {
        "times_our_seconds": ratio,
        "times_our_example_gradients": theirs["example_gradients"] / mine["example_gradients"],
        "times_our_evaluations": theirs["evaluations"] / mine["evaluations"],
        "wanted": WANTED[name],
        "met": ratio >= WANTED[name],
        "lost_the_answer": any(cell["lost"] for cell in compared.values()),
        "batch_sizes": compared,
    }


def shortened(value: Any) -> Any:
    """Crossings as they are, numbers to four digits."""
    if isinstance(value, dict):
        return {str(name): shortened(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shortened(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def show(results: dict[str, Found], against: Found) -> None:
    print(f"{'':>10}{'seconds':>10}{'example-gradients':>19}{'evaluations':>13}  steps by batch size")
    for name, found in results.items():
        steps = ", ".join(f"{size}: {cell['steps']}" for size, cell in found["batch_sizes"].items())
        numbers = f"{found['seconds']:>10.1f}{found['example_gradients']:>19,}"
        print(f"{name:>10}{numbers}{found['evaluations']:>13,}  {steps}")
    for name, ratios in against.items():
        met = "met" if ratios["met"] else "NOT met"
        lost = "; the answer was lost" if ratios["lost_the_answer"] else ""
        print(f"{name}: {ratios['times_our_seconds']:.1f} times our seconds ({ratios['wanted']:g} wanted: {met}){lost}")


if __name__ == "__main__":
    main()
