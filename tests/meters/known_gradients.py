"""Problems whose gradient covariance is known in closed form.

Linear regression: x ~ N(0, I_d), y = w'x + s z, loss (v'x - y)^2 / 2. With e = v - w the gradient of one example is
(e'x - s z) x, its mean e, its second moment E|g|^2 = (d + 2)|e|^2 + s^2 d.
Quadratic: loss sum_i h_i (v_i - x_i)^2 / 2 with x_i ~ N(0, 1/h_i): mean h_i v_i, variance h_i.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """(B,) halves of squares."""
    return (outputs[:, 0] - targets) ** 2 / 2


@dataclass(frozen=True)
class Regression:
    """Linear regression at the weights 0, in float64."""

    dimension: int = 12
    spread: float = 1.0  # of the noise of y

    @property
    def slope(self) -> Tensor:
        """The true w."""
        return torch.linspace(-0.6, 0.9, self.dimension, dtype=torch.float64)

    @property
    def signal(self) -> float:
        """|G|^2."""
        return float(self.slope @ self.slope)

    @property
    def noise(self) -> float:
        """tr(Sigma)."""
        return (self.dimension + 2) * self.signal + self.spread**2 * self.dimension - self.signal

    def model(self) -> nn.Linear:
        """The weights 0."""
        model = nn.Linear(self.dimension, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(model.weight)
        return model

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        """Fresh examples."""
        x = torch.randn(size, self.dimension, generator=generator, dtype=torch.float64)
        return x, x @ self.slope + self.spread * torch.randn(size, generator=generator, dtype=torch.float64)


class Quadratic(nn.Module):
    """The weights v = 1; the examples x in, the losses' distances v - x out."""

    def __init__(self, dimension: int = 20) -> None:
        super().__init__()
        self.h = 1 / torch.arange(1, dimension + 1, dtype=torch.float64)
        self.v = nn.Parameter(torch.ones(dimension, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.v - x

    def loss(self, distances: Tensor, _: Tensor) -> Tensor:
        """(B,) losses."""
        return (distances.square() * self.h).sum(-1) / 2

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        """Fresh examples."""
        x = torch.randn(size, len(self.h), generator=generator, dtype=torch.float64) / self.h.sqrt()
        return x, torch.zeros(size)
