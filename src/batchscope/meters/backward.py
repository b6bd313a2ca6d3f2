"""What an ordinary backward pass leaves behind: the weight of every example in the loss, and squared gradients.

The gradient of the loss that is minimised by the loss of one example is that example's weight, whatever stands
between the two: a mean, a share of an accumulated batch, the scale of a GradScaler. Dividing by the weights undoes them
all. Gradients are seen before they are added to ``.grad`` and before data parallel training averages them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from batchscope.errors import MeterError
from batchscope.meters.squares import Squares


class Backward:
    """Watches the next backward pass from ``loss``, (B,): sum of weights, and squares of the summed gradient, (P,)."""

    _paused: ClassVar[bool] = False

    def __init__(self, loss: Tensor, squares: Squares, *, keep_sum_of: Tensor | None = None) -> None:
        self.examples = len(loss)
        self.kept: Tensor | None = None  # this pass's gradient of the parameter ``keep_sum_of``
        self._squares, self._keep = squares, keep_sum_of
        self._weights: Tensor | None = None
        self._found: dict[int, Tensor] = {}
        self._handles: list[RemovableHandle] = [loss.register_hook(self._see_weights)]  # type: ignore[no-untyped-call]
        for index, parameter in enumerate(squares.parameters):
            self._handles.append(parameter.register_hook(partial(self._see, index)))  # type: ignore[no-untyped-call]

    def _see_weights(self, gradient: Tensor) -> None:
        if self.waits:
            self._weights = gradient.detach()

    def _see(self, index: int, gradient: Tensor) -> None:
        if Backward._paused or self._weights is None or index in self._found:
            return  # a meter's own pass, one that the loss has no part in, or a second one
        parameter = self._squares.parameters[index]
        self._found[index] = self._squares.one(parameter, gradient)
        if parameter is self._keep:
            self.kept = gradient.detach().clone()

    @staticmethod
    @contextmanager
    def paused() -> Iterator[None]:
        """While a meter makes a backward pass of its own, no meter watches."""
        Backward._paused = True
        try:
            yield
        finally:
            Backward._paused = False

    @property
    def waits(self) -> bool:
        """Whether a backward pass that begins now may be the one."""
        return not Backward._paused and not self._found

    @property
    def done(self) -> bool:
        """Whether the backward pass has been."""
        return bool(self._found)

    def close(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()

    def weight(self) -> float:
        """The sum of the weights of all examples.

        Raises:
            MeterError: If the weights differ. An overflow is returned as it is.
        """
        assert self._weights is not None
        weights = self._weights.cpu().double()
        spread, mean = float(weights.max() - weights.min()), float(weights.mean())
        if spread > 1e-2 * abs(mean):  # reduced precision rounds them
            raise MeterError(
                "every example must weigh the same in the loss that is minimised: its mean or sum, times any factor. "
                f"Got weights from {float(weights.min()):g} to {float(weights.max()):g}: give observe() the weighted "
                "losses, scaled so that their plain mean is what is minimised"
            )
        return mean * self.examples

    def squares(self) -> NDArray[np.float64]:
        """|g|^2 of the gradient of the weighted sum of losses, (P,)."""
        zero = next(iter(self._found.values())).new_zeros(())
        values = [self._found.get(index, zero) for index in range(len(self._squares.parameters))]
        return torch.stack(values).cpu().double().numpy()
