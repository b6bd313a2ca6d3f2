"""What does one step of one trial cost: by the loop that a user would write, by the engine, and at the machine's limit?

Five models by batch size, on made-up examples in memory. In every row the following take turns, in an order that is
drawn anew each round; a row's numbers are medians over rounds.

    user    a plain PyTorch loop in a fresh process: torch.optim.SGD with momentum, eager, zero_grad(set_to_none), a
            batch by indexing, all cores in one process.
    ours    the engine as a study uses it: the program and pack size that ``choose`` finds fastest while all workers
            choose at once. W worker processes of one thread, all at work at the same time, for memory is shared;
            and one worker with all threads, with a choice of its own. The better of the two counts. Milliseconds
            per trial-step are wall time over the trial-steps of all workers.
    limit   what cannot be beaten: the floating-point operations of the real forward and backward pass, counted by
            torch, at the rate of a large matrix product; or the bytes of an update that is one pass (momentum SGD:
            read parameter and momentum, write both) at the bandwidth of a triad, whichever takes longer. The triad
            works on as many bytes as the packs' states have, between 4 and 256 MiB: a state that stays in a cache
            has the cache's bandwidth. Both rates are the best of all rounds, with all cores.

Making and timing candidates is not part of a step; it is reported as "choice_seconds". Whether compiling is tried at
all depends on the work ahead: ``--budget-steps`` is what the choice is told, by default the budget of a long study.

    python benchmarks/step_time.py [--models fc-256,resnet-8] [--batch-sizes 1,8] [--seconds 1.5] [--workers 2]
                                   [--trials 32] [--budget-steps 1000000] [--device cpu|cuda] [--markdown]

Progress goes to stderr; the last line of the output is one JSON document. Without a CUDA device ``--device cuda`` says
"no CUDA device: skipped".
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from batchscope import __version__
from step_contenders import MODELS, Machine, Process, Team, User, processor

BATCH_SIZES = (1, 8, 64, 512)
ROUNDS = 7

# Ratios wanted on two CPU cores, by model and batch size; everywhere else ours must not be the slower one.
DENSE, CONVOLUTIONS = {1: 5.0, 8: 5.0, 64: 2.0, 512: 1.1}, {1: 2.0, 8: 1.3}
WANTED = {"digits-mlp-64": DENSE, "fc-256": DENSE, "simple-cnn": CONVOLUTIONS, "resnet-8": CONVOLUTIONS}
WANTED_ON_A_GPU = {name: {1: 10.0, 8: 10.0, 64: 10.0} for name in ("digits-mlp-64", "fc-256", "simple-cnn")}
NEVER_BELOW, SHARE_OF_LIMIT = 1.0, {512: 0.7}


def measure(
    model: str, batch_size: int, teams: list[Team], machine: Process, options: argparse.Namespace
) -> dict[str, Any]:
    """One row."""
    turn = options.seconds / ROUNDS
    found = [team.prepare(model, batch_size, turn) for team in teams]
    user = Process(User, options.cores, options.device)
    user.call("prepare", model, batch_size)
    operations, parameters = machine.call("prepare", model, batch_size, max(team.state for team in teams))
    ours: list[list[float]] = [[] for _ in teams]
    users: list[float] = []
    rates: list[tuple[float, float]] = []
    turns: list[Callable[[], None]] = [
        *(lambda team=team, times=times: times.append(team.run(turn)) for team, times in zip(teams, ours, strict=True)),
        lambda: users.append(milliseconds(*user.call("run", turn))),
        lambda: rates.append(machine.call("run", turn)),
    ]
    started = time.perf_counter()
    for number in range(ROUNDS):
        random.Random(number).shuffle(turns)
        for take in turns:
            take()
            time.sleep(0.01)  # threads of a parallel region evaluation out for the next one for a while
        # Where a single step takes longer than a turn, rounds would take minutes.
        if number and time.perf_counter() - started > 2 * len(turns) * options.seconds:
            break
    user.end()
    for arrangement, times in zip(found, ours, strict=True):
        arrangement |= {"ms": statistics.median(times), "ms_range": [min(times), max(times)]}
    best = min(found, key=lambda arrangement: arrangement["ms"])
    user_ms = statistics.median(users)
    product, memory = (max(rate) for rate in zip(*rates, strict=True))
    product_ms, memory_ms = 1e3 * operations / product, 1e3 * 16 * parameters / memory
    limit_ms = max(product_ms, memory_ms)
    targets = WANTED if options.device == "cpu" else WANTED_ON_A_GPU
    ratio, share = user_ms / best["ms"], limit_ms / best["ms"]
    wanted, wanted_share = targets.get(model, {}).get(batch_size, NEVER_BELOW), SHARE_OF_LIMIT.get(batch_size)
    row: dict[str, Any] = {
        "model": model,
        "batch_size": batch_size,
        "ours_ms": best["ms"],
        "user_ms": user_ms,
        "ratio": ratio,
        "wanted_ratio": wanted,
        "ratio_met": ratio >= wanted,
        "limit_ms": limit_ms,
        "binds": "product" if product_ms >= memory_ms else "memory",
        "share_of_limit": share,
        "wanted_share": wanted_share,
        "share_met": None if wanted_share is None else share >= wanted_share,
        "program": best["program"],
        "pack_size": best["pack_size"],
        "workers": best["workers"],
        "threads": best["threads"],
        "product_ms": product_ms,
        "memory_ms": memory_ms,
        "share_of_product_rate": product_ms / best["ms"],
        "gigaflops": product / 1e9,
        "gigabytes": memory / 1e9,
        "operations": operations,
        "parameters": parameters,
        "rounds": len(users),
        "user_ms_range": [min(users), max(users)],
        "arrangements": found,
    }
    return {name: rounded(value) for name, value in row.items()}


def milliseconds(steps: int, seconds: float) -> float:
    return 1e3 * seconds / steps


def rounded(value: Any) -> Any:
    """Four digits."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


