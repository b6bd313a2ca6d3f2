"""The diagonal of the Hessian by Hutchinson's estimator.

For z of independent signs, E[z * (H z)] = diag(H), with variance sum over j != i of H_ij^2 at place i: exact with
one probe where the Hessian is diagonal, and an error like probes^(-1/2) elsewhere (Bekas, Kokiopoulou and Saad 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Aux = TypeVar("Aux")


def signs(like: Tensor, generator: torch.Generator, count: int | None = None) -> Tensor:
    """Independent signs, +1 or -1: of the shape of ``like``, or ``count`` such along a new first axis."""
    shape = like.shape if count is None else (count, *like.shape)
    drawn = torch.randint(0, 2, shape, generator=generator, device=like.device, dtype=torch.int8)
    return drawn.mul_(2).sub_(1).to(like.dtype)


def gradient_and_hessian_diagonal(
    gradient: Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], Aux]],
    parameters: dict[str, Tensor],
    probes: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], Aux]:
    """The gradient and an estimate of the Hessian's diagonal, as a pure function that ``torch.func.vmap`` takes.

    Args:
        gradient: Parameters to gradients of the same names and anything else, as ``torch.func.grad`` gives with
            ``has_aux=True``; the anything else is returned as it is.
        parameters: Where to evaluate.
        probes: For each parameter (probes, *shape): signs.
    """
    value, pullback, auxiliary = torch.func.vjp(gradient, parameters, has_aux=True)  # type: ignore[misc]
    count = next(iter(probes.values())).shape[0]
    diagonal = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for probe in range(count):
        z = {name: probes[name][probe] for name in parameters}
        (product,) = pullback(z)
        diagonal = {name: diagonal[name] + z[name] * product[name] / count for name in parameters}
    return value, diagonal, auxiliary


def hessian_diagonal_of_graph(
    gradients: Sequence[Tensor], parameters: Sequence[Tensor], probes: Sequence[Sequence[Tensor]]
) -> list[Tensor]:
    """The same from gradients that were computed with ``create_graph=True``; each tensor as its parameter.

    Args:
        gradients: One for each parameter.
        parameters: Where they were computed.
        probes: For each probe a tensor of signs for each parameter.
    """
    diagonal = [torch.zeros_like(parameter) for parameter in parameters]
    curved = [index for index, gradient in enumerate(gradients) if gradient.requires_grad]
    for z in probes if curved else ():
        products = torch.autograd.grad(
            [gradients[index] for index in curved],
            parameters,
            [z[index] for index in curved],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        for total, sign, product in zip(diagonal, z, products, strict=True):
            total.addcmul_(sign, product, value=1 / len(probes))
    return diagonal
