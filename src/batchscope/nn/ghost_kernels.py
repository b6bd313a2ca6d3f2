"""Normalisation of many ghost batches at once, in few passes over memory.

A batch is cut along its examples into segments of equal ghost batches: the whole ones, and a remainder. On a CPU a
segment is taken in blocks of as many ghost batches as its cache holds. So the number of tensor operations grows with
the size of a large batch, and never with the number of ghost batches in it.

Shapes: B examples, C channels. A segment of n ghost batches is seen as (n, G, Q, C, S), with G rows of Q * C * S values
in a ghost batch: the positions of an image are S where channels come first in memory, and shared between G and Q where
they come last. Statistics are (n, C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Inner loops over fewer values than this are slow.
LONG = 64

# Values of a block, as many as a core's cache holds while the passes of one block follow each other (2 MiB of float32).
BLOCK = 2**19


class Segment(NamedTuple):
    """``ghosts`` ghost batches of ``size`` examples each, from the example ``start``."""

    start: int
    ghosts: int
    size: int


class Normalized(NamedTuple):
    """The output (shape of the input), and of every ghost batch the mean and the biased variance."""

    output: Tensor
    mean: Tensor
    variance: Tensor


def segments(batch_size: int, ghost_batch_size: int) -> list[Segment]:
    """How a batch is cut: whole ghost batches in order, then the remainder as one of its own.

    A remainder of one example, which has no variance of its own, joins its neighbour.
    """
    ghosts, rest = divmod(batch_size, ghost_batch_size)
    if rest == 1 and ghosts:
        ghosts, rest = ghosts - 1, ghost_batch_size + 1
    whole = [Segment(0, ghosts, ghost_batch_size)] if ghosts else []
    return whole + ([Segment(ghosts * ghost_batch_size, 1, rest)] if rest else [])


def normalize(x: Tensor, weight: Tensor | None, bias: Tensor | None, cut: Sequence[Segment], eps: float) -> Normalized:
    """Every ghost batch of x (B, C, ...) to mean 0 and variance 1, times ``weight`` plus ``bias``, both (C,).

    Statistics are computed in float32 at least, and carry no gradient of their own.
    """
    # A transform or a compiler must see plain operations: it differentiates, batches and fuses them itself.
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        output, mean, variance = _plain(x, weight, bias, cut, eps)
        return Normalized(output, mean.detach(), variance.detach())
    return Normalized(*_Fast.apply(x, weight, bias, _blocks(cut, x), eps))  # type: ignore[no-untyped-call]


def _blocks(cut: Sequence[Segment], x: Tensor) -> Sequence[Segment]:
    """The segments in pieces of at most ``BLOCK`` values, or of one ghost batch where that has more."""
    if x.device.type != "cpu":
        return cut
    values = x.numel() // x.shape[0]
    return [
        Segment(start + first * size, min(together, ghosts - first), size)
        for start, ghosts, size in cut
        for together in [max(BLOCK // (size * values), 1)]
        for first in range(0, ghosts, together)
    ]


def _plain(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, cut: Sequence[Segment], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = _accumulator(x)
    outputs, means, variances = [], [], []
    for start, ghosts, size in cut:
        v = x[start : start + ghosts * size].to(dtype).reshape(ghosts, size, x.shape[1], -1)
        mean = v.mean((1, 3), keepdim=True)
        centred = v - mean
        variance = centred.square().mean((1, 3), keepdim=True)
        scale = (variance + eps).rsqrt()
        y = centred * (scale if weight is None else scale * weight.to(dtype)[:, None])
        outputs.append((y if bias is None else y + bias.to(dtype)[:, None]).to(x.dtype).reshape(-1, *x.shape[1:]))
        means.append(mean[:, 0, :, 0])
        variances.append(variance[:, 0, :, 0])
    return torch.cat(outputs), torch.cat(means), torch.cat(variances)


class _Fast(torch.autograd.Function):
    """``_plain`` with one scratch tensor forward and one backward, as the fused kernels of torch have it."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, cut: Sequence[Segment], eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.cut, ctx.eps = cut, eps
        saved = x
        x = _dense(x)
        dtype = _accumulator(x)
        w, b = (None if value is None else value.to(dtype) for value in (weight, bias))
        output = torch.empty_like(x)
        means, variances, scales = [], [], []
        for segment in cut:
            target = _view(output, segment)
            v = _view(x, segment).to(dtype)
            y = target if target.dtype == dtype else torch.empty_like(v)
            mean = _mean(v)
            # The squared difference in one pass, for which torch has no other name.
            torch.ops.aten.mse_loss.out(v, _rows(mean, v), 0, out=y)
            variance = _mean(y)
            scale = (variance + eps).rsqrt_()
            slope = scale if w is None else scale * w
            shift = -mean * slope if b is None else torch.addcmul(b, mean, slope, value=-1)
            torch.addcmul(_rows(shift, v), v, _rows(slope, v), out=y)
            if y is not target:
                target.copy_(y)
            means.append(mean)
            variances.append(variance)
            scales.append(scale)
        mean, variance, scale = _joined(means), _joined(variances), _joined(scales)
        ctx.mark_non_differentiable(mean, variance)
        ctx.save_for_backward(saved, weight, bias, mean, scale)
        return output, mean, variance

    @staticmethod
    def backward(ctx, gradient: Tensor, *_: None) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        x, weight, bias, means, scales = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of the backward pass is wanted
            inputs = [value for value in (x, weight, bias) if value is not None]
            output = _plain(x, weight, bias, ctx.cut, ctx.eps)[0]
            found = iter(torch.autograd.grad(output, inputs, gradient, create_graph=True))
            return *(None if value is None else next(found) for value in (x, weight, bias)), None, None
        x = _dense(x)
        gradient = _like(gradient, x)
        result = torch.empty_like(x)
        outers = scales if weight is None else scales * weight.to(scales.dtype)
        weight_gradients, bias_gradients = [], []
        first = 0
        for segment in ctx.cut:
            part = slice(first, first + segment.ghosts)
            first += segment.ghosts
            mean, scale, outer = means[part], scales[part], outers[part]
            target = _view(result, segment)
            v, g = _view(x, segment).to(mean.dtype), _view(gradient, segment).to(mean.dtype)
            y = target if target.dtype == mean.dtype else torch.empty_like(v)
            # With u = (v - mean) * scale: dL/dv = scale * weight * (g - mean of g - u * mean of u g).
            mean_g = _mean(g)
            mean_ug = _mean(torch.sub(v, _rows(mean, v), out=y).mul_(g)).mul_(scale)
            slope = (outer * scale).mul_(mean_ug).neg_()
            shift = (outer * mean_g).addcmul_(mean, slope).neg_()
            torch.addcmul(_rows(shift, v), g, _rows(outer, v), out=y).addcmul_(v, _rows(slope, v))
            if y is not target:
                target.copy_(y)
            values = v.numel() / mean.numel()
            weight_gradients.append(mean_ug.mul_(values))
            bias_gradients.append(mean_g.mul_(values))
        return (
            result,
            None if weight is None else _joined(weight_gradients).sum(0).to(weight.dtype),
            None if bias is None else _joined(bias_gradients).sum(0).to(bias.dtype),
            None,
            None,
        )


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _channels_last(x: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return not x.is_contiguous() and x.ndim in formats and x.is_contiguous(memory_format=formats[x.ndim])


def _dense(x: Tensor) -> Tensor:
    """The same values with channels last in memory if they are, else contiguous."""
    return x if _channels_last(x) else x.contiguous()


def _like(x: Tensor, model: Tensor) -> Tensor:
    """The same values laid out in memory as those of ``model`` are."""
    return x if x.stride() == model.stride() else torch.empty_like(model, dtype=x.dtype).copy_(x)


def _view(x: Tensor, segment: Segment) -> Tensor:
    """The segment of a dense tensor as (n, G, Q, C, S), without a copy."""
    start, ghosts, size = segment
    channels = x.shape[1]
    part = x[start : start + ghosts * size]
    if not _channels_last(x):
        return part.view(ghosts, size, 1, channels, -1)
    positions = x[0, 0].numel()
    together = math.gcd(positions, -(-LONG // channels))
    return part.movedim(1, -1).view(ghosts, -1, together, channels, 1)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _mean(v: Tensor) -> Tensor:
    """Means (n, C) over the ghost batches and their positions of v (n, G, Q, C, S)."""
    n, _, together, channels, positions = v.shape
    if positions >= LONG:
        total = v.sum(4).sum((1, 2))
    elif together * positions > 1:
        total = v.sum(1).sum((1, 3))
    else:
        total = v.sum(1).view(n, channels)
    return total.mul_(total.numel() / v.numel())


def _rows(statistic: Tensor, v: Tensor) -> Tensor:
    """A statistic (n, C) that broadcasts against the rows of v (n, G, Q, C, S)."""
    n, _, together, channels, positions = v.shape
    rows = statistic.view(n, 1, 1, channels, 1)
    return rows if together * positions == 1 else rows.expand(n, 1, together, channels, positions).contiguous()
