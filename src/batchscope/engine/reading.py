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

from batchscope.errors import WorkloadError
from batchscope.seeds import seed_python, seeded
from batchscope.spec.examples import Examples, failed, split, together
from batchscope.spec.workload import Workload
from batchscope.tensors import Pair
from batchscope.workloads import in_words

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

    def __init__(self, examples: Examples, target: str | None, name: str) -> None:
        """Nothing is read, and no process started, yet; ``name`` is the workload's, for errors."""
        self._target = target
        self._items, self._join = _Items(examples.dataset, name), _Join(examples, name)
        # Elsewhere a user's dataset cannot be sent to other processes.
        workers = min(examples.workers, torch.get_num_threads()) if sys.platform == "linux" else 0
        self._ahead = _Ahead(self._items, self._join, examples.worker_init, workers) if workers else None

    @classmethod
    def of(cls, workload: Workload) -> Reader | None:
        """Of the training data of a workload; None where that is no map-style dataset."""
        data = workload.train
        if isinstance(data, Examples):
            return cls(data, workload.target, workload.name)
        plain = not isinstance(data, tuple) and hasattr(data, "__getitem__") and hasattr(data, "__len__")
        return cls(Examples(data), workload.target, workload.name) if plain else None

    def read(self, places: Places, start: int, count: int) -> Pair:
        """A batch of a stream.

        Errors:
            WorkloadError: If the dataset has not got an example, or they cannot be put together.
        """
        if self._ahead is not None:
            batch = self._ahead.read(places, start, count)
        else:
            with seeded(0):
                batch = self._join.batch([self._items[place] for place in places(start, count)])
        if isinstance(batch, _Failed):
            raise batch.error
        return split(batch, self._target)


class _Failed(NamedTuple):
    """In place of what could not be read: a process that reads ahead cannot raise what keeps its words."""

    error: WorkloadError


class _Items(Dataset[Any]):
    """A dataset by place."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name

    def __getitem__(self, place: Place) -> tuple[Place, Any]:
        seed_all(place.seed)
        try:
            return place, self._dataset[place.example]
        except Exception as error:  # the user's
            what = f"{self._name} fails: example {place.example} of train: {type(error).__name__}: {error}"
            return place, _Failed(in_words(error, self._name) or WorkloadError(what))


class _Ahead:
    """Processes that read the batches that will be asked for next, if it goes on as it went."""

    def __init__(self, items: _Items, join: _Join, worker_init: Callable[[int], None] | None, workers: int) -> None:
        """They start with the first batch, and stay."""
        self._upcoming = _Upcoming()
        self._loader = DataLoader(
            items,
            batch_sampler=self._upcoming,
            num_workers=workers,
            collate_fn=join,
            worker_init_fn=worker_init,
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


class _Join:
    """Puts a batch together as the workload says."""

    def __init__(self, examples: Examples, name: str) -> None:
        self._collate, self._name = examples.collate, name

    def batch(self, drawn: list[tuple[Place, Any]]) -> Any:
        """The batch, or why there is none."""
        if lacking := next((item for _, item in drawn if isinstance(item, _Failed)), None):
            return lacking
        seed_all(drawn[0][0].batch_seed)
        try:
            return self._collate([item for _, item in drawn])
        except Exception as error:  # the user's, or of the examples that they give
            theirs = None if self._collate is together else in_words(error, self._name)
            return _Failed(theirs or failed(self._collate, error))

    def __call__(self, drawn: list[tuple[Place, Any]]) -> bytes:
        """The batch by value: shared memory would need descriptors, and room, that may not be there, and leave files
        behind.
        """
        return pickle.dumps(self.batch(drawn))
