"""The noisy quadratic model: a workload whose steps to result are known in closed form.

Zhang et al. (2019), "Which algorithmic choices matter at which batch sizes?", section 3. In D dimensions,
with Hessian eigenvalues h_i = 1/i and per-example gradient covariance equal to the Hessian, the loss of one
example x is

    l(theta, x) = 1/2 sum_i h_i (theta_i - x_i)^2,    x_i ~ N(0, 1/h_i),

so that its gradient h_i (theta_i - x_i) has mean h_i theta_i and variance h_i. The excess loss 1/2 sum_i
h_i theta_i^2 is what is left of the expected loss when the irreducible D/2 is taken off; it is the loss of
the one validation example x = 0. Training starts at theta = (1, ..., 1), where the excess loss is half the
D-th harmonic number.

Shapes: P hyperparameter points, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from batchscope.errors import WorkloadError
from batchscope.spec.workload import Stream, Workload

Array = NDArray[np.float64]
MOST_DIMENSIONS = 10**6
Optimizer = Literal["sgd", "momentum", "nesterov"]


class NoisyQuadratic(nn.Module):
    """The parameter vector theta; (B, D) examples x in, (B, D) distances theta - x out."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(dimension))

    def forward(self, examples: Tensor) -> Tensor:
        """Distances to a batch of examples."""
        return self.theta - examples


def noisy_quadratic(dimension: int) -> Workload:
    """The workload in ``dimension`` dimensions; ``validation/loss`` is the exact excess loss.

    Raises:
        WorkloadError: If there are too many dimensions.
    """
    if dimension > MOST_DIMENSIONS:
        raise WorkloadError(f"a noisy quadratic has at most {MOST_DIMENSIONS} dimensions, got {dimension}; write fewer")

    def loss(distances: Tensor, _: Tensor) -> Tensor:
        index = torch.arange(1, dimension + 1, dtype=distances.dtype, device=distances.device)
        return (distances.square() / index).sum(-1) / 2

    def draw(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        spread = torch.arange(1, dimension + 1, dtype=torch.float32).sqrt()
        return torch.randn(count, dimension, generator=generator) * spread, torch.zeros(count)

    return Workload(
        model=lambda: NoisyQuadratic(dimension),
        loss=loss,
        train=Stream(draw),
        validation=(torch.zeros(1, dimension), torch.zeros(1)),
        name=f"noisy_quadratic/{dimension}",
    )


def expected_loss(
    batch_size: ArrayLike,
    learning_rate: ArrayLike,
    momentum: ArrayLike,
    steps: int,
    dimension: int,
    *,
    nesterov: bool = False,
) -> Array:
    """The exact expected excess loss after 0, 1, ..., ``steps`` updates at a constant learning rate.

    ``batch_size`` (infinity for the full gradient), ``learning_rate`` and ``momentum`` broadcast to a shape
    (...); the result is (..., steps + 1). The rule is heavy-ball, or Nesterov's, as in Sh19 section 2.2;
    momentum 0 is SGD.
    """
    points = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (batch_size, learning_rate, momentum)))
    shape = points[0].shape
    batch, rate, gamma = (point.reshape(-1) for point in points)
    losses = islice(_expected_losses(batch, rate, gamma, dimension, nesterov), steps + 1)
    return np.stack(list(losses), axis=-1).reshape(*shape, steps + 1)


