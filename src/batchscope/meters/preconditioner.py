"""What an optimizer multiplies a lasting gradient by: the coordinates in which its step is a gradient step.

A step P g with a positive diagonal P is plain gradient descent in the coordinates P^(-1/2) w, where the gradient is
P^(1/2) g: the noise scale that it sees is tr(P Sigma) / (G' P G).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from batchscope.errors import MeterError

Group = Mapping[str, Any]
State = Mapping[str, Any]


def _momentum(group: Group, state: State) -> float:
    """A gradient that lasts is taken (1 - dampening) / (1 - momentum) times."""
    return float((1 - group.get("dampening", 0.0)) / (1 - group.get("momentum", 0.0)))


def _adam(group: Group, state: State) -> Any:
    # None before the first step; torch.optim's names, and those of batchscope.optim
    square = state.get("max_exp_avg_sq", state.get("exp_avg_sq", state.get("second_moment")))
    if square is None:
        return None
    corrected = square / (1 - float(group["betas"][1]) ** float(state["step"]))
    return (corrected.sqrt() + group["eps"]).reciprocal_()


def _rmsprop(group: Group, state: State) -> Any:
    square: Any = state.get("square_avg", state.get("square_average"))
    if square is None:
        return None
    if group.get("centered"):
        square = square - state["grad_avg"].square()
    return (square.sqrt() + group["eps"]).reciprocal_().mul_(_momentum(group, state))


_KNOWN: dict[str, Callable[[Group, State], Tensor | float | None]] = {
    "SGD": _momentum,
    "Momentum": _momentum,
    "Nesterov": _momentum,
    "Adam": _adam,
    "AdamW": _adam,
    "RMSprop": _rmsprop,
    "RMSProp": _rmsprop,
}


class Preconditioner:
    """The diagonal of P for every parameter of an optimizer, as its state is now.

    The learning rates of parameter groups count by their ratios only: a schedule must not make one step of a window
    weigh more than another.

    Raises:
        MeterError: If the optimizer's preconditioner is not known.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        name = type(optimizer).__name__
        if name not in _KNOWN:
            raise MeterError(
                f"optimizer must be one of {', '.join(sorted(_KNOWN))}, got {name}: leave out optimizer= to measure "
                "gradients as they are"
            )
        self._optimizer, self._of = optimizer, _KNOWN[name]
        self._group = {id(p): group for group in optimizer.param_groups for p in group["params"]}

    def ready(self, parameters: list[Tensor]) -> bool:
        """Whether the optimizer has taken the steps that its averages come from."""
        return all(self(parameter) is not None for parameter in parameters)

    def __call__(self, parameter: Tensor) -> Tensor | float | None:
        """The factors of one parameter: a number, or a tensor of its shape; None before the first step."""
        group = self._group.get(id(parameter))
        if group is None:
            raise MeterError(
                f"the optimizer must hold every parameter that is measured, got one of shape "
                f"{tuple(parameter.shape)} that it does not hold: freeze it with requires_grad_(False)"
            )
        rates = [float(g["lr"]) for g in self._optimizer.param_groups]
        mean = sum(rates) / len(rates)
        factor = self._of(group, self._optimizer.state.get(parameter, {}))
        return factor if factor is None or mean == 0 else factor * (float(group["lr"]) / mean)
