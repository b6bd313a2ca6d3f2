"""A workload on one device, updated at any batch size: what a probe measures, as a user would write it."""

from __future__ import annotations

import copy
import gc
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from batchscope import workloads
from batchscope.amounts import memory
from batchscope.engine.batches import Batches, placed
from batchscope.engine.calling import called
from batchscope.engine.training import for_any_loop, losses
from batchscope.errors import BatchscopeError, WorkloadError
from batchscope.nn import convert_ghost_batch_norm
from batchscope.optim import OPTIMIZERS, RULES, users_own
from batchscope.optim.table import is_users
from batchscope.probing.memory_bound import PeakMemory, bounded, is_out_of_memory
from batchscope.probing.requests import Attempt, DoesNotFit, Facts, Fails, Fits, Reply, Request, Timed, Visit
from batchscope.probing.throughput import clock, seconds_per_call
from batchscope.spec.workload import Stream, Workload
from batchscope.tensors import Pair, map_pair

# So small that the model stays as it was initialised: a batch that is trained on again and again would otherwise be
# fitted until its gradients underflow, and numbers near the smallest are slow on a CPU.
LEARNING_RATE = 1e-6

# The first update makes gradients and optimizer state, the second is the first that has all of them.
WARM_UPS = 2

# Examples of a Dataset or an iterable that a batch on the device is made of, repeated: fetching a whole large batch
# from a slow one only to have something to compute on would take minutes.
POOL = 256


@dataclass(frozen=True)
class ProbeSetup:
    """What is needed to begin, in any process.

    Attributes:
        workload: A name, ``file.py:function``, or a pickled workload.
        data_dir: Where data sets lie.
        device: ``cpu``, ``cuda:1``, ...
        threads: Of the CPU.
        optimizer: A name in ``OPTIMIZERS``, or a class of the user's as in a study.
        dtype: ``float32``, or ``bfloat16`` for autocast to it.
        most_bytes: That updates may take; None for no bound.
        rank: Whose stream of examples.
        values: Hyperparameters of a class of the user's, by their names in a study.
        clip_gradient_norm: Of every update; None for no clipping.
        average_weights: Of the moving average that every update moves; None for none.
        ghost_batch_size: Of every batch norm; None for batch norm as it is.
    """

    workload: str | bytes
    data_dir: Path | None
    device: str
    threads: int
    optimizer: str
    dtype: str
    most_bytes: int | None
    rank: int
    values: Mapping[str, float] = field(default_factory=dict)
    clip_gradient_norm: float | None = None
    average_weights: float | None = None
    ghost_batch_size: int | None = None

    def load(self) -> Workload:
        """The workload, made again."""
        if isinstance(self.workload, str):
            return workloads.load(self.workload, self.data_dir)
        found = pickle.loads(self.workload)  # noqa: S301 - bytes of the process that started this one
        assert isinstance(found, Workload)
        return found