COLUMNS = "model, B, ours ms, user's ms, ratio, wanted, limit ms, binds, share, wanted, program, pack, workers".split(
    ", "
)


def cells(row: dict[str, Any]) -> list[str]:
    def wanted(value: float | None, met: bool | None) -> str:
        return "" if value is None else f"{value:g} {'met' if met else 'NOT met'}"

    return [
        row["model"],
        str(row["batch_size"]),
        *(f"{row[name]:.3g}" for name in ("ours_ms", "user_ms")),
        f"{row['ratio']:.2f}",
        wanted(row["wanted_ratio"], row["ratio_met"]),
        f"{row['limit_ms']:.3g}",
        row["binds"],
        f"{row['share_of_limit']:.2f}",
        wanted(row["wanted_share"], row["share_met"]),
        row["program"],
        str(row["pack_size"]),
        f"{row['workers']} x {row['threads']}",
    ]


def table(rows: list[dict[str, Any]], markdown: bool) -> str:
    lines = [COLUMNS, *map(cells, rows)]
    if markdown:
        lines.insert(1, ["---"] * len(COLUMNS))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help=f"some of {', '.join(MODELS)}")
    parser.add_argument("--batch-sizes", default=",".join(map(str, BATCH_SIZES)))
    parser.add_argument("--seconds", type=float, default=1.5, help="of each contender in each row")
    parser.add_argument("--workers", type=int, help="of one thread each; default: the cores, or 1 on a GPU")
    parser.add_argument("--trials", type=int, default=32, help="the most that a pack may hold")
    parser.add_argument("--budget-steps", type=int, default=1_000_000, help="of the study that a choice is made for")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--markdown", action="store_true", help="the table for the documentation")
    options = parser.parse_args()
    options.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    names, sizes = options.models.split(","), [int(size) for size in options.batch_sizes.split(",")]
    if unknown := set(names) - set(MODELS):
        parser.error(f"--models knows {', '.join(MODELS)}; got {', '.join(sorted(unknown))}")
    document: dict[str, Any] = {"benchmark": "step_time", "device": options.device}
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: skipped")
        print(json.dumps({**document, "skipped": "no CUDA device"}))
        return

    workers = options.workers or (1 if options.device == "cuda" else options.cores)
    shapes = [(workers, options.cores if options.device == "cuda" else 1)]
    if options.device == "cpu" and options.cores > 1:
        shapes.append((1, options.cores))
    machine, started, rows = Process(Machine, options.cores, options.device), time.perf_counter(), []
    for name in names:
        teams = [Team(*shape, options.device, options.trials, options.budget_steps) for shape in shapes]
        for size in sizes:
            rows.append(measure(name, size, teams, machine, options))
            print(f"{time.perf_counter() - started:6.0f} s  {'  '.join(cells(rows[-1]))}", file=sys.stderr, flush=True)
        for team in teams:
            team.end()
    machine.end()
    where = torch.cuda.get_device_name() if options.device == "cuda" else processor()
    document |= {
        "machine": f"{where}, {options.cores} cores",
        "torch": torch.__version__,
        "batchscope": __version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "seconds": options.seconds,
        "trials": options.trials,
        "budget_steps": options.budget_steps,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "all_met": all(row["ratio_met"] and row["share_met"] is not False for row in rows),
        "rows": rows,
    }
    print(f"{document['machine']}; torch {torch.__version__}, Python {document['python']}; {document['date']}")
    print(table(rows, options.markdown))
    print(json.dumps(document))


if __name__ == "__main__":
    main()
