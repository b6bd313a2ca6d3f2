"""What a layer-wise rule may measure on whole layers: purely on one tensor, or fast on many.

The second form holds a part of a large layer in temporary memory, never the whole, and agrees with the
first to rounding (medians: exactly).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchscope.optim.blocks import Layers, cut, joined
from batchscope.optim.program import Expression, Program
from batchscope.optim.rule import accumulation_dtype

Values = NDArray[np.floating]

_PART = 2**18  # elements that a pass works on at a time, so that they stay in cache
_STRIDE = 31  # prime, so that it does not go in step with the axes of a weight


def norm(values: Tensor | Layers) -> Tensor:
    """The Euclidean norm of a layer."""
    if not isinstance(values, Layers):
        return cast(Tensor, torch.linalg.vector_norm(values))
    dtype = accumulation_dtype(values[0].dtype)
    if values[0].device.type == "cpu":
        return _each(_norm_by_rows(layer, dtype) for layer in values)
    return _each(torch._foreach_norm(values, 2, dtype=dtype))


def _norm_by_rows(layer: Tensor, dtype: torch.dtype) -> Tensor:
    """A norm of norms: on a CPU torch reduces to one number on one thread, to several on all."""
    rows = math.gcd(layer.numel(), 64) if layer.numel() >= _PART and layer.is_contiguous() else 1
    if rows > 1:
        layer = torch.linalg.vector_norm(layer.view(rows, -1), dim=1, dtype=dtype)
    return cast(Tensor, torch.linalg.vector_norm(layer, dtype=dtype))


def mean(function: Callable[[Tensor, Tensor], Tensor], first: Tensor | Layers, second: Tensor | Layers) -> Tensor:
    """The mean over a layer of an elementwise function that is nowhere negative."""
    if not isinstance(first, Layers) or not isinstance(second, Layers):
        return function(cast(Tensor, first), cast(Tensor, second)).mean()
    leaves: list[Any] = [Expression.leaf("first"), Expression.leaf("second")]
    program = Program({}, returned=function(*leaves))
    sums: list[Tensor] = []
    for layers in joined({"first": first, "second": second}):  # small ones, or parts of one that is large
        parts = [_sums(program.run(block)) for block in joined(cut(layers))]
        sums += [torch.stack(values).sum() for values in zip(*parts, strict=True)]
    return _each(total / layer.numel() for total, layer in zip(sums, first, strict=True))


def _sums(values: list[Tensor]) -> Sequence[Tensor]:
    """Of tensors that are nowhere negative, for which torch has a multi-tensor call."""
    on_cpu = values[0].device.type == "cpu"
    return [value.sum() for value in values] if on_cpu else torch._foreach_norm(values, 1)


def median(values: Tensor | Layers, *, absolute: bool) -> Tensor:
    """The lower median of a layer (an element of it, as ``torch.median``), or of its absolute values."""
    if isinstance(values, Layers):
        return _each(_medians(values, absolute=absolute))
    flat = values.flatten()
    return (flat.abs() if absolute else flat).median(dim=0).values


def _each(layers: Iterable[Tensor]) -> Tensor:
    """One number for each layer, to a rule still one tensor."""
    return cast(Tensor, Layers(layers))


def _medians(layers: Layers, *, absolute: bool) -> list[Tensor]:
    """One for each layer: first the large ones, on threads, for what takes long there holds no lock."""
    find = partial(_median, absolute=absolute)
    threads = torch.get_num_threads()
    order = sorted(range(len(layers)), key=lambda index: layers[index].numel(), reverse=True)
    large = sum(layer.numel() > _PART // 8 for layer in layers) if threads > 1 else 0
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(find, [layers[index] for index in order[:large]]))
    found += [find(layers[index]) for index in order[large:]]
    medians = dict(zip(order, found, strict=True))
    return [medians[index] for index in range(len(layers))]


def _median(values: Tensor, *, absolute: bool) -> Tensor:
    values = values.detach().to(accumulation_dtype(values.dtype)).reshape(-1)
    if values.device.type != "cpu":
        return median(values, absolute=absolute)
    array = values.numpy()
    return values.new_tensor(select(array, (array.size - 1) // 2, absolute=absolute))


def select(values: Values, rank: int, *, absolute: bool) -> float:
    """The element of this rank (0 the smallest) among values, or their absolute values; NaN if one is NaN.

    A sorted sample brackets the element, one pass counts what is below and collects what is not outside the
    bracket, and only that is partitioned (Floyd and Rivest 1975, with one round). A bracket that misses costs
    a partition of everything; the result is exact either way.
    """
    candidates, below = (_bracketed if values.size > _PART else _all)(values, rank, absolute=absolute)
    if not 0 <= rank - below < candidates.size:
        candidates, below = _all(values, rank, absolute=absolute)
    found = np.partition(candidates, rank - below)[rank - below]
    return float("nan") if np.isnan(candidates).any() else float(found)


def _all(values: Values, rank: int, *, absolute: bool) -> tuple[Values, int]:
    return np.abs(values) if absolute else values, 0


def _bracketed(values: Values, rank: int, *, absolute: bool) -> tuple[Values, int]:
    """The values near a rank, NaN among them, and the number of values below these."""
    sample = np.sort(_all(values[::_STRIDE], rank, absolute=absolute)[0])
    place, margin = rank / values.size * sample.size, 1.5 * sample.size**0.5  # 3 standard deviations
    low = sample[max(int(place - margin), 0)]
    high = sample[min(int(place + margin), sample.size - 1)]
    magnitude = np.empty(_PART, values.dtype)
    under, over = np.empty((2, _PART), bool)
    below, near = 0, []
    for start in range(0, values.size, _PART):
        part = values[start : start + _PART]
        if absolute:
            part = np.abs(part, out=magnitude[: part.size])
        outside = np.less(part, low, out=under[: part.size])
        below += int(np.count_nonzero(outside))
        outside |= np.greater(part, high, out=over[: part.size])
        near.append(part.take(np.flatnonzero(np.logical_not(outside, out=outside))))
    return np.concatenate(near), below
