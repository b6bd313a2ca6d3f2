"""The stream of training examples: every epoch a permutation, any batch size, any kind of data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from batchscope.engine.batches import Batches
from batchscope.errors import WorkloadError
from batchscope.spec.workload import Stream, TrainingData, Workload
from batchscope.workloads.noisy_quadratic import noisy_quadratic
from engine.workbench import Plain

N = 20
INPUTS = torch.arange(N, dtype=torch.float32)[:, None].expand(N, 6).contiguous()
TARGETS = torch.arange(N) % 3


class Items(Dataset[tuple[Tensor, Tensor]]):
    """A map-style data set."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return INPUTS[index], TARGETS[index]


def read(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An iterable factory: its own order for every seed."""
    for index in torch.randperm(N, generator=torch.Generator().manual_seed(seed % 2**31)).tolist():
        yield INPUTS[index], TARGETS[index]


def batches(data: TrainingData, seed: int = 0, replicate: int = 0) -> Batches:
    workload = Workload(Plain, partial(F.cross_entropy, reduction="none"), data, (INPUTS, TARGETS))
    return Batches(workload, seed, replicate, torch.float64, torch.device("cpu"))


def ids(found: Batches, start: int, count: int) -> list[int]:
    inputs, targets = found.take(start, count)
    assert isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    assert inputs.dtype == torch.float64 and targets.dtype == torch.int64
    chosen = inputs[:, 0].long()
    assert torch.equal(targets, chosen % 3)
    return chosen.tolist()


KINDS: dict[str, TrainingData] = {
    "tensors": (INPUTS, TARGETS),
    "TensorDataset": TensorDataset(INPUTS, TARGETS),
    "Dataset": Items(),
    "iterable": read,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_epoch_is_a_permutation_of_its_own(kind: str) -> None:
    found = batches(KINDS[kind])
    epochs = [ids(found, epoch * N, N) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_stretch_of_the_stream_wherever_one_begins(kind: str) -> None:
    whole = ids(batches(KINDS[kind]), 0, 3 * N)
    found = batches(KINDS[kind])
    for start, count in ((0, 7), (7, 7), (14, 7), (21, 33), (3, 2), (0, 60), (39, 21)):
        assert ids(found, start, count) == whole[start : start + count]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_any_sequence_of_batch_sizes_sees_the_same_examples(sizes: list[int]) -> None:
    found, seen = batches((INPUTS, TARGETS)), list[int]()
    for size in sizes:
        seen += ids(found, len(seen), size)
    assert seen == ids(batches((INPUTS, TARGETS)), 0, len(seen))


def test_seed_and_replicate_change_the_order() -> None:
    orders = [ids(batches((INPUTS, TARGETS), *where), 0, N) for where in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(order) for order in orders}) == 3


def test_a_stream_is_keyed_by_its_place() -> None:
    def draw(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        return torch.randn(count, 6, generator=generator), torch.zeros(count, dtype=torch.int64)

    found = batches(Stream(draw, epoch_examples=10))
    first, again, other = (found.take(start, 4)[0] for start in (8, 8, 12))
    assert isinstance(first, Tensor) and isinstance(again, Tensor) and isinstance(other, Tensor)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_iterable_without_examples_is_refused() -> None:
    with pytest.raises(WorkloadError, match="without examples"):
        batches(lambda seed: iter(())).take(0, 1)


def test_a_stream_that_draws_some_at_a_time_gives_larger_batches_the_same_examples() -> None:
    data = noisy_quadratic(3)
    some = Batches(data, 0, 0, torch.float64, torch.device("cpu"), drawn_at_once=4)
    whole = Batches(data, 0, 0, torch.float64, torch.device("cpu"))

    def inputs(batches: Batches, start: int, count: int) -> Tensor:
        found = batches.take(start, count)[0]
        assert isinstance(found, Tensor)
        return found

    small = torch.cat([inputs(some, start, 4) for start in range(0, 16, 4)])
    assert torch.equal(inputs(some, 0, 16), small)
    assert torch.equal(inputs(some, 8, 6), torch.cat([small[8:12], inputs(some, 12, 2)]))
    assert torch.equal(inputs(some, 4, 4), inputs(whole, 4, 4))  # of the batch itself nothing changes
    assert not torch.equal(inputs(some, 0, 8), inputs(whole, 0, 8))
