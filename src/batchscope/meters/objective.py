"""The loss of a model as a pure function of its parameters: measurements leave the model as it is.

Shapes: B examples of a batch, N examples of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from batchscope.errors import MeterError
from batchscope.tensors import Pair, Tree, leaves, map_pair

Loss = Callable[[Any, Any], Tensor]


class Objective:
    """``loss(model(inputs), targets)``, one value for each example, as a function of the parameters that train.

    Buffers are copied for every call, so that running statistics stay what they are.
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self._model, self._loss = model, loss
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not named:
            raise MeterError("the model must have a parameter that requires a gradient, got none")
        self.parameters: dict[str, Tensor] = {name: p.detach() for name, p in named.items()}

    def losses(self, parameters: dict[str, Tensor], pair: Pair) -> Tensor:
        """(B,) losses."""
        inputs, targets = pair
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        outputs = torch.func.functional_call(self._model, {**parameters, **buffers}, (inputs,))
        values = self._loss(outputs, targets)
        if values.shape != (size(pair),):
            raise MeterError(
                f"the loss must be one value for each of {size(pair)} examples, got shape {tuple(values.shape)}: "
                'compute it with reduction="none" and average over what is not the example'
            )
        return values

    def mean_loss(self, parameters: dict[str, Tensor], pair: Pair) -> Tensor:
        """The mean over examples."""
        return self.losses(parameters, pair).mean()

    def gradient(self, parameters: dict[str, Tensor], pair: Pair) -> dict[str, Tensor]:
        """Of the mean loss; zero where it does not depend on a parameter."""
        value: dict[str, Tensor] = torch.func.grad(self.mean_loss)(parameters, pair)
        return value

    def mean_loss_of_all(self, parameters: dict[str, Tensor], pair: Pair, chunk_size: int) -> float:
        """The mean over N examples, a chunk in memory at a time."""
        with torch.no_grad():
            return sum(float(self.losses(parameters, part).double().sum()) for part in chunks(pair, chunk_size)) / size(
                pair
            )

    def gradient_of_all(self, pair: Pair, chunk_size: int) -> dict[str, Tensor]:
        """The gradient of that mean at the model's own parameters."""
        total = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        for part in chunks(pair, chunk_size):
            for name, gradient in self.gradient(self.parameters, part).items():
                total[name] += gradient * (size(part) / size(pair))
        return total

    def per_example_gradients(self, parameters: dict[str, Tensor], pair: Pair) -> dict[str, Tensor]:
        """(B, *shape) for each parameter, by ``torch.func.vmap``."""
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in self._model.modules()):
            raise MeterError(
                "examples have no gradients of their own while batch norm mixes them: call model.eval() first, or "
                "measure with observe()"
            )

        def alone(values: dict[str, Tensor], example: Pair) -> Tensor:
            return self.mean_loss(values, map_pair(lambda tensor: tensor[None], example))

        each = torch.func.vmap(torch.func.grad(alone), in_dims=(None, 0), randomness="different")
        value: dict[str, Tensor] = each(parameters, pair)
        return value


def size(tree: Tree | Pair) -> int:
    """The number of examples."""
    return len(next(leaves(tree)))


def chunks(pair: Pair, chunk_size: int) -> Iterator[Pair]:
    """The examples in their order, ``chunk_size`` at a time; the last may be fewer."""
    for start in range(0, size(pair), chunk_size):
        yield take(pair, slice(start, start + chunk_size))


def take(pair: Pair, rows: slice | Tensor) -> Pair:
    """Some of the examples."""
    return map_pair(lambda tensor: tensor[rows], pair)


def per_example_gradients(model: nn.Module, loss: Loss, inputs: Tree, targets: Tree) -> dict[str, Tensor]:
    """The gradient of every example by itself, exact, by ``torch.func``: name -> (B, *shape).

    Args:
        model: Any whose examples do not touch each other; with batch norm in evaluation mode.
        loss: (outputs, targets) -> (B,).
        inputs: B examples, a tensor or a nested structure of them.
        targets: Likewise.
    """
    objective = Objective(model, loss)
    return objective.per_example_gradients(objective.parameters, (inputs, targets))
