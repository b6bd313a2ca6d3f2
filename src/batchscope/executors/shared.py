"""The data set once for all workers: an anonymous file in memory that every worker maps.

The file has no name. The kernel keeps it as long as a process holds it, so whatever is killed, nothing is left in
``/dev/shm`` or in a temporary folder, and it does not count against the size of ``/dev/shm``, which containers keep
small. Where the system has no such files, it is a temporary file on disk without a name, mapped likewise. A worker gets
its descriptor when it starts, so one that replaces a dead one gets the same. Pages are mapped copy-on-write: a model
that writes into its inputs changes its own worker's data only, as it would without sharing.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from dataclasses import dataclass, replace
from multiprocessing import reduction
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from batchscope.engine.batches import placed
from batchscope.engine.training import in_random_order
from batchscope.spec.examples import as_tensors
from batchscope.spec.workload import Workload
from batchscope.tensors import Pair, leaves, map_pair

# Tensors begin at multiples of a cache line, as torch's own do.
ALIGNMENT = 64
NAME = "batchscope-data"


@dataclass(frozen=True)
class Outline:
    """The shapes of what is shared, as tensors without storage; None for what is not shared."""

    train: Pair | None
    validation: Pair | None
    test: Pair | None

    @property
    def pairs(self) -> tuple[Pair | None, ...]:
        """In the order in which they lie."""
        return self.train, self.validation, self.test

    def sizes(self) -> list[int]:
        """Bytes of every tensor, in order, with the gap to the next."""
        return [_aligned(tensor) for pair in self.pairs if pair for tensor in leaves(pair)]


class SharedData:
    """Training, validation and test examples in the dtype of the training, in memory that processes share.

    The memory is given back once no process holds or maps it; ``close`` lets this one's hold go.
    """

    def __init__(self, descriptor: int, outline: Outline) -> None:
        """Use ``of``."""
        self._descriptor, self._outline = descriptor, outline
        self.close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def of(cls, workload: Workload, dtype: torch.dtype, seed: int) -> SharedData | None:
        """Place what can be shared: pairs of tensors, and held-out examples of any form, which are read here, once.

        None where a workload has neither, or its tensors are no plain ones.

        Args:
            workload: Whose examples.
            dtype: Of floating-point tensors.
            seed: Of the study: the order of the validation examples depends on it.
        """
        if os.name != "posix":
            return None
        train, validation = _shareable(workload.train), _shareable(as_tensors(workload.validation, workload.target))
        test = _shareable(as_tensors(workload.test, workload.target)) if workload.test is not None else None
        pairs = train, validation and in_random_order(validation, seed), test
        if not any(pairs):
            return None
        outlines = [pair and map_pair(lambda tensor: _outline(tensor, dtype), pair) for pair in pairs]
        outline = Outline(*outlines)
        shared = cls(_anonymous(), outline)
        os.ftruncate(shared._descriptor, shared.bytes)
        with mmap.mmap(shared._descriptor, 0) as memory:
            offset = 0
            for tensor in (tensor for pair in pairs if pair for tensor in leaves(pair)):
                (value,) = leaves(placed((tensor, ()), dtype, torch.device("cpu")))
                memory[offset : offset + value.nbytes] = value.reshape(-1).view(torch.uint8).numpy().data
                offset += _aligned(value)
        return shared

    def __reduce__(self) -> tuple[Any, ...]:
        """For a process that is being started: its own descriptor of the same file."""
        return _received, (reduction.DupFd(self._descriptor), self._outline)

    def skeleton(self, workload: Workload) -> Workload | None:
        """The workload without examples, for processes that map them; None if there are others, or it cannot be sent.

        Args:
            workload: What this data is of; not a user's file's, whose functions another process cannot find.
        """
        if self._outline.train is None or self._outline.validation is None:
            return None
        nothing: Any = []
        if workload.test is not None and self._outline.test is None:
            return None
        bare = replace(workload, train=nothing, validation=nothing, test=None)
        try:
            reduction.ForkingPickler.dumps(bare)
        except Exception:  # what it raises is up to the object
            return None
        return bare

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(self._outline.sizes())

    @property
    def ordered(self) -> bool:
        """Whether it has the validation examples, which are then in the order in which they are evaluated."""
        return self._outline.validation is not None

    def into(self, workload: Workload) -> Workload:
        """The workload on this data, without the examples that it came with."""
        memory = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_COPY)
        offset = 0

        def mapped(tensor: Tensor) -> Tensor:
            nonlocal offset
            flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
            offset += _aligned(tensor)
            return flat.reshape(tensor.shape)

        pairs = [pair and map_pair(mapped, pair) for pair in self._outline.pairs]
        train, validation, test = pairs[0] or workload.train, pairs[1] or workload.validation, pairs[2] or workload.test
        return replace(workload, train=train, validation=validation, test=test)


def _received(descriptor: Any, outline: Outline) -> SharedData:
    return SharedData(descriptor.detach(), outline)


def _anonymous() -> int:
    """The descriptor of a file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(NAME)
    with tempfile.TemporaryFile(prefix=NAME) as file:
        return os.dup(file.fileno())


def _shareable(data: Any) -> Pair | None:
    """Data as a pair of tensors that lie in memory as their shapes say; None if it is something else."""
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        data = (data.tensors[0], data.tensors[1])
    if not isinstance(data, tuple):
        return None
    plain = (
        t.layout == torch.strided and t.is_contiguous() and t.numel() and not t.requires_grad for t in leaves(data)
    )
    return (data[0], data[1]) if all(plain) else None


def _outline(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(tensor.shape, dtype=dtype if tensor.is_floating_point() else tensor.dtype, device="meta")


def _aligned(tensor: Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
