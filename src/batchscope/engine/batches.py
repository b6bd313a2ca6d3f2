"""The order of training examples: one endless stream of permutations that all trials of a replicate share.

A batch is a stretch of the stream, so batches of any size follow each other without losing or repeating an example
inside an epoch, and a trial's place in its data is one number: the examples it has seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from batchscope.engine.reading import Place, Reader, seed_all
from batchscope.errors import WorkloadError
from batchscope.seeds import key, seeded, torch_generator
from batchscope.spec.examples import Examples, collated, together
from batchscope.spec.workload import Stream, Workload
from batchscope.tensors import Pair, leaves, map_pair

# The replicate whose stream nobody is trained on.
_NOBODY = -1


def placed(pair: Pair, dtype: torch.dtype, device: torch.device) -> Pair:
    """On the device, with floating-point tensors in the dtype of the training."""

    def place(tensor: Tensor) -> Tensor:
        return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)

    return map_pair(place, pair)


def train_sample(
    workload: Workload, count: int, dtype: torch.dtype, device: torch.device, reader: Reader | None = None
) -> Pair:
    """So many training examples, or all that there are, drawn at random: the same in every study of a workload."""
    most = count if workload.train_size is None else min(count, workload.train_size)
    return Batches(workload, 0, _NOBODY, dtype, device, reader).take(0, most)


class Batches:
    """Training batches by their place in the stream: ``take(start, count)`` is a pure function."""

    def __init__(
        self,
        workload: Workload,
        seed: int,
        replicate: int,
        dtype: torch.dtype,
        device: torch.device,
        reader: Reader | None = None,
        *,
        drawn_at_once: int | None = None,
    ) -> None:
        """Place the data once; the order depends on seed, replicate and epoch only.

        Args:
            workload: Whose training data.
            seed: The study's.
            replicate: Which stream.
            dtype: Of floating-point tensors.
            device: Where batches are wanted.
            reader: What reads a dataset, if streams are to share it.
            drawn_at_once: Examples that a stream draws at a time, so that batches of multiples of it that begin at
                one have the same examples; None for a batch.
        """
        self._drawn_at_once = drawn_at_once
        self._seed, self._replicate = seed, replicate
        self._dtype, self._device = dtype, device
        data = workload.train
        if isinstance(data, TensorDataset) and len(data.tensors) == 2:
            data = (data.tensors[0], data.tensors[1])
        self._data = placed(data, dtype, device) if isinstance(data, tuple) else data
        self._size, self._target = workload.train_size, workload.target
        self._orders: dict[int, Tensor] = {}
        self._reader = reader or (None if isinstance(data, tuple | Stream) else Reader.of(workload))
        self._iterator: Iterator[Any] | None = None
        self._read = 0

    def take(self, start: int, count: int) -> Pair:
        """Examples ``start`` to ``start + count`` of the stream, inputs and targets.

        Errors:
            WorkloadError: If the training data does not give pairs of inputs and targets.
        """
        data = self._data
        if isinstance(data, Stream):
            starts = range(start, start + count, self._drawn_at_once or count)
            parts = [self._drawn(data, one, min(starts.step, start + count - one)) for one in starts]
            drawn = parts[0] if len(parts) == 1 else _joined(parts)
        elif isinstance(data, tuple):
            where = self._positions(start, count)
            return map_pair(lambda tensor: tensor.index_select(0, where), data)
        elif self._reader is not None:
            drawn = self._reader.read(self._places, start, count)
        else:
            with seeded(0):
                examples = self._next(start, count)
                seed_all(self._batch_seed(start))
                drawn = collated(getattr(data, "collate", together), examples, self._target)
        return placed(drawn, self._dtype, self._device)

    def _drawn(self, stream: Stream, start: int, count: int) -> Pair:
        return stream.draw(torch_generator(self._seed, "stream", self._replicate, start), count)

    def _places(self, start: int, count: int) -> list[Place]:
        """Where a batch of a dataset is read."""
        batch_seed, indices = self._batch_seed(start), self._positions(start, count).tolist()
        return [Place(index, self._example_seed(start + i), batch_seed) for i, index in enumerate(indices)]

    def _example_seed(self, place: int) -> int:
        return key(self._seed, "example", self._replicate, place)

    def _batch_seed(self, start: int) -> int:
        return key(self._seed, "batch", self._replicate, start)

    def _positions(self, start: int, count: int) -> Tensor:
        size = self._size or 1
        parts, end = [], start + count
        while start < end:
            epoch, offset = divmod(start, size)
            part = self._order(epoch)[offset : offset + end - start]
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            while len(self._orders) > 1:
                del self._orders[min(self._orders)]
            seed = key(self._seed, "order", self._replicate, epoch)
            if isinstance(self._data, Examples):
                order = self._data.order(seed)
            else:
                order = torch.randperm(self._size or 1, generator=torch.Generator().manual_seed(seed))
            # Indices into tensors lie where these do.
            self._orders[epoch] = order.to(self._device if isinstance(self._data, tuple) else "cpu")
        return self._orders[epoch]

    def _next(self, start: int, count: int) -> list[Any]:
        """Read an iterable on from where it is; begin again, and skip, when asked for an earlier place."""
        if self._iterator is None or start < self._read:
            self._iterator, self._read = self._examples(), 0
        found = []
        for place in range(self._read, start + count):
            seed_all(self._example_seed(place))
            example = next(self._iterator)
            if place >= start:
                found.append(example)
        self._read = start + count
        return found

    def _examples(self) -> Iterator[Any]:
        assert callable(self._data)
        for epoch in itertools.count():
            examples = iter(self._data(key(self._seed, "order", self._replicate, epoch)))
            first = next(examples, None)
            if first is None:
                raise WorkloadError("train gave an iterable without examples; return at least one (input, target)")
            yield first
            yield from examples


def _joined(parts: list[Pair]) -> Pair:
    """Examples after examples."""
    each = [leaves(part) for part in parts]
    return map_pair(lambda first: torch.cat([next(tensors) for tensors in each]), parts[0])
