"""A batch sampler whose batch size follows a schedule, and which can stop and go on anywhere."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor
from torch.utils.data import Sampler

from batchscope.errors import ScheduleError
from batchscope.schedules.batch_schedule import BatchSchedule
from batchscope.schedules.micro_batches import Accumulation, accumulation
from batchscope.seeds import torch_generator

LastBatch = Literal["wrap", "keep", "drop"]
T = TypeVar("T")


class ScheduledBatchSampler(Sampler[list[int]]):
    """Drives any ``DataLoader`` (as its ``batch_sampler``) at the batch sizes of a `BatchSchedule`.

    Every epoch is one permutation of the data, drawn from (seed, epoch) alone. One pass over the loader is
    one
    epoch: the batches that begin in it. ``last_batch`` says what becomes of the examples at its end that do
        not
    fill a batch:

    * "wrap": they are filled up from the next epoch, which begins that much later. Nothing is lost or
      repeated, every batch is full, and the updates are exactly those of the schedule.
    * "keep": they are a short batch. Nothing is lost or repeated.
    * "drop": they are left out in this epoch.

    The training ends after the schedule's ``epochs``; in "wrap" what does not fill the very last batch is
    left out. Under several ranks all draw the same batch and each takes its own equal part.

    What counts as consumed: a loader with workers draws batches ahead, so that drawing says nothing about
    training. Loop over ``sampler.track(loader)`` instead of ``loader``; a batch then counts when it is
    handed to the loop, and a ``state_dict`` taken after its update is right for any number of workers.
    Where a framework owns the loop, say how many batches of this pass were trained on:
    ``state_dict(consumed=batch_index + 1)``.
    """

    def __init__(
        self,
        schedule: BatchSchedule,
        *,
        seed: int = 0,
        last_batch: LastBatch = "wrap",
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Begin at the first example.

        Raises:
            ScheduleError: If the ranks cannot share every batch equally, or an option is unknown.
        """
        if last_batch not in get_args(LastBatch):
            raise ScheduleError(f"last_batch must be one of {', '.join(get_args(LastBatch))}, got {last_batch!r}")
        if not 0 <= rank < world_size:
            raise ScheduleError(f"rank must be at least 0 and less than world_size={world_size}, got {rank}")
        for phase in schedule.phases:
            accumulation(phase.batch_size, phase.batch_size, world_size)
        if last_batch == "keep" and schedule.train_size % world_size:
            raise ScheduleError(
                f"the short batches of {schedule.train_size} examples cannot be shared equally by "
                f'{world_size} ranks: say last_batch="wrap" (nothing is lost) or "drop"'
            )
        self.schedule = schedule
        self._seed, self._last_batch, self._shuffle = seed, last_batch, shuffle
        self._rank, self._world_size = rank, world_size
        self._end = math.floor(schedule.epochs * schedule.train_size + 1e-9)
        self._orders: dict[int, Tensor] = {}
        self._track_next = self._pinned = False
        self._begin(0)

    def __len__(self) -> int:
        """Batches of the next pass."""
        return len(self._stops_from(self._next_start()))

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of one pass, this rank's examples of each.

        A pass that was tracked is followed by what comes after the batches handed out. One that was not is
        followed by the next epoch if it was drawn whole, else, or where `set_epoch` rules, by itself again.
        """
        self._begin(self._next_start())
        self._tracked, self._track_next = self._track_next, False
        stops = self._stops
        for i, stop in enumerate(stops):
            self._drawn = i + 1
            start = stops[i - 1] if i else self._start
            share = (stop - start) // self._world_size
            first = start + self._rank * share
            yield self._examples(first, first + share)

    def track(self, loader: Iterable[T]) -> Iterator[T]:
        """The batches of ``loader``, each counted as consumed when it is handed out."""
        self._track_next = True
        for batch in loader:
            self._consumed += 1
            yield batch

    @property
    def examples(self) -> int:
        """Examples consumed, over all ranks: the position in the schedule. The pass must be tracked."""
        return self._position(None)

    @property
    def epoch(self) -> int:
        """The epoch of the next pass."""
        return self._next_start() // self.schedule.train_size

    @property
    def batch_size(self) -> int:
        """Examples, over all ranks, of the batch in hand; before the first of a pass, of that one."""
        batch = max(self._consumed - 1, 0)
        return self._stops[batch] - self.examples_before(batch) if self._stops else 0

    @property
    def learning_rate(self) -> float:
        """The schedule's learning rate for the batch in hand; before the first of a pass, for that one."""
        return self.schedule.learning_rate_at(self.examples_before(max(self._consumed - 1, 0)))

    def examples_before(self, batch_index: int) -> int:
        """The position at which batch ``batch_index`` of this pass begins, for loops that are not tracked.

        Raises:
            ScheduleError: If this pass has no such batch.
        """
        if batch_index == 0:
            return self._start
        if not 0 < batch_index <= len(self._stops):
            raise ScheduleError(f"this pass has {len(self._stops)} batches, asked for number {batch_index}")
        return self._stops[batch_index - 1]

    def accumulation(self, max_micro_batch_size: int) -> Accumulation:
        """How a rank works through the batch in hand if one pass holds ``max_micro_batch_size`` examples."""
        return accumulation(self.batch_size, max_micro_batch_size, self._world_size)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, unless the next pass is in it already.

        Raises:
            ScheduleError: If the epoch is negative.
        """
        if epoch < 0:
            raise ScheduleError(f"an epoch is at least 0, got {epoch}")
        start = self._next_start()
        self._begin(start if start // self.schedule.train_size == epoch else self._first_start(epoch))
        self._pinned = True  # some frameworks draw batches only to see whether a loader works

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """The position, in plain values; good for any number of ranks and workers.

        Args:
            consumed: Batches of this pass that were trained on. Unless given, those that `track` handed out;
                without `track` that is not known, which is a `ScheduleError`.
        """
        return {"examples": self._position(consumed), **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that the state has seen.

        Raises:
            ScheduleError: If the state is of other data or another order.
        """
        for name, mine in self._identity().items():
            if state[name] != mine:
                raise ScheduleError(
                    f"the state was saved with {name}={state[name]!r}, this sampler has {mine!r}: "
                    "the order of the examples would not be the same"
                )
        self._begin(int(state["examples"]))
        self._pinned = False

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "last_batch": self._last_batch,
            "shuffle": self._shuffle,
            "train_size": self.schedule.train_size,
        }

    def _begin(self, start: int) -> None:
        """A pass that begins at an example, nothing of it drawn yet."""
        self._start = start
        self._stops = self._stops_from(start)
        self._drawn = self._consumed = 0
        self._tracked = False

    def _stops_from(self, start: int) -> array[int]:
        """Where the batches of the pass end."""
        size = self.schedule.train_size
        end = min((start // size + 1) * size, self._end)
        stops = array("q")
        while start < end:
            stop = start + self.schedule.batch_size_at(start)
            if stop > end:
                if self._last_batch == "drop" or (self._last_batch == "wrap" and stop > self._end):
                    break
                stop = stop if self._last_batch == "wrap" else end
            stops.append(stop)
            start = stop
        return stops

    def _position(self, consumed: int | None) -> int:
        if consumed is None:
            if self._drawn and not self._tracked:
                raise ScheduleError(
                    "batches were drawn, but how many were trained on is not known: loop over "
                    "sampler.track(loader), or say state_dict(consumed=batch_index + 1)"
                )
            consumed = self._consumed
        position = self.examples_before(consumed)
        if consumed == len(self._stops) and self._last_batch == "drop":
            size = self.schedule.train_size
            return min(-(-position // size) * size, self._end)
        return position

    def _next_start(self) -> int:
        if self._tracked:
            return self._position(self._consumed)
        over = self._drawn == len(self._stops) and not self._pinned
        return self._position(len(self._stops) if over else 0)

    def _first_start(self, epoch: int) -> int:
        example = epoch * self.schedule.train_size
        if self._last_batch == "wrap" and example < self.schedule.total_examples:
            phase = self.schedule.phase_at(example)
            return phase.example_start + -(-(example - phase.example_start) // phase.batch_size) * phase.batch_size
        return example

    def _examples(self, first: int, last: int) -> list[int]:
        size = self.schedule.train_size
        indices: list[int] = []
        while first < last:
            epoch, offset = divmod(first, size)
            stop = min(offset + last - first, size)
            indices += self._order(epoch)[offset:stop].tolist()
            first += stop - offset
        return indices

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            size = self.schedule.train_size
            generator = torch_generator(self._seed, "order", epoch)
            order = torch.randperm(size, generator=generator) if self._shuffle else torch.arange(size)
            # Two are enough: a wrapped batch reaches into the next epoch.
            self._orders = {key: kept for key, kept in self._orders.items() if key == epoch - 1} | {epoch: order}
        return self._orders[epoch]
