"""Fixed splits: which example trains, which validates, which is kept for the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from batchscope.seeds import Part, key


@dataclass(frozen=True)
class Splits:
    """Three disjoint parts of a data set, each ``(inputs, targets)``.

    The training examples are in an order that is random but fixed: the first n of them are a random subset.
    ``remarks`` are what a user should know of the files.
    """

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    remarks: tuple[str, ...] = ()


def shuffled(count: int, *parts: Part) -> NDArray[np.intp]:
    """A permutation of ``range(count)`` keyed by ``parts``.

    It is the order of the raw output of PCG64, the one stream that numpy promises never to change, so that a
    split stays the same over versions.
    """
    return np.argsort(np.random.PCG64(key(*parts)).random_raw(count), kind="stable")
