"""Units on this machine: in this process, or in worker processes with their share of the cores."""

from __future__ import annotations

import ctypes
import heapq
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import torch

from batchscope import workloads
from batchscope.engine.choice import ProgramChoice
from batchscope.engine.training import Loaded
from batchscope.errors import BatchscopeError, ExecutionError
from batchscope.executors import starting
from batchscope.executors.shared import SharedData
from batchscope.executors.worker import Checkpoints, Result, Skipped, Worker
from batchscope.machine.mortality import die_with_driver, ending, out_of_memory_kills
from batchscope.plan.race import SearchRound, Unit
from batchscope.spec.study import Study
from batchscope.spec.trial import Trial
from batchscope.spec.workload import Workload

# Deaths of a worker at one and the same task before the task is taken to be the cause.
MOST_DEATHS = 3
# What all workers together have to keep their state when they are stopped.
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to begin.

    Attributes:
        study: What is run.
        device: Where to train.
        checkpoints: Where packs are kept.
        context: What the ids of the study's trials share.
        threads: For each worker.
        data_dir: Where data sets lie; None for the default.
        workload: The workload itself; None to load it by the study's name for it.
        data: Its examples, if processes share them.
        held_bytes: The most that a worker keeps of states that it is not advancing; None for no limit.
    """

    study: Study
    device: str
    checkpoints: Checkpoints
    context: str
    threads: int
    data_dir: Path | None = None
    workload: Workload | None = None
    data: SharedData | None = None
    held_bytes: int | None = None

    def worker(self, interrupted: Callable[[], bool]) -> Worker:
        """A worker in this process."""
        workload = self.workload or workloads.load(self.study.workload, self.data_dir)
        if self.data is not None:
            workload = self.data.into(workload)
        device = torch.device(self.device)
        loaded = Loaded(workload, self.study, device, ordered=self.data is not None and self.data.ordered)
        return Worker(loaded, self.checkpoints, self.context, interrupted, self.held_bytes)


@dataclass(frozen=True)
class Choosing:
    """The task of measuring which program to take at a batch size, on as many trials as a pack may hold."""

    batch_size: int
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Running:
    """The task of computing a unit."""

    unit: Unit
    choice: ProgramChoice


@dataclass(frozen=True)
class Forgetting:
    """The task of dropping what is kept of a batch size."""

    batch_size: int


Task = Choosing | Running | Forgetting
Reply = ProgramChoice | Skipped | Result | None
Done = tuple[Task, Reply]


class Executor(Protocol):
    """Takes tasks and gives results, in any order."""

    def submit(self, task: Task) -> None:
        """Queue a task."""

    def next(self) -> Done:
        """Wait for a task to be done; its result is None if it was interrupted."""

    def stop(self) -> None:
        """Interrupt what is running and keep the state of everything in memory."""

    def close(self) -> None:
        """End, giving up what is running."""


class Inline:
    """One worker in this process: for notebooks, debuggers, and workloads that no other process can build."""

    def __init__(self, setup: WorkerSetup) -> None:
        """Load the workload."""
        self._workload = setup.study.workload
        with workloads.explained(self._workload):
            self._worker = setup.worker(lambda: False)
        self._threads, self._before = setup.threads, torch.get_num_threads()
        self._queue = _Queue()

    def submit(self, task: Task) -> None:
        """Queue a task."""
        if isinstance(task, Forgetting):
            self._worker.forget(task.batch_size)
        else:
            self._queue.add(task)

    def next(self) -> Done:
        """Do the first task of the smallest batch size."""
        task = self._queue.pop()
        torch.set_num_threads(self._threads)
        try:
            with workloads.explained(self._workload):
                return task, _do(self._worker, task)
        finally:
            torch.set_num_threads(self._before)

    def stop(self) -> None:
        """Keep the state of everything in memory."""
        self._queue.clear()
        self._worker.save()

    def close(self) -> None:
        """Drop the worker."""


class Processes:
    """Workers in processes of their own; a group of trials stays with the worker that has its state in memory."""

    def __init__(self, setup: WorkerSetup, workers: int) -> None:
        """Start the workers; they import and load beside each other."""
        self._context = starting.context()
        self._setup = setup
        self._kills = out_of_memory_kills()
        self._handles = [_WorkerHandle(*self._start()) for _ in range(workers)]
        self._shares = Shares(workers)

    def submit(self, task: Task) -> None:
        """Queue a task at the worker that holds its group, or at the one that has the least to do."""
        if isinstance(task, Forgetting):
            for handle in self._handles:
                self._queue(handle, task)
            return
        loads = [handle.load for handle in self._handles]
        worker = self._shares.least(loads) if isinstance(task, Choosing) else self._shares.worker_of(task.unit, loads)
        self._queue(self._handles[worker], task)

    def next(self) -> Done:
        """Wait for a task to be done.

        Errors:
            BatchscopeError: What a worker could not do, and why.
            ExecutionError: If a task kills its worker again and again.
        """
        while True:
            for ready in wait([handle.pipe for handle in self._handles if handle.current is not None]):
                handle = next(handle for handle in self._handles if handle.pipe is ready)
                try:
                    reply = handle.pipe.recv()
                except (EOFError, OSError):  # also in the middle of a reply
                    self._revive(handle)
                    continue
                task, handle.current, handle.deaths = handle.current, None, 0
                self._feed(handle)
                if isinstance(reply, BatchscopeError):
                    raise reply
                assert task is not None
                handle.has_state = handle.has_state or isinstance(task, Running)
                if not isinstance(task, Forgetting):
                    return task, reply

    def stop(self) -> None:
        """Interrupt all workers at their next evaluation; each that is soon enough keeps what it has as checkpoints."""
        until = time.monotonic() + STOP_SECONDS
        for handle in self._handles:
            handle.tasks.clear()
            with suppress(OSError):
                handle.pipe.send(None)
        for handle in self._handles:
            if handle.has_state:
                handle.process.join(timeout=max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """End the processes, whatever they do."""
        for handle in self._handles:
            handle.pipe.close()
            handle.process.kill()
        for handle in self._handles:
            handle.process.join()

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._setup, dict(os.environ)), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def _queue(self, handle: _WorkerHandle, task: Task) -> None:
        handle.tasks.add(task)
        self._feed(handle)

    def _feed(self, handle: _WorkerHandle) -> None:
        if handle.current is None and handle.tasks:
            handle.current = handle.tasks.pop()
            # A worker that is dead by now is noticed, and replaced, where its reply is awaited.
            with suppress(OSError):
                handle.pipe.send(handle.current)

    def _revive(self, handle: _WorkerHandle) -> None:
        handle.process.join()
        handle.deaths += 1
        if handle.deaths >= MOST_DEATHS:
            raise ExecutionError(
                f"a worker died {handle.deaths} times at {_describe(handle.current)}; the last one "
                f"{ending(handle.process.exitcode, self._kills)}"
            )
        handle.pipe.close()
        handle.process, handle.pipe = self._start()
        handle.has_state = False
        with suppress(OSError):
            handle.pipe.send(handle.current)


class _WorkerHandle:
    """A worker process, as its driver sees it."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process, self.pipe = process, pipe
        self.tasks = _Queue()
        self.current: Task | None = None
        self.has_state = False  # there is nothing to wait for in a worker that has computed nothing yet
        self.deaths = 0

    @property
    def load(self) -> int:
        return len(self.tasks) + (self.current is not None)


