"""Probe a workload on a device: what fits, and how long an update takes at each batch size."""

from __future__ import annotations

import math
import platform
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

import batchscope
from batchscope.amounts import number
from batchscope.engine.training import OPTIONAL, corner_of
from batchscope.errors import ProbeError, StudyError
from batchscope.machine.cores import processor_name
from batchscope.machine.devices import resolve_device
from batchscope.machine.memory import available_bytes
from batchscope.probing.memory_bound import AVAILABLE_SHARE
from batchscope.probing.process import Bench, open_bench
from batchscope.probing.ranks import Ranks
from batchscope.probing.requests import Attempt, DoesNotFit, Facts, Fails, Fits, Reply, Request, Timed
from batchscope.probing.throughput import saturation
from batchscope.probing.time_model import fit_time_model
from batchscope.probing.timings import BatchSizeTimings
from batchscope.probing.updates import ProbeSetup
from batchscope.schedules.micro_batches import accumulation
from batchscope.spec.algorithm import optimizer_name
from batchscope.spec.probe import Probe, TimeModel
from batchscope.spec.study import LARGEST_BATCH_SIZE, Study
from batchscope.spec.workload import Workload

DTYPES = ("float32", "bfloat16")
LARGEST_DEFAULT = 8192

# A default list of batch sizes ends where one update takes so many seconds: the next would take twice as long.
LONGEST_UPDATE = 2.0

Answer = TypeVar("Answer", Fits, Timed)


@dataclass(frozen=True)
class Probing:
    """How far a probe is: which batch size is being tried or timed, and the share of all that is done."""

    doing: str
    batch_size: int
    share: float


def probe(
    workload: str | Workload | Study,
    *,
    batch_sizes: Iterable[int] | None = None,
    device: str = "auto",
    seconds: float = 2.0,
    optimizer: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    max_micro_batch: int | None = None,
    max_memory: int | None = None,
    data_dir: str | Path | None = None,
    on_progress: Callable[[Probing], None] = lambda progress: None,
) -> Probe:
    """Measure a workload's updates on a device at each batch size.

    Everything runs in a process of its own, which takes what went wrong with it; model, data and random states of
    this one stay as they are. A workload that cannot be pickled is measured in this process, on a copy of its
    model; then memory that runs out is caught by its exception alone, and peak memory of a CPU is not told.

    Where ``torch.distributed`` is initialised, every rank calls this with the same arguments: each measures its share
    of every batch at the same time as the others, and all return what the slowest and the fullest found.

    Args:
        workload: A name, ``path/to/file.py:function``, a workload, or a study: then its batch sizes, optimizer and
            dtype are the defaults, and updates clip gradients, average weights and compute ghost batch norm as its
            trials do.
        batch_sizes: Examples in one update; None for powers of two up to 8,192 or the training data, which end
            early where an update takes longer than two seconds.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        seconds: For timing each batch size, half of it with data loading. At least five blocks are timed, unless that
            would take four times as long.
        optimizer: Whose update, as in a study; None for Nesterov momentum. Of a study that searches several, one of
            these; None for the first.
        dtype: ``float32``, the default, or ``bfloat16`` for autocast to it with parameters in float32.
        threads: Of the CPU; None for as many as this process uses.
        max_micro_batch: The largest micro-batch to try on a rank.
        max_memory: Bytes that updates may take: on a CPU beyond model and data, on CUDA in all. None for nine
            tenths of what a CPU has left, and for all that CUDA has.
        data_dir: Where data sets lie.
        on_progress: Called before each attempt and each timing.

    Returns:
        The measurements, with a law fitted to them.

    Errors:
        StudyError: If an argument is out of its range, or there is no such device.
        WorkloadError: If the workload cannot be built.
        ProbeError: If nothing could be measured at any batch size.
    """
    ranks = Ranks()
    sizes = None if batch_sizes is None else _checked(batch_sizes)
    most = {"threads": threads, "max_micro_batch": max_micro_batch, "max_memory": max_memory}
    study, own = None, {}
    if isinstance(workload, Study):
        study = _of_optimizer(workload, optimizer)
        own = _as_in(study)
        workload, optimizer, dtype = study.workload, study.algorithm.optimizer, dtype or study.engine.dtype
        sizes = sizes or list(study.batch_sizes)
    optimizer, dtype = optimizer or "nesterov", dtype or "float32"
    _check(seconds, dtype, optimizer, most)
    setup = ProbeSetup(
        workload="",
        data_dir=None if data_dir is None else Path(data_dir),
        device=ranks.device(_device(device)),
        threads=threads or torch.get_num_threads(),
        optimizer=optimizer,
        dtype=dtype,
        most_bytes=max_memory or _bound(_device(device), ranks),
        rank=ranks.rank,
        **own,
    )
    with closing(_Probing(workload, setup, ranks, on_progress)) as probing:
        probing.settle(sizes, max_micro_batch)
        probing.time(seconds)
        return probing.result(workload if isinstance(workload, str) else workload.name or "unnamed")


