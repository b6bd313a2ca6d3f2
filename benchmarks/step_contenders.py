"""Who takes part in ``step_time.py``: the user's loop, the engine's workers, and the machine itself.

Each is an object in a process of its own, so that none inherits what another did to threads or to the allocator.
"""

from __future__ import annotations

import math
import multiprocessing
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.models import CharacterTransformer, CifarResNet, FullyConnected, SimpleCNN

EXAMPLES, CONTEXT, CHARACTERS = 4096, 64, 64
LEARNING_RATE, MOMENTUM = 1e-4, 0.9
STRETCH = 64  # steps of one call: from one evaluation to the next at step 1,300 of the grid of ratio 1.05
MIB = 2**20


def images(*shape: int) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (EXAMPLES,), generator=generator)
        return torch.rand(EXAMPLES, *shape, generator=generator), labels

    return draw


def text(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    characters = torch.randint(CHARACTERS, (EXAMPLES, CONTEXT + 1), generator=generator)
    return characters[:, :-1].contiguous(), characters[:, 1:].contiguous()


@dataclass(frozen=True)
class Model:
    """What is trained, on what."""

    build: Callable[[], nn.Module]
    data: Callable[[torch.Generator], tuple[Tensor, Tensor]]


MODELS = {
    "digits-mlp-64": Model(lambda: FullyConnected((8, 8), (64,)), images(8, 8)),
    "fc-256": Model(lambda: FullyConnected((1, 28, 28), (256,)), images(1, 28, 28)),
    "simple-cnn": Model(SimpleCNN, images(1, 28, 28)),
    "resnet-8": Model(CifarResNet, images(3, 32, 32)),
    "transformer": Model(lambda: CharacterTransformer(CHARACTERS, layers=2, width=128, context=CONTEXT), text),
}


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def loss_per_example(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.ndim == 1:
        return F.cross_entropy(outputs, targets, reduction="none")
    return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(-1)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class User:
    """The loop that a user would write."""

    def __init__(self, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self.device = device

    def prepare(self, name: str, batch_size: int) -> None:
        torch.manual_seed(0)
        self.model = MODELS[name].build().to(self.device)
        inputs, targets = MODELS[name].data(torch.Generator().manual_seed(0))
        self.inputs, self.targets, self.batch_size = inputs.to(self.device), targets.to(self.device), batch_size
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        self.order, self.place = torch.randperm(EXAMPLES, device=self.device), 0
        self.train(3)
        wait(self.device)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            if self.place + self.batch_size > EXAMPLES:
                self.order, self.place = torch.randperm(EXAMPLES, device=self.device), 0
            batch = self.order[self.place : self.place + self.batch_size]
            self.place += self.batch_size
            self.optimizer.zero_grad(set_to_none=True)
            self.loss = mean_loss(self.model(self.inputs[batch]), self.targets[batch])
            self.loss.backward()
            self.optimizer.step()

    def run(self, seconds: float) -> tuple[int, float]:
        """Steps, and the seconds that they took."""
        steps, spent, stretch, started = 0, 0.0, 1, time.perf_counter()
        while spent < seconds:
            self.train(stretch)
            wait(self.device)
            steps, spent = steps + stretch, time.perf_counter() - started
            stretch = fitting(spent / steps, seconds)
        assert math.isfinite(self.loss.item())
        return steps, spent


def training_of(name: str, batch_size: int, trials: int, budget_steps: int, device: str) -> Any:
    """What the trials of a study of one of the models share at a batch size."""
    from batchscope import Study, Workload
    from batchscope.engine.training import Loaded, Training

    inputs, targets = MODELS[name].data(torch.Generator().manual_seed(0))
    workload = Workload(MODELS[name].build, loss_per_example, (inputs, targets), (inputs[:256], targets[:256]))
    study = Study.from_mapping(
        {
            "workload": name,
            "algorithm": {"optimizer": "momentum"},
            "batch_sizes": [batch_size],
            "search": {
                "trials": trials,
                "space": {
                    "learning_rate": {"min": LEARNING_RATE / 10, "max": LEARNING_RATE, "scale": "log"},
                    "momentum": {"min": 0.5, "max": MOMENTUM, "scale": "reverse_log"},
                },
            },
            "goals": ["validation/loss < 1"],
            "budget": {"steps": budget_steps},
        }
    )
    return Training(Loaded(workload, study, torch.device(device)), batch_size)


class Ours:
    """A worker of the engine."""

    def __init__(self, threads: int, device: str, place: int, limit: int, budget_steps: int, barrier: Any) -> None:
        from batchscope.executors.local import _keep_freed_memory

        torch.set_num_threads(threads)
        _keep_freed_memory()
        self.device, self.place, self.barrier = device, place, barrier
        self.limit, self.budget_steps = limit, budget_steps

    def choose(self, name: str, batch_size: int) -> tuple[Any, float]:
        """The choice of this worker, and how long choosing took, with whatever was compiled for it."""
        from batchscope.engine.choice import choose
        from batchscope.engine.randomness import keeping_generators
        from batchscope.plan.sampling import first_trials

        self.training = training_of(name, batch_size, self.limit, self.budget_steps, self.device)
        study = self.training.loaded.study
        self.trials = first_trials(study.search, batch_size, study.seed, self.limit * (self.place + 1))
        self.barrier.wait()
        started = time.perf_counter()
        with keeping_generators(self.training.loaded.device):
            choice = choose(self.training, self.trials[: self.limit], study.engine).choice
        return choice, time.perf_counter() - started

    def prepare(self, choice: Any) -> int:
        """Make the chosen program and a pack of trials of this worker's own; the bytes of the pack's state."""
        from batchscope.engine.choice import program_of
        from batchscope.engine.pack import Pack
        from batchscope.engine.program import advance

        self.program, self.advance = program_of(choice, self.training), advance
        mine = self.trials[choice.pack_size * self.place :][: choice.pack_size]
        self.pack = Pack.fresh(self.training, mine)
        self.train(1)
        self.barrier.wait()
        started = time.perf_counter()
        self.train(1)
        self.step_seconds = time.perf_counter() - started
        return sum(value.numel() * value.element_size() for value in self.pack.state.values())

    def train(self, steps: int) -> None:
        advanced = self.advance(self.program, self.pack, self.pack.step + steps, ())
        assert advanced is not None
        self.pack = advanced[0]

    def warm(self, seconds: float) -> None:
        """Whatever the program makes for stretches of the length that is timed."""
        self.stretch = fitting(self.step_seconds, seconds)
        self.train(self.stretch)

    def run(self, seconds: float) -> tuple[int, float]:
        """Trial-steps, and the seconds that they took, begun at the same time in all workers."""
        self.barrier.wait()
        steps, spent, started = 0, 0.0, time.perf_counter()
        while spent < seconds:
            self.train(self.stretch)
            steps, spent = steps + self.stretch, time.perf_counter() - started
        assert all(value.isfinite().all() for value in self.pack.state.values())
        return steps * len(self.pack.trials), spent


class Machine:
    """The rates that bound a step."""

    def __init__(self, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self.device = device
        side = 2048 if device == "cpu" else 8192
        self.left, self.right = torch.rand(2, side, side, device=device)
        self.product, self.operations = torch.empty_like(self.left), 2 * side**3

    def prepare(self, name: str, batch_size: int, working_set: int) -> tuple[int, int]:
        """Operations of forward and backward, and parameters."""
        from torch.utils.flop_counter import FlopCounterMode

        count = min(256 * MIB, max(4 * MIB, working_set)) // (3 * 4)
        self.triad = torch.rand(3, count, device=self.device)
        model = MODELS[name].build().to(self.device)
        inputs, targets = MODELS[name].data(torch.Generator().manual_seed(0))
        with FlopCounterMode(display=False) as counter:
            outputs = model(inputs[:batch_size].to(self.device))
            mean_loss(outputs, targets[:batch_size].to(self.device)).backward()
        return counter.get_total_flops(), sum(parameter.numel() for parameter in model.parameters())

    def run(self, seconds: float) -> tuple[float, float]:
        """Operations and bytes in a second: the best of some in each half of the time."""
        a, b, c = self.triad

        def multiply() -> object:
            return torch.mm(self.left, self.right, out=self.product)

        def stream() -> object:
            return torch.add(b, c, alpha=0.5, out=a)

        return self.operations / self.quickest(multiply, seconds / 2), 4 * self.triad.numel() / self.quickest(
            stream, seconds / 2
        )

    def quickest(self, work: Callable[[], object], seconds: float) -> float:
        work()
        quickest, begun = math.inf, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            wait(self.device)
            started = time.perf_counter()
            work()
            wait(self.device)
            quickest = min(quickest, time.perf_counter() - started)
        return quickest


def fitting(step_seconds: float, seconds: float) -> int:
    """Steps of a call of about a quarter of the time, at most those between two evaluations."""
    return max(1, min(STRETCH, int(seconds / 4 / step_seconds)))


class Process:
    """An object in a process of its own."""

    def __init__(self, kind: Callable[..., Any], *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, kind, given), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, method: str, *given: Any) -> None:
        self.pipe.send((method, given))

    def answer(self) -> Any:
        try:
            good, reply = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise SystemExit("a process died; it may have run out of memory: try fewer --trials") from None
        if not good:
            raise SystemExit(f"a process failed:\n{reply}")
        return reply

    def call(self, method: str, *given: Any) -> Any:
        self.ask(method, *given)
        return self.answer()

    def end(self) -> None:
        self.pipe.close()
        self.process.join()


def serve(pipe: Connection, kind: Callable[..., Any], given: tuple[Any, ...]) -> None:
    served: Any = None
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            served = served or kind(*given)
            pipe.send((True, getattr(served, method)(*arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))


def together(processes: list[Process], method: str, *given: Any) -> list[Any]:
    for process in processes:
        process.ask(method, *given)
    return [process.answer() for process in processes]


class Team:
    """Workers that are at work at the same time."""

    def __init__(self, workers: int, threads: int, device: str, limit: int, budget_steps: int) -> None:
        self.barrier = multiprocessing.get_context("spawn").Barrier(workers, timeout=1800)
        self.workers, self.threads = workers, threads
        self.processes = [
            Process(Ours, threads, device, place, limit, budget_steps, self.barrier) for place in range(workers)
        ]

    def prepare(self, model: str, batch_size: int, seconds: float) -> dict[str, Any]:
        """All choose at once; the first one's choice is taken by all."""
        choice, spent = together(self.processes, "choose", model, batch_size)[0]
        self.state = sum(together(self.processes, "prepare", choice))
        together(self.processes, "warm", seconds)
        named = {"program": choice.program, "pack_size": choice.pack_size}
        shape = {"workers": self.workers, "threads": self.threads, "choice_seconds": round(spent, 2)}
        timings = {candidate: round(ms, 4) for candidate, ms in choice.timings.items()}
        return {**named, **shape, "choice_timings": timings, "choice_reasons": choice.reasons}

    def run(self, seconds: float) -> float:
        """Milliseconds of a trial-step over all workers."""
        finished: list[tuple[int, float]] = together(self.processes, "run", seconds)
        return 1e3 / sum(steps / spent for steps, spent in finished)

    def end(self) -> None:
        for process in self.processes:
            process.end()


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
