"""Metrics by name: averages over examples, what follows from one, and what needs all outputs at once.

Legend: B examples, C classes; outputs are logits, (B, C), (B, C, ...) or (B, ..., C), or (B,) for two classes.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from batchscope.errors import WorkloadError

if TYPE_CHECKING:
    from torch import Tensor

# Targets that losses of torch leave out, and so do metrics of classes.
IGNORED = -100

_TOP = re.compile(r"top_(?P<k>[1-9]\d{0,4})_(?P<side>accuracy|error)")


@dataclass(frozen=True)
class OfMean:
    """A metric that is a rising function of the mean of another: an evaluation may end early for it."""

    of: str
    value: Callable[[float], float]
    inverse: Callable[[float], float]


@dataclass(frozen=True)
class Gathered:
    """A factory of metrics of torchmetrics: their outputs are kept, and judged together at the end."""

    name: str

    def __call__(self) -> Gathering:
        """For one evaluation."""
        return Gathering(self.name)


class Gathering:
    """Outputs and targets of one evaluation."""

    def __init__(self, name: str) -> None:
        """None yet."""
        self._name = name
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, outputs: Any, targets: Any) -> None:
        """Take those of some examples."""
        self._outputs.append(_tensor(outputs).detach().double())
        self._targets.append(_target(targets).detach())

    def compute(self) -> Tensor:
        """The metric of all of them."""
        import torch

        return _TORCHMETRICS[self._name](torch.cat(self._outputs), torch.cat(self._targets))


def names() -> tuple[str, ...]:
    """Every name, with ``top_K`` for any number."""
    return (*_AVERAGES, "top_K_accuracy", "top_K_error", *_OF_MEANS, *_TORCHMETRICS)


def is_named(name: str) -> bool:
    """Whether a metric is known by a name."""
    return bool(_TOP.fullmatch(name)) or name in {**_AVERAGES, **_OF_MEANS, **_TORCHMETRICS}


def named(name: str) -> Any:
    """The metric of a name.

    Raises:
        WorkloadError: If there is none, with the nearest; or torchmetrics is needed and not installed.
    """
    if match := _TOP.fullmatch(name):
        return partial(top, k=int(match["k"]), side=match["side"])
    if name in _TORCHMETRICS:
        if importlib.util.find_spec("torchmetrics") is None:
            raise WorkloadError(f'the metric {name} is of torchmetrics: type  pip install "batchscope[metrics]"')
        return Gathered(name)
    if name in _AVERAGES or name in _OF_MEANS:
        return _AVERAGES.get(name) or _OF_MEANS[name]
    near = difflib.get_close_matches(name, names(), n=1)
    advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(names())}"
    raise WorkloadError(f"no metric is called {name!r}; {advice}")


def resolved(given: Any) -> dict[str, Any]:
    """Name to metric, of a mapping or of a list of names.

    Raises:
        WorkloadError: If a name is none, or stands for nothing that could be a metric.
    """
    if isinstance(given, str) or not isinstance(given, Mapping | Sequence):
        raise WorkloadError(f'metrics must be a dict such as {{"error": error}}, or a list of names, got {given!r:.80}')
    found = dict(given) if isinstance(given, Mapping) else {name: name for name in given}
    for name, metric in found.items():
        if not isinstance(name, str) or "/" in name or not name or name == "loss":
            raise WorkloadError(f"a metric needs a name without '/', other than 'loss', got {name!r}")
        if isinstance(metric, str):
            found[name] = named(metric)
        elif not callable(metric) and not isinstance(metric, OfMean):
            raise WorkloadError(
                f"the metric {name} must be a function of outputs and targets, a factory of torchmetrics metrics, or "
                f"a name, got {type(metric).__name__}"
            )
    return found


def is_whole(metric: Any) -> bool:
    """Whether a metric needs all outputs at once: a factory of torchmetrics metrics, not a function of examples."""
    if isinstance(metric, Gathered | type) or hasattr(metric, "compute"):
        return True
    if isinstance(metric, partial) and isinstance(metric.func, type):
        return True
    try:
        inspect.signature(metric).bind(None, None)
    except TypeError:
        return True
    except ValueError:  # a function of C, which says nothing of its arguments
        pass
    return False


def is_average(metric: Any) -> bool:
    """Whether a metric is a function that gives one value per example."""
    return not isinstance(metric, OfMean) and not is_whole(metric)


def accuracy(outputs: Any, targets: Any) -> Tensor:
    """(B,) share of right classes: 0 or 1, or a mean over the positions of an example that are not ignored."""
    scores, labels = _tensor(outputs), _target(targets)
    if scores.ndim == labels.ndim or scores.shape[-1:] == (1,):
        return _share((scores.reshape(labels.shape) > 0) == (labels > 0.5), labels)
    return _share(scores.argmax(_classes(scores, labels)) == labels, labels)


def error(outputs: Any, targets: Any) -> Tensor:
    """(B,) share of wrong classes."""
    return 1 - accuracy(outputs, targets)


def top(outputs: Any, targets: Any, *, k: int, side: str = "accuracy") -> Tensor:
    """(B,) whether the right class is among the ``k`` likeliest.

    Raises:
        WorkloadError: If there are no more than ``k`` classes.
    """
    scores, labels = _tensor(outputs), _target(targets)
    axis = _classes(scores, labels)
    if scores.shape[axis] <= k:
        raise WorkloadError(
            f"top_{k}_{side} needs more than {k} classes, the model's outputs have {scores.shape[axis]}"
        )
    hits = _share((scores.topk(k, dim=axis).indices == labels.unsqueeze(axis)).any(axis), labels)
    return hits if side == "accuracy" else 1 - hits


def _share(hits: Tensor, labels: Tensor) -> Tensor:
    hits, counted = hits.flatten(1) if hits.ndim > 1 else hits[:, None], (labels != IGNORED).reshape(len(labels), -1)
    return (hits & counted).sum(1) / counted.sum(1).clamp(min=1)


def _classes(scores: Tensor, labels: Tensor) -> int:
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


def _tensor(outputs: Any) -> Tensor:
    """The logits of what a model returned.

    Raises:
        WorkloadError: If it is no tensor and has none under ``logits``.
    """
    import torch

    found = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(found, torch.Tensor):
        raise WorkloadError(
            "a metric by name needs outputs that are a tensor, or have one under logits, got "
            f"{type(outputs).__name__}: give a function of your own"
        )
    return found


def _target(targets: Any) -> Tensor:
    import torch

    if not isinstance(targets, torch.Tensor):
        raise WorkloadError(
            f"a metric by name needs targets that are a tensor, got {type(targets).__name__}: give a function of your "
            "own"
        )
    return targets


def _two_classes(scores: Tensor, labels: Tensor) -> Tensor | None:
    """(B,) logits of the second of two classes; None where there are more."""
    if scores.ndim == labels.ndim or scores.shape[-1] == 1:
        return scores.reshape(labels.shape)
    return scores[:, 1] - scores[:, 0] if scores.shape[1:] == (2,) else None


def _f1(scores: Tensor, labels: Tensor) -> Tensor:
    """Of the second of two classes; of more, the mean over the classes."""
    from torchmetrics.functional import classification as functions

    two = _two_classes(scores, labels)
    if two is not None:
        return functions.binary_f1_score((two > 0).long(), labels.long())
    axis = _classes(scores, labels)
    kept, count = labels != IGNORED, scores.shape[axis]
    return functions.multiclass_f1_score(scores.argmax(axis)[kept], labels[kept], count, average="macro")


def _auroc(scores: Tensor, labels: Tensor) -> Tensor:
    """Of two classes, or the mean over each class against the others."""
    from torchmetrics.functional import classification as functions

    two = _two_classes(scores, labels)
    if two is not None:
        return functions.binary_auroc(two.sigmoid(), labels.long())
    rows = scores.movedim(_classes(scores, labels), -1).flatten(0, -2)
    kept = labels.flatten() != IGNORED
    return functions.multiclass_auroc(rows.softmax(-1)[kept], labels.flatten()[kept], rows.shape[-1])


def _r2(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of the targets' variance that is explained, a mean over several outputs."""
    from torchmetrics.functional import r2_score

    count = len(targets)
    return r2_score(outputs.reshape(count, -1).squeeze(1), targets.double().reshape(count, -1).squeeze(1))


def _exp(value: float) -> float:
    """Finite for what is finite, for a large loss is no divergence yet."""
    if math.isfinite(value) and value > math.log(sys.float_info.max):
        return sys.float_info.max
    return math.exp(value)


_AVERAGES: dict[str, Callable[[Any, Any], Tensor]] = {"accuracy": accuracy, "error": error}
_OF_MEANS = {"perplexity": OfMean("loss", _exp, lambda value: math.log(value) if value > 0 else -math.inf)}
_TORCHMETRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"f1": _f1, "auroc": _auroc, "r2": _r2}
