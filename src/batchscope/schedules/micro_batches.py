"""Batches that exceed what memory holds: micro batches whose gradients add up to that of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from batchscope.errors import ScheduleError


@dataclass(frozen=True)
class Accumulation:
    """How one rank takes its share of a batch: ``accumulation_steps`` parts, the last may be smaller."""

    batch_size: int
    world_size: int
    micro_batch_size: int
    accumulation_steps: int


def accumulation(batch_size: int, max_micro_batch_size: int, world_size: int = 1) -> Accumulation:
    """The fewest parts that fit in memory, and the smallest micro batch that gives so few.

    Args:
        batch_size: B, over all ranks.
        max_micro_batch_size: What one forward and backward pass of one rank can hold.
        world_size: Ranks, each of which has an equal share.

    Raises:
        ScheduleError: If a number is below 1, or the batch cannot be shared equally.
    """
    for name, value in (("max_micro_batch_size", max_micro_batch_size), ("world_size", world_size)):
        if value < 1:
            raise ScheduleError(f"{name} must be at least 1, got {value}")
    if batch_size < 1 or batch_size % world_size:
        raise ScheduleError(
            f"a batch of {batch_size} cannot be shared equally by {world_size} ranks: "
            f"compile with granularity={world_size} or a multiple of it"
        )
    share = batch_size // world_size
    steps = -(-share // max_micro_batch_size)
    return Accumulation(batch_size, world_size, -(-share // steps), steps)


def in_parts(batch: Any, micro_batch_size: int) -> Iterator[tuple[Any, float]]:
    """Cut a batch into micro batches, each with its share of the examples.

    The mean over the batch is the sum of share times the mean over the part, also where the last part is
    smaller.

    Args:
        batch: A tensor with the examples along its first dimension, or tuples, lists and dicts of such
            tensors.
        micro_batch_size: Examples of a part.

    Yields:
        The part, in the form of the batch, and its share.

    Raises:
        ScheduleError: If the tensors of the batch disagree about its size, or there is none.
    """
    if micro_batch_size < 1:
        raise ScheduleError(f"micro_batch_size must be at least 1, got {micro_batch_size}")
    sizes = set(_sizes(batch))
    if len(sizes) != 1 or 0 in sizes:
        raise ScheduleError(
            f"a batch needs tensors of one length along their first dimension, got {sorted(sizes)}: "
            "give a tensor, or a tuple, list or dict of tensors"
        )
    size = sizes.pop()
    for start in range(0, size, micro_batch_size):
        stop = min(start + micro_batch_size, size)
        yield _cut(batch, start, stop), (stop - start) / size


def accumulate_gradients(
    loss: Callable[[Any], Tensor],
    batch: Any,
    micro_batch_size: int,
    *,
    backward: Callable[[Tensor], None] = Tensor.backward,
    no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """Add the gradient of the mean loss over ``batch`` to the parameters, one micro batch at a time.

    Args:
        loss: Micro batch -> mean loss over it.
        batch: As in `in_parts`.
        micro_batch_size: Examples of a part.
        backward: What runs the backward pass, such as ``lambda loss: scaler.scale(loss).backward()``.
        no_sync: A context for all parts but the last, ``model.no_sync`` under DistributedDataParallel.

    Returns:
        The mean loss over the batch, without gradient.
    """
    parts = list(in_parts(batch, micro_batch_size))
    total: Tensor | None = None
    for i, (part, share) in enumerate(parts):
        with no_sync() if i + 1 < len(parts) else nullcontext():
            value = loss(part) * share
            backward(value)
        total = value.detach() if total is None else total + value.detach()
    assert total is not None
    return total


def _sizes(batch: Any) -> Iterator[int]:
    if isinstance(batch, Tensor):
        yield batch.shape[0] if batch.dim() else 0
    elif isinstance(batch, (tuple, list)):
        for item in batch:
            yield from _sizes(item)
    elif isinstance(batch, dict):
        yield from _sizes(list(batch.values()))


def _cut(batch: Any, start: int, stop: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[start:stop]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_cut(item, start, stop) for item in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_cut(item, start, stop) for item in batch)
    if isinstance(batch, dict):
        return {key: _cut(value, start, stop) for key, value in batch.items()}
    return batch
