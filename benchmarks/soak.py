"""Does a run that is killed again and again end as one that was never disturbed?

Runs small studies (a race, widening and confirmation, eight batch sizes with two seeds, every trial to the end; digits
and the noisy quadratic) through the command line with two workers, and kills the driver, a worker, or all of them, at
seeded moments inside every phase (see ``tests/runs/killing.py``) and at random times; starts the same command again
until the run is finished; then compares it with an undisturbed run: trials, statuses, measurements (each trial and step
once) and ``summary.json``, bit for bit, wall-clock columns excepted.

    python benchmarks/soak.py --kills 200 --seed 0

Starting Python and importing torch costs seconds, so one process that has imported everything is forked for every
driver, and one fork server serves the workers of them all. What they execute is the command.

Says on standard error how far it is, and prints one JSON line: kills by victim and by phase, starts, worker deaths that
a driver survived, differences, seconds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from runs import killing
from runs.killing import FOLDER, PHASES, VICTIMS, Plan
from runs.same import assert_same_run

ENGINE = "engine: {program: loop, pack_size: 2, threads: 1}"
STUDIES = {
    "race": f"""
workload: digits/softmax
batch_sizes: [16, 64]
search: {{trials: 5, confirm: {{seeds: 0}}, space: {{learning_rate: {{min: 0.03, max: 1, scale: log}}, momentum: 0.9}}}}
goals: ["validation/error < 0.15"]
budget: {{epochs: 2}}
{ENGINE}
""",
    "widening and confirmation": f"""
workload: noisy_quadratic/8
algorithm: {{optimizer: sgd}}
batch_sizes: [4, 16]
search:
  trials: 4
  space: {{learning_rate: {{min: 0.005, max: 0.02, scale: log}}}}
  widen: {{edge: 0.3, rounds: 2}}
  confirm: {{seeds: 2}}
goals: ["validation/loss < 0.3"]
budget: {{steps: 120}}
{ENGINE}
""",
    "eight batch sizes, two seeds": f"""
workload: noisy_quadratic/8
batch_sizes: {{from: 1, to: 128, factor: 2}}
search:
  trials: 3
  space: {{learning_rate: {{min: 0.02, max: 0.5, scale: log}}, momentum: 0.5}}
  widen: {{rounds: 0}}
  confirm: {{seeds: 2}}
goals: ["validation/loss < 0.3", "validation/loss < 0.15"]
budget: {{steps: 60}}
{ENGINE}
""",
    "full": f"""
workload: noisy_quadratic/8
batch_sizes: [2, 8, 32]
search:
  trials: 4
  confirm: {{seeds: 0}}
  space: {{learning_rate: {{min: 0.01, max: 1, scale: log}}, momentum: [0, 0.5, 0.9]}}
goals: ["validation/loss < 0.2", "validation/loss < 0.1"]
budget: {{steps: 60}}
policy: full
{ENGINE}
""",
}
# Phases that only some studies have, and what in their text says so.
ONLY_THERE = {"widening": "edge", "confirming": "seeds: 2"}
ANY_TIME = "any time"
# Seconds after which a command is said to hang: far more than it takes beside other work.
LONGEST = 600.0


def fork(task: Callable[[], int], log: Path) -> int:
    """A child that does the task, with a session of its own and its output in a file; its process number.

    This process itself only waits: once it had used the threads of polars, a forked child could not.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        status = task()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def command(study: Path, folder: Path) -> Callable[[], int]:
    """``batchscope run`` with two workers from the fork server."""

    def task() -> int:
        from batchscope.cli.main import invoke

        # The fork server runs, though not as a child of this process.
        forkserver._forkserver.ensure_running = forkserver.ensure_running = lambda: None
        return invoke(["run", str(study), "-o", str(folder), "--workers", "2"])

    return task