class Trainer:
    """Model, optimizer and data of a workload on a device, and the ordinary eager loop over them."""

    def __init__(self, workload: Workload, setup: ProbeSetup, *, own_process: bool) -> None:
        """Build the model and read the data; the memory bound holds from here until ``close``.

        Errors:
            WorkloadError: If the model function gives no module, or the data no examples.
        """
        self._after = ExitStack()
        device = torch.device(setup.device)
        if device.type == "cuda":
            self._after.enter_context(torch.cuda.device(device))
            device = torch.device("cuda", torch.cuda.current_device())  # its memory is asked for by number
            peak = PeakMemory(device, own_process=own_process)
        self._device = device
        model = for_any_loop(_fresh(workload, own_process=own_process).train(), device, torch.float32)
        if setup.ghost_batch_size is not None:
            model, _ = convert_ghost_batch_norm(model, setup.ghost_batch_size)
        self._model, self._limit, self._most_bytes = model, setup.clip_gradient_norm, setup.most_bytes
        self._average: AveragedModel | None = None
        if setup.average_weights is not None:
            keep = get_ema_multi_avg_fn(setup.average_weights)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(model, multi_avg_fn=keep)
        self._workload = workload  # whole: data that were freed later would hide what updates add
        users = is_users(setup.optimizer)
        values = {**setup.values, "learning_rate": LEARNING_RATE}
        if users:
            self._optimizer: Any = users_own.made(setup.optimizer, model.parameters(), values)
        else:
            self._optimizer = cast(Any, OPTIMIZERS[setup.optimizer])(model.parameters(), lr=LEARNING_RATE)
        curved = not users and RULES[setup.optimizer].needs_hessian_diagonal
        self._backward: Callable[[Tensor], None] = self._optimizer.backward if curved else Tensor.backward
        self._precision: Callable[[], AbstractContextManager[Any]] = nullcontext
        if setup.dtype == "bfloat16":
            self._precision = partial(torch.autocast, device.type, torch.bfloat16)
        # Data stays in the memory of the host, as a user's loader has it.
        self._batches = Batches(workload, 0, setup.rank, torch.float32, torch.device("cpu"))
        self._position = 0
        self._fetch(1)
        self.facts = Facts(
            train_size=workload.train_size,
            parameters=sum(p.numel() for p in model.parameters()),
            gradient_bytes=sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad),
            cuda_name=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        )
        torch.ones(512, 512) @ torch.ones(512, 512)  # starts the threads, whose stacks are no updates' memory
        self._peak = peak if device.type == "cuda" else PeakMemory(device, own_process=own_process)
        self._after.enter_context(bounded(device, setup.most_bytes))

    def answer(self, request: Request) -> Reply:
        """Do what is asked; what goes wrong is a reply too, and by then its memory is free again.

        A loss for a whole batch is not a mean of those of its parts, so it is never taken by parts.

        Errors:
            WorkloadError: If the workload is wrong at any batch size.
        """
        if self._workload.loss_per == "batch" and request.micro_batch_size < request.share:
            return Fails("the loss gives one value for a batch, which cannot be computed by micro-batches")
        try:
            return self._attempt(request) if isinstance(request, Attempt) else self._visit(request)
        except BatchscopeError:
            raise
        except Exception as error:
            short = f"{type(error).__name__}: {str(error).strip().split(chr(10))[0][:300]}"
            if (place := workloads.place_of(error)) is not None:
                short += f" (at {place})"
            reply = DoesNotFit(short) if is_out_of_memory(error) else Fails(short)
        # Only here have the frames of the failed update, and their tensors, gone with the exception.
        self._optimizer.zero_grad()
        gc.collect()
        self._empty_cache()
        return reply

    def close(self) -> None:
        """Lift the bound and give the memory back."""
        self._optimizer.zero_grad()
        del self._model, self._average, self._optimizer, self._backward, self._batches, self._workload
        gc.collect()
        self._empty_cache()
        self._after.close()

    def update(self, parts: Iterator[tuple[Pair, float]]) -> None:
        """One update by micro batches, each given with its share of the examples.

        The gradient is that of the mean over all examples, whatever the sizes of the parts.
        """
        self._optimizer.zero_grad()
        for part, share in parts:
            loss = self._mean_loss(part)
            self._backward(loss if share == 1 else loss * share)
        if self._limit is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._limit)
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self._model)

    def _mean_loss(self, batch: Pair) -> Tensor:
        inputs, targets = batch
        with self._precision():
            return losses(self._workload, called(self._model, inputs), targets).mean()

    def _attempt(self, request: Attempt) -> Fits:
        self._empty_cache()
        self._peak.reset()
        resident, fetch_seconds = self._resident(request.micro_batch_size)

        def update() -> None:
            self.update(_repeated(resident, request.share, request.micro_batch_size))

        for _ in range(WARM_UPS):
            update()
        seconds = seconds_per_call(update, 1, self._device)
        peak = self._peak.read()
        if peak is not None and self._most_bytes is not None and peak > self._most_bytes:
            # The bound of a CPU is on allocations; what libraries touch for the first time comes on top of them.
            raise MemoryError(f"updates took {memory(peak)} of the {memory(self._most_bytes)} that they may take")
        passes = request.share / request.micro_batch_size
        return Fits(seconds, fetch_seconds * passes, peak)

    def _visit(self, request: Visit) -> Timed:
        started = clock(self._device)
        self._empty_cache()
        size, micro = request.share, request.micro_batch_size
        resident, _ = self._resident(micro)
        self.update(_repeated(resident, size, micro))
        step = seconds_per_call(lambda: self.update(_repeated(resident, size, micro)), request.updates, self._device)
        with_data = None
        if request.with_data:
            del resident
            with_data = seconds_per_call(lambda: self.update(self._fetched(size, micro)), request.updates, self._device)
        return Timed(step, with_data, clock(self._device) - started)

    def _resident(self, count: int) -> tuple[Pair, float]:
        """Examples on the device, and about what fetching so many takes."""
        in_memory = isinstance(self._workload.train, tuple | Stream)
        fetched = count if in_memory else min(count, POOL)
        started = time.perf_counter()
        examples = self._fetch(fetched)
        seconds = (time.perf_counter() - started) * count / fetched
        if fetched < count:
            where = torch.arange(count, device=self._device) % fetched
            examples = map_pair(lambda tensor: tensor.index_select(0, where), examples)
        return examples, seconds

    def _fetched(self, share: int, micro_batch_size: int) -> Iterator[tuple[Pair, float]]:
        for count in _parts(share, micro_batch_size):
            yield self._fetch(count), count / share

    def _fetch(self, count: int) -> Pair:
        """The next examples of the training data, copied to the device."""
        start, self._position = self._position, self._position + count
        return placed(self._batches.take(start, count), torch.float32, self._device)

    def _empty_cache(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _fresh(workload: Workload, *, own_process: bool) -> nn.Module:
    """A module of our own: in the caller's process a copy, for a model function may hand out the caller's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = workload.model()
    if not isinstance(module, nn.Module):
        raise WorkloadError(f"model() must return a torch.nn.Module, got {type(module).__name__}")
    return module if own_process else copy.deepcopy(module)


def _parts(share: int, micro_batch_size: int) -> Iterator[int]:
    for start in range(0, share, micro_batch_size):
        yield min(micro_batch_size, share - start)


def _repeated(resident: Pair, share: int, micro_batch_size: int) -> Iterator[tuple[Pair, float]]:
    """The parts of an update whose data is on the device already: one micro batch, again and again."""
    for count in _parts(share, micro_batch_size):
        part = resident if count == micro_batch_size else map_pair(itemgetter(slice(count)), resident)
        yield part, count / share
