"""Squared norms of gradients: one number for each parameter, in the coordinates of the model or of an optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from batchscope.meters.preconditioner import Preconditioner


class Squares:
    """The parameters that are measured, and |g|^2, or g' P g under a preconditioner P, of each."""

    def __init__(self, parameters: Sequence[Tensor], preconditioner: Preconditioner | None = None) -> None:
        self.parameters = list(parameters)
        self._preconditioner = preconditioner

    @property
    def ready(self) -> bool:
        """False while the optimizer has not taken the step that its preconditioner comes from."""
        return self._preconditioner is None or self._preconditioner.ready(self.parameters)

    def one(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """The square of one parameter's gradient, summed over leading axes too; in float32 at least."""
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        if self._preconditioner is None:
            norm: Tensor = torch.linalg.vector_norm(gradient.detach(), dtype=dtype)
            return norm.square()
        factor = self._preconditioner(parameter)
        assert factor is not None
        return (gradient.detach().to(dtype).square() * factor).sum()

    def all(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """(P,) squares, 0 where the loss does not depend on a parameter."""
        zero = self.parameters[0].new_zeros((), dtype=torch.float32)
        return torch.stack(
            [zero if g is None else self.one(p, g) for p, g in zip(self.parameters, gradients, strict=True)]
        )
