"""The two numbers of a noise scale, both unbiased, from the gradients of the parts of a batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Moments(NamedTuple):
    """Unbiased estimates from one batch, one entry for each parameter tensor, or group of them, (P,).

    ``noise`` is tr(Sigma), the trace of the covariance of the gradient of one example; ``signal`` is |G|^2, the
    squared norm of the expected gradient.
    """

    noise: Array
    signal: Array


def moments_of_parts(part_squares: Array, whole_square: Array, per_part: float, whole: float) -> Moments:
    """From the squared norms of the gradients of parts and of their weighted mean.

    A batch is cut into independent parts k of n_k examples with mean gradients g_k, and the gradient of the whole is
    sum_k a_k g_k with shares a_k that add up to 1.

    1. E|g_k|^2 = |G|^2 + tr(Sigma) / n_k, so E sum_k a_k |g_k|^2 = |G|^2 + tr(Sigma) sum_k a_k / n_k.
    2. The parts are independent, so E|sum_k a_k g_k|^2 = |G|^2 + tr(Sigma) sum_k a_k^2 / n_k.
    3. Two equations, two unknowns.

    Examples, micro-batches and ranks are such parts; with two sizes of batch it is McCandlish et al. (2018), appendix
    A.1, and with a_k = n_k / N the analysis of variance.

    Args:
        part_squares: sum_k a_k |g_k|^2, (P,).
        whole_square: |sum_k a_k g_k|^2, (P,).
        per_part: sum_k a_k / n_k.
        whole: sum_k a_k^2 / n_k, less than ``per_part``: there are at least two parts.
    """
    noise = (part_squares - whole_square) / (per_part - whole)
    return Moments(noise, whole_square - whole * noise)