def wait(pid: int, seconds: float) -> int | None:
    """The exit status of a child, negative for a signal; None if it still runs after so long."""
    end = time.monotonic() + seconds
    while (found := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            return None
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(found[1])


class Soak:
    """One soak: its studies, what was killed, and what differed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.plan = folder, Plan(Path(os.environ[FOLDER]))
        self.random = random.Random(seed)
        self.starts = self.survived = self.finished = 0
        self.outside: list[tuple[str, str]] = []
        self.differences: list[str] = []
        self.seconds: dict[str, float] = {}

    def kills(self) -> Counter[tuple[str, str]]:
        inside = [(death["victim"], death["phase"]) for death in self.plan.deaths()]
        return Counter([*inside, *self.outside])

    def reference(self, name: str) -> None:
        """The undisturbed run of a study."""
        (self.folder / f"{name}.yaml").write_text(STUDIES[name])
        self.plan.among([])
        began = time.monotonic()
        status = self._start(name, self.folder / name, LONGEST)
        self.seconds[name] = time.monotonic() - began
        if status != 0:
            sys.exit(f"the undisturbed run of {name} ended with {status}: {self._log(name)}")

    def torment(self, name: str, number: int, most: int) -> None:
        """One run of a study, killed until it is finished or ``most`` kills are done; then left in peace."""
        folder = self.folder / f"{name}-{number}"
        while True:
            quiet = self.kills().total() >= most
            outside = not quiet and self.random.random() < 0.2
            never = {"opening" if not folder.exists() else "creating"} | {
                phase for phase, key in ONLY_THERE.items() if key not in STUDIES[name]
            }
            phases = [phase for phase in PHASES if phase not in never]
            self.plan.among([] if quiet or outside else phases)
            before = self.kills().total()
            status = self._start(name, folder, self.random.uniform(0, self.seconds[name]) if outside else LONGEST)
            if status == 0:
                self.survived += self.kills().total() - before
                break
            if status not in {-signal.SIGKILL, 1}:  # 1: a worker was killed three times at one task
                self.differences.append(f"{folder.name}: exit status {status}: {self._log(folder.name)}")
                return
        self.finished += 1
        pid = fork(lambda: assert_same_run(folder, self.folder / name) or 0, self.folder / f"{folder.name}.log")
        if wait(pid, LONGEST) != 0:
            self.differences.append(f"{folder.name}: {self._log(folder.name)}")

    def _start(self, name: str, folder: Path, seconds: float) -> int:
        """Start the command; kill it if it runs longer than so many seconds."""
        self.starts += 1
        pid = fork(command(self.folder / f"{name}.yaml", folder), self.folder / f"{folder.name}.log")
        status = wait(pid, seconds)
        if status is not None:
            return status
        if seconds == LONGEST:
            self.differences.append(f"{folder.name}: hangs: {self._log(folder.name)}")
        workers = self.plan.workers_of(pid)
        victim = self.random.choice(VICTIMS if workers else ["driver"])
        for target in {"driver": [pid], "worker": workers[:1], "all": [pid, *workers]}[victim]:
            os.kill(target, signal.SIGKILL)
        self.outside.append((victim, ANY_TIME))
        if victim == "worker":
            status = wait(pid, LONGEST)
            if status is None:
                self.differences.append(f"{folder.name}: hangs after the death of a worker: {self._log(folder.name)}")
                os.kill(pid, signal.SIGKILL)
        return wait(pid, LONGEST) or -signal.SIGKILL if status is None else status

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-2000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", choices=STUDIES, action="append", help="otherwise all of them")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        os.environ[FOLDER], os.environ["OMP_NUM_THREADS"] = str(Path(place) / "plan"), "1"
        Plan.make(Path(os.environ[FOLDER]), options.seed)
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(["batchscope.executors.local", "batchscope.runs", "sklearn.datasets"])
        forkserver.ensure_running()
        killing.install()
        soak = Soak(Path(place), options.seed)
        studies = options.study or list(STUDIES)
        for name in studies:
            soak.reference(name)
        number = 0
        while soak.kills().total() < options.kills:
            soak.torment(studies[number % len(studies)], number, options.kills)
            number += 1
            print(
                f"{soak.kills().total()} kills, {soak.finished} runs, {soak.starts} starts", file=sys.stderr, flush=True
            )
        kills = soak.kills()
    result = {
        "benchmark": "soak",
        "seed": options.seed,
        "kills": kills.total(),
        "by_victim": dict(sum((Counter({victim: n}) for (victim, _), n in kills.items()), Counter[str]())),
        "by_phase": dict(sum((Counter({phase: n}) for (_, phase), n in kills.items()), Counter[str]())),
        "starts": soak.starts,
        "worker_deaths_survived": soak.survived,
        "runs_finished": soak.finished,
        "differences": len(soak.differences),
        "seconds": round(time.monotonic() - began, 1),
    }
    for difference in soak.differences:
        print(difference, file=sys.stderr)
    print(json.dumps(result))
    sys.exit(1 if soak.differences else 0)


if __name__ == "__main__":
    main()
