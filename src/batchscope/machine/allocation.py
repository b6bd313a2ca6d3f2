"""Tensors that no memory holds are refused before they are allocated: where memory is overcommitted, the kernel gives
it away first and ends the process later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from batchscope.amounts import memory as shown
from batchscope.machine.memory import available_bytes

# Of what is free, the most that one tensor, and all that are made, may take: a training needs gradients beside it.
ONE, ALL = 1 / 3, 1.0


class Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, new tensors on the CPU are counted, and one that cannot be had raises ``MemoryError`` where it is made.

    Args:
        limit: Bytes that are free; what this machine has by default. None is no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limit = available_bytes() if limit is None else limit
        self._made = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: Mapping[str, Any] | None = None
    ) -> Any:
        """Count what a factory function is asked for, before it is called."""
        options = options or {}
        if self._limit is not None and (size := _asked(arguments, options)):
            self._made += size
            if size > ONE * self._limit or self._made > ALL * self._limit:
                made = "" if size == self._made else f", {shown(self._made)} with those before it,"
                raise MemoryError(f"a tensor of {shown(size)}{made} where {shown(self._limit)} are free")
        return function(*arguments, **options)


def _asked(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> int:
    """Bytes of the tensor that a factory function is asked for; 0 for any other function."""
    if "dtype" not in options and "device" not in options or options.get("device", torch.device("cpu")).type != "cpu":
        return 0
    sizes = next((a for a in arguments if isinstance(a, list | tuple) and all(type(n) is int for n in a)), None)
    if sizes is None or any(isinstance(a, torch.Tensor) for a in arguments):
        return 0
    return math.prod(sizes) * torch.empty(0, dtype=options.get("dtype") or torch.get_default_dtype()).element_size()
