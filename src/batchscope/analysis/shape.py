"""Curves with the three regimes in their order, and the one nearest to measured steps.

Legend: M batch sizes, D samples.

Sh19 (section 4.1) finds one form everywhere: perfect scaling, then diminishing returns, then no benefit. In
log steps against log batch size that is a convex curve whose slope rises from no less than -1 to no more than
0. Every such curve is a mixture of "perfect scaling up to b, then flat" over the batch sizes b, and every
such mixture is one. No formula is assumed beyond that, and noise cannot make it wiggle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_EXACTLY_ONE = 1e3  # weight of the row that makes the mixture sum to 1, where the other rows weigh about 1


def three_regimes(log_batch_sizes: Array, curves: Array, deviation: Array) -> Array:
    """The nearest curves with three regimes (D, M) to ``curves`` (D, M) of log steps, by weighted least squares.

    ``deviation`` (M,) is the standard deviation of log steps at each batch size.
    """
    from scipy.optimize import nnls  # here, because loading it takes as long as a small answer

    weight = deviation**-2 / (deviation**-2).sum()
    corner = np.maximum(-log_batch_sizes[:, None], -log_batch_sizes[None, :])  # (M, M), a column per corner
    corner = corner - weight @ corner
    scale = np.sqrt(weight * len(weight))
    system = np.vstack([corner * scale[:, None], np.full(len(weight), _EXACTLY_ONE)])
    height = curves @ weight
    targets = np.column_stack([(curves - height[:, None]) * scale, np.full(len(curves), _EXACTLY_ONE)])
    mixtures = np.array([nnls(system, target, maxiter=50 * len(weight))[0] for target in targets])
    return np.asarray(height[:, None] + mixtures @ corner.T)
