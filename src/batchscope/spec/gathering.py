"""Metrics of torchmetrics by name: of all outputs at once, which are logits.

Legend: N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional import classification as functions
from torchmetrics.functional import r2_score

from batchscope.spec.class_metrics import IGNORED, class_axis, labels_of, logits


class Gathering:
    """Outputs and targets of one evaluation."""

    def __init__(self, name: str) -> None:
        """None yet."""
        self._name = name
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, outputs: Any, targets: Any) -> None:
        """Take those of some examples."""
        self._outputs.append(logits(outputs).detach().double())
        self._targets.append(labels_of(targets).detach())

    def compute(self) -> Tensor:
        """The metric of all of them."""
        return _TORCHMETRICS[self._name](torch.cat(self._outputs), torch.cat(self._targets))


def _two_classes(scores: Tensor, labels: Tensor) -> Tensor | None:
    """(B,) logits of the second of two classes; None where there are more."""
    if scores.ndim == labels.ndim or scores.shape[-1] == 1:
        return scores.reshape(labels.shape)
    return scores[:, 1] - scores[:, 0] if scores.shape[1:] == (2,) else None


def _f1(scores: Tensor, labels: Tensor) -> Tensor:
    """Of the second of two classes; of more, the mean over the classes."""
    two = _two_classes(scores, labels)
    if two is not None:
        return functions.binary_f1_score((two > 0).long(), labels.long())
    axis = class_axis(scores, labels)
    kept, count = labels != IGNORED, scores.shape[axis]
    return functions.multiclass_f1_score(scores.argmax(axis)[kept], labels[kept], count, average="macro")


def _auroc(scores: Tensor, labels: Tensor) -> Tensor:
    """Of two classes, or the mean over each class against the others."""
    two = _two_classes(scores, labels)
    if two is not None:
        return functions.binary_auroc(two.sigmoid(), labels.long())
    rows = scores.movedim(class_axis(scores, labels), -1).flatten(0, -2)
    kept = labels.flatten() != IGNORED
    return functions.multiclass_auroc(rows.softmax(-1)[kept], labels.flatten()[kept], rows.shape[-1])


def _r2(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of the targets' variance that is explained, a mean over several outputs."""
    count = len(targets)
    return r2_score(outputs.reshape(count, -1).squeeze(1), targets.double().reshape(count, -1).squeeze(1))


_TORCHMETRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"f1": _f1, "auroc": _auroc, "r2": _r2}
