"""Examples of a dataset, read where they stand in the stream: in this process, or ahead of time in others.

What is random in an example is drawn from a seed of its place in the stream, and what is random in putting a batch
together from a seed of the batch's place: who reads, when, and after what changes no bit.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from batchscope.seeds import seed_python, seeded
from batchscope.spec.examples import Examples, collated, failed, split
from batchscope.spec.workload import Workload
from batchscope.tensors import Pair

# Batches that each process has ready.
READY = 2


class Place(NamedTuple):
    """An example of a batch: its index in the dataset, the seed of what is random in it, and that of its batch."""

    example: int
    seed: int
    batch_seed: int


Places = Callable[[int, int], list[Place]]
"""From a start and a count to a batch of a stream."""


def seed_all(seed: int) -> None:
    """Seed the global generators of the CPU; quicker than ``torch.manual_seed``, which sees to every device."""
    torch.default_generator.manual_seed(seed)
    seed_python(seed)


class Reader:
    """Reads batches of one dataset, of whatever stream."""

    def __init__(self, examples: Examples, target: str | None) -> None:
        """Nothing is read, and no process started, yet."""
        self._examples, self._target = examples, target
        # Elsewhere a user's dataset cannot be sent to other processes.
        workers = min(examples.workers, torch.get_num_threads()) if sys.platform == "linux" else 0
        self._ahead = _Ahead(examples, workers) if workers else None

    @classmethod
    def of(cls, workload: Workload) -> Reader | None:
        """Of the training data of a workload; None where that is no map-style dataset."""
        data = workload.train
        if isinstance(data, Examples):
            return cls(data, workload.target)
        plain = not isinstance(data, tuple) and hasattr(data, "__getitem__") and hasattr(data, "__len__")
        return cls(Examples(data), workload.target) if plain else None

    def read(self, places: Places, start: int, count: int) -> Pair:
        """A batch of a stream.

        Errors:
            WorkloadError: If its examples cannot be put together.
        """
        if self._ahead is None:
            items = _Items(self._examples.dataset)
            with seeded(0):
                drawn = [items[place] for place in places(start, count)]
                seed_all(drawn[0][0].batch_seed)
                return collated(self._examples.collate, [item for _, item in drawn], self._target)
        batch = self._ahead.read(places, start, count)
        if isinstance(batch, _Failed):
            raise batch.error
        return split(batch, self._target)


class _Items(Dataset[Any]):
    """A dataset by place."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, place: Place) -> tuple[Place, Any]:
        seed_all(place.seed)
        return place, self._dataset[place.example]


class _Failed(NamedTuple):
    error: Exception


class _Ahead:
    """Processes that read the batches that will be asked for next, if it goes on as it went."""

    def __init__(self, examples: Examples, workers: int) -> None:
        """They start with the first batch, and stay."""
        self._upcoming = _Upcoming()
        self._loader = DataLoader(
            _Items(examples.dataset),
            batch_sampler=self._upcoming,
            num_workers=workers,
            collate_fn=_Together(examples),
            worker_init_fn=examples.worker_init,
            multiprocessing_context="fork",
            persistent_workers=True,
            prefetch_factor=READY,
            generator=torch.Generator(),  # else one number of the global one is drawn
        )
        self._batches: Iterator[Any] | None = None
        self._expected: tuple[Places, int, int] | None = None

    def read(self, places: Places, start: int, count: int) -> Any:
        """A batch: one that is ready, or the first of a new beginning."""
        if self._expected != (places, start, count):
            process = multiprocessing.current_process()
            if process.daemon:
                process.daemon = False  # which may have no children; ours end when they find their parent gone
            self._upcoming.stream = places, start, count
            self._batches = iter(self._loader)
        assert self._batches is not None
        self._expected = places, start + count, count
        return pickle.loads(next(self._batches))  # noqa: S301 - of a process that this one has started


class _Upcoming(Sampler[list[Place]]):
    """One batch of a stream after the other, without an end."""

    def __init__(self) -> None:
        self.stream: tuple[Places, int, int] | None = None

    def __iter__(self) -> Iterator[list[Place]]:
        assert self.stream is not None
        places, start, count = self.stream
        while True:
            yield places(start, count)
            start += count


class _Together:
    """Puts a batch together as the workload says."""

    def __init__(self, examples: Examples) -> None:
        self._collate = examples.collate

    def __call__(self, drawn: list[tuple[Place, Any]]) -> bytes:
        seed_all(drawn[0][0].batch_seed)
        try:
            batch = self._collate([item for _, item in drawn])
        except (TypeError, ValueError, RuntimeError) as error:
            batch = _Failed(failed(self._collate, error))
        # By value: shared memory would need descriptors, and room, that may not be there, and leave files behind.
        return pickle.dumps(batch)
