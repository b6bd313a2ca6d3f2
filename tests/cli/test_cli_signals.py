"""Signals, and processes that end otherwise than they should: real ones, through the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import batchscope as bs
from batchscope.cli.main import FAILED, INTERRUPTED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc of Linux")

WORKLOAD = """
import ctypes, multiprocessing, os, pathlib, time
import torch
import batchscope as bs

WHERE = pathlib.Path(__file__).parent

class Model(torch.nn.Linear):
    def forward(self, inputs):
        if not (WHERE / f"worker-{os.getpid()}").exists():
            (WHERE / f"worker-{os.getpid()}").touch()
        what = (WHERE / "what").read_text() if multiprocessing.parent_process() else ""
        if what == "sleep":
            (WHERE / "reached").write_text(str(os.getpid()))
            time.sleep(1000)
        if what == "hold":
            (WHERE / "reached").write_text(str(os.getpid()))
            ctypes.PyDLL(None).sleep(1000)
        if what == "exit":
            os._exit(7)
        if what == "fault":
            ctypes.string_at(0)
        if what == "slow":
            time.sleep(0.001)
        return super().forward(inputs)

def make():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 4, generator=generator)
    pair = inputs, inputs.sum(1, keepdim=True)
    def loss(outputs, targets):
        return (outputs - targets).square().mean(1)
    return bs.Workload(
        model=lambda: Model(4, 1),
        loss=loss, train=pair, validation=pair, metrics={},
    )
"""
STUDY = """
workload: workload.py:make
algorithm: {optimizer: sgd}
batch_sizes: [8]
search: {trials: 4, space: {learning_rate: {min: 0.0001, max: 0.001, scale: log}}, widen: {rounds: 0}}
goals: ["validation/loss < 0.000001"]
budget: {steps: 4000}
policy: full
engine: {program: loop, pack_size: 1, threads: 1}
"""


class Command:
    """A ``batchscope run`` in a folder of its own."""

    def __init__(self, folder: Path, what: str) -> None:
        self.folder = folder
        (folder / "workload.py").write_text(WORKLOAD)
        (folder / "study.yaml").write_text(STUDY)
        (folder / "what").write_text(what)
        self.log = folder / "log"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "batchscope", "run", "study.yaml", "-o", "run", "--workers", "2"],
                cwd=folder,
                env=environment,
                start_new_session=True,
                stdout=log,
                stderr=log,
            )

    def until(self, found: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not found():
            assert time.monotonic() < end and self.process.poll() is None, self.said()
            time.sleep(0.01)

    def signal(self, number: int, *, group: bool = False) -> float:
        """Seconds from a signal to the end."""
        began = time.monotonic()
        (os.killpg if group else os.kill)(self.process.pid, number)
        self.process.wait(timeout=60)
        return time.monotonic() - began

    def said(self) -> str:
        return self.log.read_text()

    def workers(self) -> set[int]:
        return {int(path.name.partition("-")[2]) for path in self.folder.glob("worker-*")} - {self.process.pid}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Command]]:
    commands: list[Command] = []

    def started(what: str) -> Command:
        commands.append(Command(tmp_path, what))
        return commands[-1]

    yield started
    for command in commands:
        if command.process.poll() is None:
            os.killpg(command.process.pid, signal.SIGKILL)
            command.process.wait()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_in_its_first_seconds_a_command_ends_within_a_moment_and_with_a_word(
    start: Callable[[str], Command], number: int
) -> None:
    for moment in (0.5, 1.5):
        command = start("")
        time.sleep(moment)
        seconds = command.signal(number, group=True)
        said = command.said()
        assert command.process.returncode == INTERRUPTED, said
        assert "batchscope: interrupted" in said or "batchscope: stopping" in said
        assert seconds < 6 and "Traceback" not in said and "KeyboardInterrupt" not in said


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGHUP))]
)
def test_every_signal_keeps_what_is_finished(start: Callable[[str], Command], number: int) -> None:
    """Sent to the whole group, as terminals and schedulers do: workers keep their state nevertheless."""
    command = start("slow")
    command.until(lambda: any((command.folder / "run" / "trials").glob("*.parquet")))
    command.signal(number, group=True)
    said = command.said()
    assert command.process.returncode == INTERRUPTED, said
    assert "stopping; what is finished is kept" in said and "Go on with" in said and "Traceback" not in said
    run = bs.open_run(command.folder / "run")
    assert run.driver is None and run.warnings == [] and len(run.measurements.collect())
    assert any((command.folder / "run" / "checkpoints").iterdir())
    assert all(map(is_gone, command.workers()))


@pytest.mark.slow
def test_a_hanging_function_does_not_hold_ctrl_c(start: Callable[[str], Command]) -> None:
    command = start("sleep")
    command.until((command.folder / "reached").exists)
    assert command.signal(signal.SIGINT) < 8
    assert command.process.returncode == INTERRUPTED and all(map(is_gone, command.workers()))


@pytest.mark.slow
def test_hanging_workers_with_a_state_have_one_deadline_together(start: Callable[[str], Command]) -> None:
    command = start("slow")
    command.until(lambda: any((command.folder / "run" / "trials").glob("*.parquet")))
    (command.folder / "what").write_text("sleep")
    command.until((command.folder / "reached").exists)
    time.sleep(0.5)
    assert 5 < command.signal(signal.SIGINT) < 14
    assert command.process.returncode == INTERRUPTED and all(map(is_gone, command.workers()))


@pytest.mark.parametrize("what", [pytest.param("sleep", marks=pytest.mark.slow), "hold"])
@pytest.mark.slow
def test_workers_die_with_a_driver_that_was_killed(start: Callable[[str], Command], what: str) -> None:
    """Also within a function that never returns, and one that never lets another thread of its process run."""
    command = start(what)
    command.until((command.folder / "reached").exists)
    command.signal(signal.SIGKILL)
    end = time.monotonic() + 5
    while not all(map(is_gone, command.workers())):
        assert time.monotonic() < end
        time.sleep(0.02)
    left = [*command.folder.glob("pymp-*")]
    again = start("slow")  # what it left is tidied by the next one
    assert left
    again.until(lambda: not any(folder.exists() for folder in left))


@pytest.mark.parametrize(
    ("what", "words"), [("exit", "ended with exit status 7"), ("fault", "a segmentation fault (SIGSEGV)")]
)
@pytest.mark.slow
def test_the_end_of_a_worker_is_named(start: Callable[[str], Command], what: str, words: str) -> None:
    command = start(what)
    assert command.process.wait(timeout=60) == FAILED
    said = command.said()
    assert words in said and "memory" not in said and "Traceback" not in said and "batch size 8" in said
