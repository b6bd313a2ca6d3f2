"""The noisy quadratic's branches in closed form, and as fast simulations without the engine.

The recursion is that of ``workloads.noisy_quadratic``, written anew: M' = A M A^T + b b^T h/B in every dimension, here
with a batch size and a rate that change. Shapes: D dimensions, F factors, R replicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Quadratic:
    """Heavy-ball on the noisy quadratic."""

    dimension: int
    batch_size: int
    learning_rate: float
    momentum: float

    @property
    def curvature(self) -> Array:
        """(D,)."""
        return np.asarray(1 / np.arange(1.0, self.dimension + 1))

    def expected(self, steps: int, window: int, factors: Sequence[int], marks: Sequence[int]) -> Array:
        """(F,) expected losses of branches from a point, mean over the ``marks``.

        Args:
            steps: Of the training before.
            window: Of the branch, in steps of the training.
            factors: Of the batch size and the rate; 1 for the training.
            marks: In steps of the training, ascending, up to the window.
        """
        h = self.curvature
        moments = np.zeros((3, self.dimension))
        moments[0] = 1
        for _ in range(steps):
            moments = self._after(moments, 1)
        losses = []
        for factor in factors:
            own, found = moments, []
            for step in range(factor, window + 1, factor):
                own = self._after(own, factor)
                if step in marks:
                    found.append(own[0] @ h / 2)
            losses.append(np.mean(found))
        return np.array(losses)

    def _after(self, moments: Array, factor: int) -> Array:
        h, eta, gamma = self.curvature, self.learning_rate * factor, self.momentum
        noise = h / (self.batch_size * factor)
        a, b, c, d = 1 - eta * h, -eta * gamma, h, gamma
        theta, cross, velocity = moments
        return np.array(
            [
                a * a * theta + 2 * a * b * cross + b * b * velocity + eta**2 * noise,
                a * c * theta + (a * d + b * c) * cross + b * d * velocity - eta * noise,
                c * c * theta + 2 * c * d * cross + d * d * velocity + noise,
            ]
        )

    def simulated(
        self, steps: int, window: int, factors: Sequence[int], marks: Sequence[int], replicates: int, seed: int
    ) -> Array:
        """(F, R) losses of single branches that see the same examples; arguments are those of ``expected``."""
        rng, h = np.random.default_rng(seed), self.curvature
        spread = np.sqrt(h / self.batch_size)
        theta, velocity = np.ones((replicates, self.dimension)), np.zeros((replicates, self.dimension))
        for _ in range(steps):
            velocity = self.momentum * velocity + h * theta - spread * rng.standard_normal(theta.shape)
            theta = theta - self.learning_rate * velocity
        noise = spread * rng.standard_normal((window, *theta.shape))
        losses = []
        for factor in factors:
            own, moving, found = theta, velocity, []
            for step in range(factor, window + 1, factor):
                moving = self.momentum * moving + h * own - noise[step - factor : step].mean(0)
                own = own - factor * self.learning_rate * moving
                if step in marks:
                    found.append((own * own) @ h / 2)
            losses.append(np.mean(found, axis=0))
        return np.array(losses)