class _Probing:
    """One probe on one rank; every decision follows from what all ranks have found, so that all take the same."""

    def __init__(
        self, workload: str | Workload, setup: ProbeSetup, ranks: Ranks, on_progress: Callable[[Probing], None]
    ) -> None:
        self._setup, self._ranks, self._tell = setup, ranks, on_progress
        self._bench: Bench | None = None
        self._timings: list[BatchSizeTimings] = []
        self._too_large: int | None = None
        try:
            self._facts: list[Facts] = ranks.gather(lambda: self._open(workload))
        except BaseException:  # another rank may have failed, and this one's process is there
            self.close()
            raise

    def _open(self, workload: str | Workload) -> Facts:
        self._bench = open_bench(workload, self._setup)
        return self._bench.facts

    def close(self) -> None:
        if self._bench is not None:
            self._bench.close()

    def settle(self, batch_sizes: list[int] | None, max_micro_batch: int | None) -> None:
        """Find the largest micro-batch that runs at each batch size."""
        world = self._ranks.size
        chosen = batch_sizes if batch_sizes is not None else self._default_sizes()
        uneven = [size for size in chosen if size % world]
        if uneven:
            raise StudyError(f"batch sizes must be multiples of the {world} ranks, got {uneven[0]}")
        for done, size in enumerate(chosen):
            self._tell(Probing("trying", size, 0.3 * done / len(chosen)))
            timing = BatchSizeTimings(size, size // world)
            self._timings.append(timing)
            self._halve(timing, min(timing.share, max_micro_batch or timing.share))
            if batch_sizes is None and timing.seconds > LONGEST_UPDATE:
                break

    def time(self, seconds: float) -> None:
        """Time blocks of all batch sizes, in an order that is drawn anew in each round: whatever else the machine
        does by and by then falls on all of them.
        """
        order = random.Random(0)
        while pending := [timing for timing in self._timings if timing.wants_more(seconds)]:
            for timing in order.sample(pending, len(pending)):
                done = sum(min(each.spent / seconds, 1.0) for each in self._timings) / len(self._timings)
                self._tell(Probing("timing", timing.batch_size, 0.3 + 0.7 * done))
                found, failed = self._ask(timing.next_visit(seconds), Timed)
                if failed is None:
                    timing.record(found)
                else:  # what was tried and ran does so no more; begin again with less
                    assert timing.micro_batch_size is not None
                    timing.forget()
                    if isinstance(failed, DoesNotFit):
                        self._halve(timing, timing.micro_batch_size // 2, failed.reason)
                    else:
                        timing.fail(failed.reason)

    def result(self, name: str) -> Probe:
        """All of it."""
        facts = self._facts[self._ranks.rank]
        batches = tuple(timing.result() for timing in self._timings)
        medians = {one.batch_size: one.step.median for one in batches if one.step is not None}
        if not medians:
            raise ProbeError(f"no update of {name} could be measured: {batches[0].reason}")
        model = None
        if len(medians) > 1:
            fit = fit_time_model(list(medians), list(medians.values()))
            model = TimeModel(
                fixed=fit.fixed,
                per_example=fit.per_example,
                sharpness=fit.sharpness,
                error=fit.error,
                smallest=min(medians),
                largest=max(medians),
            )
        return Probe(
            workload=name,
            optimizer=self._setup.optimizer,
            device=self._setup.device,
            device_name=facts.cuda_name or processor_name(),
            threads=self._setup.threads,
            world_size=self._ranks.size,
            dtype=self._setup.dtype,
            clip_gradient_norm=self._setup.clip_gradient_norm,
            average_weights=self._setup.average_weights,
            parameters=facts.parameters,
            gradient_bytes=facts.gradient_bytes,
            batches=batches,
            time_model=model,
            saturation_batch_size=saturation(medians),
            versions={
                "python": platform.python_version(),
                "torch": torch.__version__,
                "batchscope": batchscope.__version__,
            },
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _halve(self, timing: BatchSizeTimings, limit: int, reason: str = "") -> None:
        """Try micro-batches of at most ``limit`` examples, each half of the last, until one runs on all ranks."""
        while limit >= 1:
            micro = accumulation(timing.share, limit).micro_batch_size
            limit = micro // 2
            if self._too_large is not None and micro >= self._too_large:
                continue  # it needed more memory than there is, at a smaller batch size
            found, failed = self._ask(Attempt(timing.share, micro), Fits)
            if failed is None:
                timing.settle(micro, found)
                return
            if isinstance(failed, Fails):
                timing.fail(failed.reason)
                return
            self._too_large, reason = micro, failed.reason
        timing.fail(f"not even one example at a time fits into memory: {reason or 'nor at a smaller batch size'}")

    def _ask(self, request: Request, kind: type[Answer]) -> tuple[list[Answer], DoesNotFit | Fails | None]:
        """What all ranks answer, or the first failure among them."""

        def ask() -> Reply:
            assert self._bench is not None
            return self._bench.ask(request)

        replies = self._ranks.gather(ask)
        failed = next((reply for reply in replies if isinstance(reply, DoesNotFit | Fails)), None)
        return [reply for reply in replies if isinstance(reply, kind)], failed

    def _default_sizes(self) -> list[int]:
        most = min(facts.train_size or LARGEST_DEFAULT for facts in self._facts)
        sizes: list[int] = []
        size = self._ranks.size
        while not sizes or size <= min(most, LARGEST_DEFAULT):
            sizes.append(size)
            size *= 2
        return sizes


def _of_optimizer(study: Study, optimizer: str | None) -> Study:
    """The study of one optimizer of those that it searches, or of its only one.

    Raises:
        StudyError: If it is none of them.
    """
    trained = {one.algorithm.optimizer: one for one in study.by_optimizer.values()}
    if optimizer is not None and optimizer not in trained:
        raise StudyError(f"the study trains with {' and '.join(trained)}, got --optimizer {optimizer}; leave it out")
    return trained[optimizer] if optimizer else next(iter(trained.values()))


def _as_in(study: Study) -> dict[str, Any]:
    """What an update has as in the trials of a study; of what is searched, as in one corner of the space."""
    corner, algorithm = corner_of(study), study.algorithm
    extras = {name: corner.get(name, getattr(algorithm, name)) for name in OPTIONAL}
    values = algorithm.hyperparameters(corner) if algorithm.users_optimizer else {}
    return {"values": values, "ghost_batch_size": algorithm.ghost_batch_size, **extras}


def _checked(batch_sizes: Iterable[int]) -> list[int]:
    sizes = sorted(set(batch_sizes))
    wrong = [size for size in sizes if not isinstance(size, int) or not 1 <= size <= LARGEST_BATCH_SIZE]
    if wrong or not sizes:
        got = f"got {wrong[0]}" if wrong else "got none"
        raise StudyError(
            f"batch sizes must be whole numbers from 1 to {number(LARGEST_BATCH_SIZE)}, {got}; write 1,8,64"
        )
    return sizes


def _check(seconds: float, dtype: str, optimizer: str, most: Mapping[str, int | None]) -> None:
    for name, value in most.items():
        if value is not None and value < 1:
            raise StudyError(f"{name} must be at least 1, got {value}")
    if not 0 < seconds < math.inf:
        raise StudyError(f"seconds must be above 0, got {seconds}")
    if dtype not in DTYPES:
        raise StudyError(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}")
    try:
        optimizer_name(optimizer)
    except ValueError as error:
        raise StudyError(str(error)) from None


def _device(name: str) -> str:
    found = resolve_device(name)
    device, count = torch.device(found), torch.cuda.device_count()
    if device.type not in ("cpu", "cuda"):
        raise StudyError(f"a probe measures on cpu or cuda, got {name!r}; write --device cpu")
    if device.type == "cuda" and device.index is not None and device.index >= count:
        raise StudyError(f"there are {count} CUDA devices, counted from cuda:0, got {name!r}")
    return found


def _bound(device: str, ranks: Ranks) -> int | None:
    """What updates may take where nobody says; CUDA knows its own limit."""
    available = available_bytes() if torch.device(device).type == "cpu" else None
    return None if available is None else max(int(AVAILABLE_SHARE * available / ranks.on_this_machine), 1)
