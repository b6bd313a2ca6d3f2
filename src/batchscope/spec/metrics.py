"""Metrics by name, or as users give them: averages over examples, what follows from one, and what needs all outputs."""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from batchscope.errors import WorkloadError
from batchscope.spec.class_metrics import accuracy, error, top
from batchscope.spec.metric_names import TOP, TORCHMETRICS, checked


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

    def __call__(self) -> Any:
        """For one evaluation."""
        from batchscope.spec.gathering import Gathering  # here, because torchmetrics need not be installed

        return Gathering(self.name)


def named(name: str) -> Any:
    """The metric of a name.

    Raises:
        WorkloadError: If torchmetrics is needed and not installed; and if there is none, with the nearest.
    """
    checked([name])
    if match := TOP.fullmatch(name):
        return partial(top, k=int(match["k"]), side=match["side"])
    if name in TORCHMETRICS:
        if importlib.util.find_spec("torchmetrics") is None:
            raise WorkloadError(f'the metric {name} is of torchmetrics: type  pip install "batchscope[metrics]"')
        return Gathered(name)
    return _AVERAGES.get(name) or _OF_MEANS[name]


def resolved(given: Any) -> dict[str, Any]:
    """Name to metric, of a mapping or of a list of names.

    Raises:
        WorkloadError: If a name is none, or stands for nothing that could be a metric.
    """
    if isinstance(given, str) or not isinstance(given, Mapping | Sequence):
        raise WorkloadError(f'metrics must be a dict such as {{"error": error}}, or a list of names, got {given!r:.80}')
    found = dict(given) if isinstance(given, Mapping) else {name: name for name in given}
    for name, metric in found.items():
        if not isinstance(name, str) or "/" in name or not name or name in ("loss", "running_loss"):
            raise WorkloadError(
                f"a metric needs a name without '/', other than 'loss' and 'running_loss', got {name!r}"
            )
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


def _exp(value: float) -> float:
    """Finite for what is finite, for a large loss is no divergence yet."""
    if math.isfinite(value) and value > math.log(sys.float_info.max):
        return sys.float_info.max
    return math.exp(value)


_AVERAGES: dict[str, Callable[[Any, Any], Tensor]] = {"accuracy": accuracy, "error": error}
_OF_MEANS = {"perplexity": OfMean("loss", _exp, lambda value: math.log(value) if value > 0 else -math.inf)}
