"""Ghost batch normalisation: statistics over small ghost batches, whatever the batch size.

Hoffer et al. (2017), "Train longer, generalize better", algorithm 1. A batch is cut along its examples, in order, into
ghost batches, each of which is normalised by its own mean and variance, so that the noise of the statistics, and with
it the objective, does not change with the batch size (S18 section 5 uses ghost batches of 128, Sh19 of 32).

*Running statistics* are those of ordinary batch normalisation that sees the ghost batches one after the other: with
momentum eta, means m_1, ..., m_n in the order of the batch,

    running <- (1 - eta)^n running + sum_i eta (1 - eta)^(n - i) m_i,

the same for the unbiased variances. Algorithm 1 prints the first exponent as the ghost batch size and the second as i;
then the weights do not sum to one, and they do for the number of ghost batches and n - i, which is plainly meant. The
default momentum 0.1 forgets within some 20 ghost batches, be they in one batch or in twenty.

*Accumulation.* A forward pass sees one micro-batch, and no ghost batch reaches beyond it, for its statistics would have
to be known before the first of its examples is normalised. Where the ghost batch size divides the micro-batch size,
accumulation is exact: outputs, gradients and running statistics are those of the whole batch in one pass. A smaller
micro-batch is one ghost batch of its own size; another one leaves its own remainder.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from batchscope.nn.ghost_kernels import normalize, segments

Module = TypeVar("Module", bound=nn.Module)


class _GhostBatchNorm(_BatchNorm):
    """The common part: everything but the number of dimensions, which torch's classes check."""

    def __init__(self, num_features: int, ghost_batch_size: int, **options: Any) -> None:
        super().__init__(num_features, **options)
        self.ghost_batch_size = _checked(ghost_batch_size)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        cut = segments(input.shape[0], self.ghost_batch_size) if self.training else []
        if sum(segment.ghosts for segment in cut) < 2:
            return super().forward(input)
        values = input[0, 0].numel()
        if self.ghost_batch_size * values == 1:
            raise ValueError(
                "a ghost batch needs more than one value per channel, "
                f"got ghost_batch_size 1 and an input of shape {tuple(input.shape)}: write ghost_batch_size 2 or more"
            )
        output, mean, variance = normalize(input, self.weight, self.bias, cut, self.eps)
        if self.running_mean is not None:
            with torch.no_grad():
                first = 0
                for _, ghosts, size in cut:
                    seen = slice(first, first + ghosts)
                    self._follow(mean[seen], variance[seen], size * values)
                    first += ghosts
        return output

    def _follow(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Update the running statistics by the (n, C) statistics of ghost batches of ``values`` values a channel."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        ghosts = mean.shape[0]
        self.num_batches_tracked.add_(ghosts)
        kept = 1 - (self.momentum or 0)
        weights = kept ** torch.arange(ghosts - 1, -1, -1, dtype=mean.dtype, device=mean.device)
        for running, seen, unbiased in (
            (self.running_mean, mean, 1.0),
            (self.running_var, variance, values / (values - 1)),
        ):
            before = running.to(seen.dtype)
            if self.momentum is None:  # the plain average over all ghost batches so far
                after = before + (unbiased * seen - before).sum(0) / self.num_batches_tracked
            else:
                factor = self.momentum * unbiased
                after = kept**ghosts * before + factor * (weights[:, None] * seen).sum(0)
            running.copy_(after)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ghost_batch_size={self.ghost_batch_size}"  # type: ignore[no-untyped-call]


class GhostBatchNorm1d(_GhostBatchNorm, nn.BatchNorm1d):
    """Ghost batch normalisation of (B, C) or (B, C, L): in training over ``ghost_batch_size`` examples at a time.

    A remainder is a ghost batch of its own; of one example, it joins its neighbour. In evaluation, and where the batch
    is no larger than a ghost batch, this is ``torch.nn.BatchNorm1d``, whose other arguments it takes by keyword and
    whose ``state_dict`` it shares. Source: Hoffer et al. (2017), algorithm 1; see the module's docstring for the
    running statistics and for accumulation.
    """


class GhostBatchNorm2d(_GhostBatchNorm, nn.BatchNorm2d):
    """Ghost batch normalisation of (B, C, H, W); otherwise as ``GhostBatchNorm1d``."""


class GhostBatchNorm3d(_GhostBatchNorm, nn.BatchNorm3d):
    """Ghost batch normalisation of (B, C, D, H, W); otherwise as ``GhostBatchNorm1d``."""


_GHOSTS: dict[type[nn.Module], type[_GhostBatchNorm]] = {
    nn.BatchNorm1d: GhostBatchNorm1d,
    nn.BatchNorm2d: GhostBatchNorm2d,
    nn.BatchNorm3d: GhostBatchNorm3d,
}


def convert_ghost_batch_norm(model: Module, ghost_batch_size: int) -> tuple[Module, int]:
    """Turn every batch norm of ``model`` into ghost batch norm, in place; return the model and how many there were.

    Parameters, statistics, hooks, devices and sharing stay as they are, for every module stays the same object: only
    its class changes. Ghost batch norms that are there already get the new size. Subclasses that others made of
    torch's batch norms, ``SyncBatchNorm`` and lazy modules are left alone.
    """
    size = _checked(ghost_batch_size)
    replaced = 0
    for module in model.modules():
        ghost = _GHOSTS.get(type(module))
        if ghost is not None:
            module.__class__ = ghost
        if isinstance(module, _GhostBatchNorm):
            module.ghost_batch_size = size
            replaced += 1
    return model, replaced


def _checked(ghost_batch_size: int) -> int:
    if not isinstance(ghost_batch_size, int) or isinstance(ghost_batch_size, bool) or ghost_batch_size < 1:
        raise ValueError(f"ghost_batch_size must be a whole number of examples, at least 1, got {ghost_batch_size!r}")
    return ghost_batch_size