class Shares:
    """Which worker has which group of trials: every worker has its share of every batch size.

    The last batch size must keep all workers busy to its end.
    """

    def __init__(self, workers: int) -> None:
        """Nobody has any."""
        self._worker: dict[tuple[SearchRound, int], int] = {}
        self._groups: list[Counter[int]] = [Counter() for _ in range(workers)]  # of each, by batch size

    def worker_of(self, unit: Unit, loads: Sequence[int]) -> int:
        """The worker that has a unit's group, or from now on the one with the fewest groups of its batch size.

        Args:
            unit: Whose group.
            loads: Tasks that wait at each worker.
        """
        group, batch_size = (unit.search_round, unit.group), unit.search_round.batch_size
        if group not in self._worker:
            counts = [own[batch_size] for own in self._groups]
            self._worker[group] = worker = self.least(list(zip(counts, loads, strict=True)))
            self._groups[worker][batch_size] += 1
        return self._worker[group]

    def least(self, loads: Sequence[Any]) -> int:
        """The worker with the least load; of those the one with the fewest groups."""
        return min(range(len(loads)), key=lambda worker: (loads[worker], self._groups[worker].total()))


class _Queue:
    """Tasks, the most urgent first; of equally urgent ones the one that was added first."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int, int], int, Task]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, task: Task) -> None:
        heapq.heappush(self._heap, (_urgency(task), self._added, task))
        self._added += 1

    def pop(self) -> Task:
        return heapq.heappop(self._heap)[2]

    def clear(self) -> None:
        self._heap.clear()


def _urgency(task: Task) -> tuple[int, int, int]:
    """Small batch sizes first: they take the most steps, so they must not begin last."""
    if isinstance(task, Forgetting):
        return (0, task.batch_size, 0)
    if isinstance(task, Choosing):
        return (1, task.batch_size, 0)
    return (2, task.unit.search_round.batch_size, task.unit.group)


def _do(worker: Worker, task: Task) -> Reply:
    match task:
        case Choosing():
            return worker.choose(task.batch_size, task.trials)
        case Running():
            return worker.run(task.unit, task.choice)
        case Forgetting():
            worker.forget(task.batch_size)
    return None


def _serve(pipe: Connection, setup: WorkerSetup, environment: Mapping[str, str]) -> None:
    """A worker process: one task after the other until the driver stops it, or is gone.

    During a task the driver sends nothing but the word to stop, and its end of the pipe closes when it dies: whatever
    can be read means that nobody waits for the task. An event shared by all processes would need a lock, which a
    worker that is killed while it holds it leaves locked for ever.
    """
    die_with_driver()
    if os.environ != environment:  # of the process that this one was forked from
        os.environ.clear()
        os.environ.update(environment)
    torch.set_num_threads(setup.threads)
    worker: Worker | None = None
    with suppress(EOFError, OSError):
        while (task := pipe.recv()) is not None:
            try:
                if worker is None:
                    worker = setup.worker(pipe.poll)
                    _keep_freed_memory()  # from here on: a copy of the data that was shared must go back
                reply: object = _do(worker, task)
                # What a user's code raises may not be what can be sent.
                if isinstance(reply, Skipped) and not isinstance(reply.error, BatchscopeError):
                    reply = replace(reply, error=ExecutionError(f"{_describe(task)} failed: {_in_words(reply.error)}"))
            except BatchscopeError as error:
                reply = error
            except Exception as error:
                theirs = workloads.in_words(error, setup.study.workload)
                reply = theirs or ExecutionError(f"{_describe(task)} failed: {_in_words(error)}")
            pipe.send(reply)
        if worker is not None:
            worker.save()


def _describe(task: Task | None) -> str:
    match task:
        case Choosing():
            return f"the choice of a program at batch size {task.batch_size}"
        case Running():
            unit = task.unit
            return (
                f"batch size {unit.search_round.batch_size}, trials {unit.members}, steps {unit.start} to {unit.until}"
            )
    return "a task"


def _in_words(error: Exception) -> str:
    """The error, and the last place in it that is not in an installed package: the user's own code, most often."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    place = f" (at {frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _keep_freed_memory() -> None:
    """Ask glibc to keep large freed blocks: giving them back and faulting them in again costs more than small steps."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            mmap_threshold, trim_threshold, top_pad = -3, -1, -2
            libc.mallopt(mmap_threshold, 1 << 30)
            libc.mallopt(trim_threshold, (1 << 31) - 1)
            libc.mallopt(top_pad, 1 << 26)
