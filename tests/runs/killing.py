"""Death at a chosen moment: a driver and its workers that SIGKILL themselves, each other, or all at once.

``python killing.py run study.yaml ...`` is ``python -m batchscope run study.yaml ...`` with hooks in driver and
workers. The hooks read from the folder in ``BATCHSCOPE_KILLING`` when to strike, so workers that are started anew hear
of it too; without it they do nothing.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import random
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Literal

from batchscope.cli.main import main
from batchscope.engine.alone import Alone
from batchscope.engine.loop import Loop
from batchscope.engine.vmap import Vmap
from batchscope.executors import worker as workers
from batchscope.executors.worker import Worker
from batchscope.runs import driver
from batchscope.runs.run_folder import Run
from batchscope.store import store
from batchscope.store.disk import Files
from batchscope.store.lock import _started
from batchscope.store.states import States
from batchscope.store.store import Store

FOLDER = "BATCHSCOPE_KILLING"
Victim = Literal["driver", "worker", "all"]
VICTIMS: tuple[Victim, ...] = ("driver", "worker", "all")

# The most often that a phase is passed before it is the last; about so often it comes in a small run.
PHASES = {
    "creating": 8,
    "opening": 2,
    "training": 100,
    "evaluating": 100,
    "checkpointing": 40,
    "replying": 12,
    "committing": 40,
    "between data and log": 6,
    "compacting": 14,
    "finishing a batch size": 20,
    "widening": 150,
    "confirming": 100,
    "summarising": 14,
}


@dataclass(frozen=True)
class Moment:
    """Whom to kill when a phase is passed for the ``count``-th time."""

    phase: str
    count: int
    victim: Victim


class Plan:
    """When to strike, in a folder that every process reads: a seeded moment for every start and after every death."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def make(cls, folder: Path, seed: int) -> Plan:
        folder.mkdir()
        (folder / "seed").write_text(str(seed))
        (folder / "phases").write_text(json.dumps(list(PHASES)))
        for name in ("turns", "deaths", "workers"):
            (folder / name).touch()
        return cls(folder)

    def turn(self) -> int:
        return (self._folder / "turns").stat().st_size

    def next(self) -> None:
        """The moment that was waited for is over: it came, or it did not."""
        self._append("turns", ".")

    def among(self, phases: list[str]) -> None:
        """Strike in these phases from now on; in none of them if there are none."""
        (self._folder / "phases").write_text(json.dumps(phases))
        self.next()

    def moment(self, turn: int) -> Moment | None:
        generator = random.Random(f"{(self._folder / 'seed').read_text()} {turn}")
        phases = json.loads((self._folder / "phases").read_text())
        if not phases:
            return None
        phase = generator.choice(phases)
        count = 1 + int(PHASES[phase] * generator.random() ** 3)  # early ones more often: much of a run is done before
        return Moment(phase, count, generator.choice(VICTIMS))

    def deaths(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self._folder / "deaths").read_text().splitlines()]

    def died(self, moment: Moment) -> None:
        self._append("deaths", json.dumps(asdict(moment)) + "\n")
        self.next()

    def at_work(self, driver: int, worker: int) -> None:
        self._append("workers", json.dumps([driver, worker, _started(worker)]) + "\n")

    def workers_of(self, driver: int) -> list[int]:
        """The workers of a driver that live; a number that was given again is another process."""
        rows = map(json.loads, (self._folder / "workers").read_text().splitlines())
        return [worker for parent, worker, started in rows if parent == driver and _started(worker) == started]

    def _append(self, name: str, text: str) -> None:
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, text.encode())
        os.close(descriptor)


