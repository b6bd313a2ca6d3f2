"""Right and wrong classes, one value per example.

Legend: B examples, C classes; outputs are logits, (B, C), (B, C, ...) or (B, ..., C), or (B,) for two classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from batchscope.errors import WorkloadError

# Targets that losses of torch leave out, and so do metrics of classes.
IGNORED = -100


def accuracy(outputs: Any, targets: Any) -> Tensor:
    """(B,) share of right classes: 0 or 1, or a mean over the positions of an example that are not ignored."""
    scores, labels = logits(outputs), labels_of(targets)
    if scores.ndim == labels.ndim or scores.shape[-1:] == (1,):
        return _share((scores.reshape(labels.shape) > 0) == (labels > 0.5), labels)
    return _share(scores.argmax(class_axis(scores, labels)) == labels, labels)


def error(outputs: Any, targets: Any) -> Tensor:
    """(B,) share of wrong classes."""
    return 1 - accuracy(outputs, targets)


def top(outputs: Any, targets: Any, *, k: int, side: str = "accuracy") -> Tensor:
    """(B,) whether the right class is among the ``k`` likeliest.

    Raises:
        WorkloadError: If there are no more than ``k`` classes.
    """
    scores, labels = logits(outputs), labels_of(targets)
    axis = class_axis(scores, labels)
    if scores.shape[axis] <= k:
        raise WorkloadError(
            f"top_{k}_{side} needs more than {k} classes, the model's outputs have {scores.shape[axis]}"
        )
    hits = _share((scores.topk(k, dim=axis).indices == labels.unsqueeze(axis)).any(axis), labels)
    return hits if side == "accuracy" else 1 - hits


def _share(hits: Tensor, labels: Tensor) -> Tensor:
    hits, counted = hits.flatten(1) if hits.ndim > 1 else hits[:, None], (labels != IGNORED).reshape(len(labels), -1)
    return (hits & counted).sum(1) / counted.sum(1).clamp(min=1)


def class_axis(scores: Tensor, labels: Tensor) -> int:
    """The dimension of the classes: the second where torch's losses have it, else the last.

    Raises:
        WorkloadError: If the shapes fit neither.
    """
    if scores.ndim > 1 and scores.shape[:1] + scores.shape[2:] == labels.shape:
        return 1
    if scores.shape[:-1] == labels.shape:
        return scores.ndim - 1
    raise WorkloadError(
        f"a metric of classes needs outputs (B, C, ...) or (B, ..., C) and targets (B, ...), got outputs "
        f"{tuple(scores.shape)} and targets {tuple(labels.shape)}: give a function of your own"
    )


def logits(outputs: Any) -> Tensor:
    """The logits of what a model returned.

    Raises:
        WorkloadError: If it is no tensor and has none under ``logits``.
    """
    found = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(found, torch.Tensor):
        raise WorkloadError(
            "a metric by name needs outputs that are a tensor, or have one under logits, got "
            f"{type(outputs).__name__}: give a function of your own"
        )
    return found


def labels_of(targets: Any) -> Tensor:
    if not isinstance(targets, torch.Tensor):
        raise WorkloadError(
            f"a metric by name needs targets that are a tensor, got {type(targets).__name__}: give a function of your "
            "own"
        )
    return targets
