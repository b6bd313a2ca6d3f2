"""Where the two numbers of a noise scale come from: one class for each source.

Shapes: B examples of a batch, P parameter tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from batchscope.amounts import percent
from batchscope.errors import MeterError
from batchscope.meters.backward import Backward
from batchscope.meters.moments import Moments, moments_of_parts
from batchscope.meters.squares import Squares


class Source(Protocol):
    """Observes one batch in two calls, around the user's backward pass."""

    def observe(self, loss: Tensor, generator: torch.Generator) -> None:
        """Before the backward pass, with the losses of B examples, (B,)."""

    def settle(self) -> Moments | None:
        """After it: what was found, or None where there is nothing yet. Never waits for another process."""

    def forget(self) -> None:
        """Drop what has not been settled."""


class Signs:
    """One backward pass more, of the losses with random signs, half of them +1 and half -1.

    1. s = (1/n) sum_i e_i g_i with signs e_i that add up to zero: G cancels, and E|s|^2 = tr(Sigma) / n.
    2. The backward pass of the training step gives the mean gradient, E|g|^2 = |G|^2 + tr(Sigma) / B.

    The same as the gradients of two random halves, without keeping either. A term of the loss that knows no examples,
    such as weight decay, becomes a part of G. Of an odd batch one example goes without sign.
    """

    def __init__(self, squares: Squares, loss_scale: Callable[[], float]) -> None:
        self._squares, self._loss_scale = squares, loss_scale
        self._pending: tuple[Tensor, Backward] | None = None

    def observe(self, loss: Tensor, generator: torch.Generator) -> None:
        count, scale = len(loss) - len(loss) % 2, self._loss_scale()
        signs = torch.zeros(len(loss), dtype=loss.dtype)
        order = torch.randperm(len(loss), generator=generator)
        signs[order[: count // 2]], signs[order[count // 2 : count]] = scale / count, -scale / count
        squares = self._squares.all(gradients(loss, self._squares.parameters, signs.to(loss.device)))
        self._pending = squares * (count / scale**2), Backward(loss, self._squares)

    def settle(self) -> Moments | None:
        if self._pending is None or not self._pending[1].done:
            return None
        noise, backward = self._pending[0].cpu().double().numpy(), self._pending[1]
        self.forget()
        whole = backward.squares() / backward.weight() ** 2
        return Moments(noise, whole - noise / backward.examples)

    def forget(self) -> None:
        if self._pending is not None:
            self._pending[1].close()
        self._pending = None


class Parts:
    """The micro-batches of an accumulated batch, the ranks of data parallel training, or both: no pass more.

    The squares of each part are seen in its own backward pass, that of the whole in ``.grad`` after the last, with
    which ``settle`` must be called on every rank.
    """

    def __init__(self, squares: Squares, model: nn.Module) -> None:
        self._squares = squares
        self._group = model.process_group if isinstance(model, DistributedDataParallel) else None
        self._parts: list[Backward] = []
        # The smallest parameter tells whether .grad is still what the backward passes made it.
        self._smallest = min(squares.parameters, key=Tensor.numel)

    def observe(self, loss: Tensor, generator: torch.Generator) -> None:
        self._parts.append(Backward(loss, self._squares, keep_sum_of=self._smallest))

    def settle(self) -> Moments | None:
        parts = [part for part in self._parts if part.done]
        self.forget()
        weights = [part.weight() for part in parts]
        total = sum(weights)
        ranks = 1 if self._group is None else torch.distributed.get_world_size(self._group)
        rows = [np.zeros(len(self._squares.parameters) + 2)]
        for part, weight in zip(parts, weights, strict=True):
            share = weight / total / ranks
            mean_square = part.squares() / weight**2
            rows.append(np.array([*(share * mean_square), share / part.examples, share**2 / part.examples]))
        sums = torch.from_numpy(np.sum(rows, axis=0))
        kept = [part.kept for part in parts if part.kept is not None]
        seen = torch.stack(kept).sum(dim=0) if kept else torch.zeros_like(self._smallest)
        if self._group is not None:
            sums, seen = _sum_over_ranks(sums, self._group), _sum_over_ranks(seen, self._group) / ranks
        *part_squares, per_part, whole = sums.tolist()
        if not parts or per_part <= whole * (1 + 1e-9):
            raise MeterError(
                "a batch must come in at least two parts, micro-batches or ranks, each with observe() before its "
                f'backward pass; got {len(parts)} and {ranks} rank(s): leave out source="parts" for batches in one part'
            )
        self._check(seen)
        squares = self._squares.all([p.grad for p in self._squares.parameters]).cpu().double().numpy()
        return moments_of_parts(np.array(part_squares), squares / total**2, per_part, whole)

    @property
    def waiting(self) -> bool:
        """Whether parts have been trained on since the last batch ended."""
        return any(part.done for part in self._parts)

    def _check(self, seen: Tensor) -> None:
        grad = self._smallest.grad
        if grad is None or not (seen.isfinite().all() and grad.isfinite().all()):
            return
        off = float((grad.detach() - seen).norm() / seen.norm().clamp_min(1e-30))
        if off > 0.05:
            raise MeterError(
                "end_batch() reads .grad as the backward passes of this batch have left it, but found it changed by "
                f"{percent(off)}: call it right after the last backward pass, before clipping and scaler.unscale_(), "
                "and clear the gradients after every optimizer step"
            )

    def forget(self) -> None:
        for part in self._parts:
            part.close()
        self._parts = []


class HessianThirds:
    """tr(H Sigma) and G' H G from three independent thirds of a batch: gradients of two, Hessian of the third.

    With gradients a and b of n examples each and the Hessian H of others, E[a'Hb] = G'HG and
    E[(a - b)'H(a - b)] = 2 tr(H Sigma) / n. Three backward passes, and two products of the Hessian with a vector.
    """

    def __init__(self, squares: Squares, loss_scale: Callable[[], float]) -> None:
        self._squares, self._loss_scale = squares, loss_scale
        self._found: Moments | None = None

    def observe(self, loss: Tensor, generator: torch.Generator) -> None:
        count = len(loss) // 3
        if count == 0:
            raise MeterError(f'source="hessian" needs batches of at least 3 examples, got {len(loss)}')
        parameters, scale = self._squares.parameters, self._loss_scale()
        order = torch.randperm(len(loss), generator=generator).to(loss.device)
        thirds = [torch.zeros_like(loss, requires_grad=False) for _ in range(3)]
        for weights, rows in zip(thirds, order[: 3 * count].reshape(3, count), strict=True):
            weights[rows] = scale / count
        a, b = ([g / scale for g in gradients(loss, parameters, third, materialize=True)] for third in thirds[:2])
        slope = gradients(loss, parameters, thirds[2], materialize=True, create_graph=True)
        curved = [index for index, gradient in enumerate(slope) if gradient.requires_grad]

        def product(vector: list[Tensor]) -> list[Tensor]:
            if not curved:
                return [torch.zeros_like(v) for v in vector]
            with Backward.paused():
                found = torch.autograd.grad(
                    [slope[index] for index in curved],
                    parameters,
                    [vector[index] for index in curved],
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
            return [part / scale for part in found]

        along_a, along_b = product(a), product(b)
        aa, bb, ab = _dots(a, along_a), _dots(b, along_b), _dots(a, along_b)
        self._found = Moments(count / 2 * (aa + bb - 2 * ab), ab)

    def settle(self) -> Moments | None:
        found, self._found = self._found, None
        return found

    def forget(self) -> None:
        self._found = None


def gradients(
    loss: Tensor, parameters: list[Tensor], weights: Tensor, *, materialize: bool = False, create_graph: bool = False
) -> list[Any]:
    """Gradients of ``weights @ loss``; the graph is kept for the training step.

    Raises:
        MeterError: If the graph cannot be used twice.
    """
    try:
        with Backward.paused():
            found = torch.autograd.grad(
                loss,
                parameters,
                weights,
                retain_graph=True,
                create_graph=create_graph,
                allow_unused=True,
                materialize_grads=materialize,
            )
    except RuntimeError as error:
        if "donated buffers" in str(error) or "checkpoint" in str(error).lower():
            raise MeterError(
                "this source needs a backward pass besides the one of the training step, which the model does not "
                'allow. Use source="parts" or source="norm_layers"; or, for a compiled model, set '
                "torch._functorch.config.donated_buffer = False; or checkpoint with use_reentrant=False"
            ) from error
        raise
    return list(found)


def _dots(left: list[Tensor], right: list[Tensor]) -> Any:
    values = [(x.detach().double() * y.detach().double()).sum() for x, y in zip(left, right, strict=True)]
    return torch.stack(values).cpu().numpy()


def _sum_over_ranks(value: Tensor, group: Any) -> Tensor:
    device = "cpu" if torch.distributed.get_backend(group) == "gloo" else "cuda"
    moved = value.to(device).contiguous()
    torch.distributed.all_reduce(moved, group=group)
    return moved.to(value.device)