class Hooks:
    """What a process does at the points it passes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.phases: list[str] = []
        self._turn, self._passed = -1, 0
        self._moment: Moment | None = None

    def point(self, phase: str, last: Callable[[], None] = lambda: None) -> None:
        """Pass a point; ``last`` is done before this process dies at it."""
        turn = self.plan.turn()
        if turn != self._turn:
            self._turn, self._passed, self._moment = turn, 0, self.plan.moment(turn)
        if self._moment is None or phase != self._moment.phase:
            return
        self._passed += 1
        if self._passed == self._moment.count:
            self._strike(self._moment, last)

    def _strike(self, moment: Moment, last: Callable[[], None]) -> None:
        parent = multiprocessing.parent_process()
        above = os.getpid() if parent is None else parent.pid
        assert above is not None
        living = self.plan.workers_of(above)
        victims = {"driver": [above], "all": [above, *living]}.get(moment.victim, [])
        if moment.victim == "worker" and (living or parent is not None):
            victims = [os.getpid()] if parent is not None else living[:1]
        if not victims:
            return
        self.plan.died(moment)
        if os.getpid() in victims:
            last()
        for victim in sorted(victims, key=os.getpid().__eq__):  # itself last
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        self.phases.append(phase)
        try:
            yield
        finally:
            self.phases.pop()


def install() -> None:
    """Put the hooks in, if this process is to have them."""
    if FOLDER not in os.environ:
        return
    hooks = Hooks(Plan(Path(os.environ[FOLDER])))
    for phase, owner, name in (
        ("creating", Store, "create"),
        ("opening", Store, "open"),
        ("committing", Store, "commit"),
        ("compacting", Store, "compact"),
        ("finishing a batch size", Store, "write_provenance"),
        ("finishing a batch size", Store, "drop_states"),
        ("checkpointing", States, "save"),
        ("summarising", Run, "write_report"),
    ):
        _during(hooks, phase, owner, name)
    _search_rounds(hooks)
    for program in (Loop, Alone, Vmap):
        _before(hooks, "training", program, "train")
        _before(hooks, "evaluating", program, "evaluate")
    _disk(hooks)
    if multiprocessing.parent_process() is not None:
        _replies(hooks)
    workers.CHECKPOINT_SECONDS, driver.COMMIT_SECONDS = 0.02, 0.05  # small runs would be over before the first one
    store.MERGE_PAIRS = 12


def _during(hooks: Hooks, phase: str, owner: type, name: str) -> None:
    kept = owner.__dict__[name]
    inner: Callable[..., Any] = kept.__func__ if isinstance(kept, classmethod) else kept

    @functools.wraps(inner)
    def outer(*arguments: Any, **options: Any) -> Any:
        with hooks.during(phase):
            hooks.point(phase)
            return inner(*arguments, **options)

    setattr(owner, name, classmethod(outer) if isinstance(kept, classmethod) else outer)


def _search_rounds(hooks: Hooks) -> None:
    run, begin = Worker.run, Worker.__init__

    def begun(worker: Worker, *arguments: Any, **options: Any) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid is not None:
            hooks.plan.at_work(parent.pid, os.getpid())
        begin(worker, *arguments, **options)

    def ran(worker: Worker, unit: Any, *rest: Any, **options: Any) -> Any:
        search_round = unit.search_round
        with hooks.during("confirming" if search_round.replicate else "widening" if search_round.revision else ""):
            return run(worker, unit, *rest, **options)

    _put(Worker, __init__=begun, run=ran)


def _before(hooks: Hooks, phase: str, owner: type, name: str) -> None:
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def outer(*arguments: Any, **options: Any) -> Any:
        hooks.point((hooks.phases and hooks.phases[-1]) or phase)
        return inner(*arguments, **options)

    setattr(owner, name, outer)


def _disk(hooks: Hooks) -> None:
    """Every primitive of the file layer is a point; what is being written when it strikes is torn."""
    write, rename, sync, unlink = Files._write, Files._rename, Files._sync, Files._unlink

    def pass_by(last: Callable[[], None] = lambda: None) -> None:
        if hooks.phases:
            hooks.point(hooks.phases[-1], last)

    def writing(files: Files, path: Path, data: bytes) -> None:
        pass_by(lambda: None if path.write_bytes(data[: len(data) // 2]) else None)
        write(files, path, data)

    def renaming(files: Files, source: Path, target: Path) -> None:
        if target.parent.name == "trials":
            hooks.point("between data and log")
        pass_by()
        rename(files, source, target)

    def syncing(files: Files, descriptor: int) -> None:
        pass_by()
        sync(files, descriptor)

    def unlinking(files: Files, path: Path) -> None:
        pass_by()
        unlink(files, path)

    _put(Files, _write=writing, _rename=renaming, _sync=syncing, _unlink=unlinking)


def _replies(hooks: Hooks) -> None:
    """A worker may die with half a reply sent."""
    send = Connection.send

    def sending(pipe: Connection, reply: object) -> None:
        data = bytes(ForkingPickler.dumps(reply))
        half = (struct.pack("!i", len(data)) + data)[: 4 + len(data) // 2]
        hooks.point("replying", lambda: None if os.write(pipe.fileno(), half) else None)
        send(pipe, reply)

    _put(Connection, send=sending)


def _put(owner: type, **methods: Callable[..., Any]) -> None:
    for name, method in methods.items():
        setattr(owner, name, method)


install()

if __name__ == "__main__":
    main()