def _expected_losses(
    batch_size: Array, learning_rate: Array, momentum: Array, dimension: int, nesterov: bool
) -> Iterator[Array]:
    """Expected excess losses (P,) after 0, 1, 2, ... updates; every argument is (P,).

    1. With the mean gradient noise xi ~ N(0, h/B), one update of a dimension is
       v' = gamma v + h theta - xi, and theta' = theta - eta v' (heavy-ball) or
       theta' = theta - eta (h theta - xi) - eta gamma v' (Nesterov): linear, (theta', v') = A (theta, v) + b xi.
    2. xi is independent of (theta, v), so M = E[(theta, v)(theta, v)^T] follows M' = A M A^T + b b^T h/B. No
       approximation is made.
    3. The loss is 1/2 sum_i h_i M_i[theta, theta].
    """
    h = 1 / np.arange(1.0, dimension + 1)
    eta, gamma = learning_rate[:, None], momentum[:, None]  # (P, 1) against (D,)
    if nesterov:
        a, b, noise = 1 - eta * (1 + gamma) * h, -eta * gamma**2 + 0 * h, eta * (1 + gamma)
    else:
        a, b, noise = 1 - eta * h, -eta * gamma + 0 * h, eta
    c, d = h + 0 * eta, gamma + 0 * h  # A = ((a, b), (c, d)), each entry (P, D)
    xi = h / batch_size[:, None]
    transition = np.array([[a * a, 2 * a * b, b * b], [a * c, a * d + b * c, b * d], [c * c, 2 * c * d, d * d]])
    added = np.array([noise**2 * xi, -noise * xi, xi])
    moments = np.zeros_like(added)  # E[theta^2], E[theta v], E[v^2]
    moments[0] = 1
    following = np.empty_like(moments)
    while True:
        # A rate beyond the stable ones overflows to infinity, then to NaN: its loss is infinite.
        with np.errstate(over="ignore", invalid="ignore"):
            loss = moments[0] @ h / 2
            np.einsum("ijpd,jpd->ipd", transition, moments, out=following)
            following += added
        moments, following = following, moments
        yield np.where(np.isnan(loss), np.inf, loss)


@dataclass(frozen=True)
class Best:
    """The fewest steps, and the hyperparameters that need no more."""

    steps: int
    learning_rate: float
    momentum: float


def steps_to_goal(
    batch_size: float,
    goal: float,
    dimension: int,
    *,
    optimizer: Optimizer = "sgd",
    max_steps: int = 1_000_000,
) -> Best | None:
    """The true S(B): the first step at which the expected excess loss is below ``goal``, everything tuned.

    Minimised over the learning rate, and over the momentum for "momentum" and "nesterov", on a grid that is
    twice made finer around its best point. The whole grid advances together and stops with the first point
    that is there, so that the minimum over the grid is exact. None where no point is there within
    ``max_steps``.

    A single run is there when *its* loss is, which fluctuates about the expected one: the fewest steps over
    many trials are somewhat fewer, the less so the more dimensions there are.
    """
    slowest, fastest = _effective_rates(batch_size, goal, dimension)
    effective = np.linspace(np.log(slowest), np.log(fastest), 48)
    if optimizer == "sgd":
        friction = np.zeros(1)
    else:
        friction = np.linspace(np.log(1e-3), 0, 13)  # log(1 - momentum)
    best: Best | None = None
    for _ in range(3):
        rate, slip = (axis.ravel() for axis in np.meshgrid(effective, friction, indexing="ij"))
        gamma = np.abs(np.expm1(slip))
        found = _race(batch_size, goal, np.exp(rate + slip), gamma, dimension, optimizer == "nesterov", max_steps)
        if found is None:
            return best
        steps, winner = found
        if best is None or steps < best.steps:
            best = Best(steps, float(np.exp(rate + slip)[winner]), float(gamma[winner]))
            max_steps = steps
        effective = rate[winner] + np.linspace(-1, 1, 9) * (effective[1] - effective[0])
        if len(friction) > 1:
            friction = np.minimum(slip[winner] + np.linspace(-1, 1, 9) * (friction[1] - friction[0]), 0)
    return best


def _effective_rates(batch_size: float, goal: float, dimension: int) -> tuple[float, float]:
    """Bounds of learning_rate / (1 - momentum) that hold the best one.

    SGD settles at the loss sum_i h_i eta / (2 B (2 - eta h_i)), about eta / (4 B) times the harmonic
    number: the lower bound settles at a tenth of the goal, and is slow. The upper bound is beyond every
    stable rate, which is 2 (1 + momentum) / (1 - momentum), at the momentum 0.999.
    """
    harmonic = float(np.sum(1 / np.arange(1.0, dimension + 1)))
    return min(0.4 * batch_size * goal / harmonic, 0.1), 4e3


def _race(
    batch_size: float,
    goal: float,
    learning_rate: Array,
    momentum: Array,
    dimension: int,
    nesterov: bool,
    max_steps: int,
) -> tuple[int, int] | None:
    """The first step at which any point is below the goal, and the point with the lowest loss there."""
    batch = np.full_like(learning_rate, batch_size)
    losses = _expected_losses(batch, learning_rate, momentum, dimension, nesterov)
    for step, loss in enumerate(islice(losses, max_steps + 1)):
        if loss.min() < goal:
            return step, int(loss.argmin())
    return None
