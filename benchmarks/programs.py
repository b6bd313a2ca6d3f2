"""Question: which program of the engine's menu is ever the fastest, and by how much?

Five models by batch size, as in ``step_time.py``. Every program of the menu, in packs of every size that a choice would
try, trains in one process of one thread; in a round each takes one turn, in an order that is drawn anew, and a
candidate's number is its median over rounds of milliseconds for a step of one trial. The processor's clock is read, so
that what else a machine does counts for little, other than for the caches that it fills. Making a program, with its
first two steps, is no part of a step: machine code takes long to make and is worth it for long studies only, so
``--programs`` can leave it out.

    python benchmarks/programs.py [--models fc-256,resnet-8] [--batch-sizes 1,8] [--programs loop,traced,vmap]
                                  [--seconds 0.7]

Progress goes to stderr; the last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from datetime import date
from typing import Any

import torch

from step_contenders import MODELS, STRETCH, Process, fitting, processor, training_of

BATCH_SIZES, ROUNDS, TRIALS = (1, 8, 64, 512), 7, 32
PACKS = {"traced": [4], "compiled_loop": [4], "vmap": [8, 32], "compiled": [8, 32]}  # the others train one by one
# A larger pack is not tried where a smaller one was so much slower than the best, or a step of it takes so long.
HOPELESS, LONGEST_STEP_SECONDS = 2.0, 3.0


class Candidates:
    """Programs that train the same trials, in turns."""

    def __init__(self) -> None:
        torch.set_num_threads(1)

    def prepare(
        self, name: str, batch_size: int, programs: list[str] | None
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Seconds that it took to make each candidate, and why others cannot run."""
        from batchscope.engine.choice import PROGRAMS, in_words
        from batchscope.plan.sampling import first_trials

        training = training_of(name, batch_size, TRIALS, 10**6, "cpu")
        self.ready: dict[str, Any] = {}
        self.step: dict[str, float] = {}
        made, reasons = {}, {}
        best = math.inf
        for program in programs or PROGRAMS:
            for size in PACKS.get(program, [1]):
                trials = first_trials(training.loaded.study.search, batch_size, 0, size)
                started = time.process_time()
                try:
                    self.begin(f"{program}-{size}", PROGRAMS[program](training), trials)
                except Exception as error:  # a candidate that cannot run is a result
                    reasons[program] = in_words(error)
                    break
                seconds = self.step[f"{program}-{size}"]
                made[f"{program}-{size}"] = time.process_time() - started
                best = min(best, seconds / size)
                if seconds / size > HOPELESS * best or 4 * seconds > LONGEST_STEP_SECONDS:
                    break
        return made, reasons

    def begin(self, candidate: str, program: Any, trials: Any) -> None:
        from batchscope.engine.pack import Pack

        self.ready[candidate] = (program, Pack.fresh(program.training, trials))
        self.train(candidate, 1)
        self.step[candidate] = self.train(candidate, 1)

    def train(self, candidate: str, steps: int) -> float:
        from batchscope.engine.program import advance

        program, pack = self.ready[candidate]
        started = time.process_time()
        advanced = advance(program, pack, pack.step + steps, ())
        assert advanced is not None
        self.ready[candidate] = (program, advanced[0])
        return time.process_time() - started

    def run(self, candidate: str, seconds: float) -> float:
        """Milliseconds of processor time for a step of one trial."""
        steps, spent, stretch = 0, 0.0, fitting(self.step[candidate], seconds)
        while spent < seconds:
            spent += self.train(candidate, stretch)
            steps += stretch
            stretch = min(STRETCH, fitting(spent / steps, seconds))
        return 1e3 * spent / steps / len(self.ready[candidate][1].trials)


def measure(model: str, batch_size: int, programs: list[str] | None, seconds: float) -> dict[str, Any]:
    """One row: medians over rounds by candidate."""
    process = Process(Candidates)
    made, reasons = process.call("prepare", model, batch_size, programs)
    found: dict[str, list[float]] = {candidate: [] for candidate in made}
    order = list(made)
    for number in range(ROUNDS):
        random.Random(number).shuffle(order)
        for candidate in order:
            found[candidate].append(process.call("run", candidate, seconds / ROUNDS))
    process.end()
    ms = {candidate: float(f"{statistics.median(times):.4g}") for candidate, times in found.items()}
    return {
        "model": model,
        "batch_size": batch_size,
        "ms": ms,
        "made_seconds": {candidate: round(taken, 2) for candidate, taken in made.items()},
        "reasons": reasons,
        "fastest": min(ms, key=ms.__getitem__),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Each program at its best pack size, in multiples of the fastest of the row, which is in milliseconds too."""
    programs = list(dict.fromkeys(candidate.rpartition("-")[0] for row in rows for candidate in row["ms"]))
    lines = [["model", "B", "fastest", "ms", *programs], ["---"] * (4 + len(programs))]
    for row in rows:
        best = row["ms"][row["fastest"]]
        of = {
            name: min((ms for at, ms in row["ms"].items() if at.rpartition("-")[0] == name), default=None)
            for name in programs
        }
        shares = ["" if ms is None else f"{ms / best:.2f}" for ms in of.values()]
        lines.append([row["model"], str(row["batch_size"]), row["fastest"], f"{best:.3g}", *shares])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help=f"some of {', '.join(MODELS)}")
    parser.add_argument("--batch-sizes", default=",".join(map(str, BATCH_SIZES)))
    parser.add_argument("--seconds", type=float, default=0.7, help="of each candidate in each row")
    parser.add_argument("--programs", help="comma-separated; default: all of the menu")
    options = parser.parse_args()
    programs = options.programs.split(",") if options.programs else None
    names, sizes = options.models.split(","), [int(size) for size in options.batch_sizes.split(",")]
    if unknown := set(names) - set(MODELS):
        parser.error(f"--models knows {', '.join(MODELS)}; got {', '.join(sorted(unknown))}")
    rows, started = [], time.perf_counter()
    for name in names:
        for size in sizes:
            rows.append(measure(name, size, programs, options.seconds))
            print(f"{time.perf_counter() - started:6.0f} s  {json.dumps(rows[-1])}", file=sys.stderr, flush=True)
    print(f"{processor()}; torch {torch.__version__}; {date.today().isoformat()}")
    print(table(rows))
    document = {"benchmark": "programs", "torch": torch.__version__, "seconds": options.seconds, "rows": rows}
    print(json.dumps(document))


if __name__ == "__main__":
    main()
