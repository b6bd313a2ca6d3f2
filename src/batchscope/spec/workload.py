"""A workload: data, model, loss and metrics, in the form that a user of PyTorch has them already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from batchscope.errors import WorkloadError
from batchscope.spec import metrics
from batchscope.spec.examples import Examples, Passes, remark, taken_apart, together
from batchscope.tensors import Tree, leaves, size_of

PerExample = Callable[[Any, Any], Tensor]

PER_BATCH = (
    "the loss gives one value for a batch: trials are trained one after the other by the plain loop, which costs small "
    "models a factor of several, and every evaluation takes all validation examples, in fixed batches"
)


@dataclass(frozen=True)
class Stream:
    """Endless fresh examples instead of a finite training set.

    ``draw(generator, count)`` returns ``(inputs, targets)`` with ``count`` examples along the first dimension and takes
    every random number from ``generator``, which is on the CPU. ``epoch_examples`` says how many count as one epoch.
    """

    draw: Callable[[torch.Generator, int], tuple[Tree, Tree]]
    epoch_examples: int | None = None


IterableFactory = Callable[[int], Iterable[tuple[Any, Any]]]
Data = tuple[Any, Any] | Dataset[Any] | DataLoader[Any] | Examples | Passes
TrainingData = Data | Stream | IterableFactory


@dataclass(frozen=True)
class Workload:
    """What is trained, on what, and how it is judged.

    Attributes:
        model: Builds a fresh ``nn.Module``. Its initial values come from torch's global generator, which is seeded
            before every call. Inputs that are a dict are given by keyword where ``forward`` has parameters of their
            names, else as one dict.
        loss: ``(outputs, targets) -> (B,)``, one value per example; the mean over the batch is minimised. With
            ``loss_per="batch"`` it gives one value for the batch, which is minimised as it is.
        train: Training examples: a pair of tensors ``(inputs, targets)`` (or of tuples or dicts of tensors) with the
            examples along the first dimension; a dict of tensors, one of which is the target; a map-style ``Dataset``
            of ``(input, target)`` or of dicts; an ``IterableDataset``; a ``DataLoader``, of which dataset, sampler,
            ``collate_fn`` and workers are used; a ``Stream``; or a function ``seed -> iterable of examples``, called
            once for every epoch.
        validation: Held-out examples: tensors, a ``Dataset`` or a ``DataLoader``.
        metrics: Name to ``(outputs, targets) -> (B,)``, one value per example, averaged over the examples; or to a
            factory of ``torchmetrics`` metrics for what is no average; or to the name of a metric that is known, such
            as ``"accuracy"``; or a list of such names. Measured on the validation examples as ``validation/NAME``;
            ``validation/loss`` is always there. Where a study has a goal on it, ``train/NAME`` and ``train/loss``
            are those of a fixed sample of the training examples.
        test: Examples that no decision may see, in any form of ``validation``: measured where a trial reaches a goal.
        name: Shown in reports; the registry and the command line fill it in.
        version: Whatever distinguishes this workload from an earlier one of the same name.
        target: The key of the target where examples are dicts; not needed where it is labels, label, targets, target
            or y.
        loss_per: ``"example"``, or ``"batch"`` for a loss that compares the examples of a batch.
        evaluation_batch_size: Validation examples in each of the fixed batches that a loss for a batch is averaged
            over; what is left over at the end is left out of it.
        remarks: What is used of the data as it was given, and what its form costs, in words; not to be given.
    """

    model: Callable[[], nn.Module]
    loss: PerExample
    train: TrainingData
    validation: Data
    metrics: Any = field(default_factory=dict)
    test: Data | None = None
    name: str = ""
    version: str = ""
    target: str | None = None
    loss_per: Literal["example", "batch"] = "example"
    evaluation_batch_size: int = 256
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could only fail later, in the middle of a run, and bring data and metrics into one form."""
        for role in ("model", "loss"):
            if not callable(getattr(self, role)):
                raise WorkloadError(f"{role} must be a function, got {type(getattr(self, role)).__name__}")
        if isinstance(self.model, nn.Module):
            kind = type(self.model).__name__
            raise WorkloadError(
                f"model must be a function that builds a fresh module, got one {kind}: every trial begins with weights "
                f"of its own; write  def build(): return {kind}(...)  and model=build"
            )
        if isinstance(self.loss, type):
            kind = self.loss.__name__
            raise WorkloadError(f"loss must be a function (outputs, targets), got the class {kind}; make one of it")
        if self.loss_per not in ("example", "batch"):
            raise WorkloadError(f'loss_per must be "example" or "batch", got {self.loss_per!r}')
        size = self.evaluation_batch_size
        if not isinstance(size, int) or size < 1:
            raise WorkloadError(f"evaluation_batch_size must be a whole number above 0, got {size!r}")
        remarks = list(self.remarks)
        for role in ("train", "validation", "test"):
            data = getattr(self, role)
            if isinstance(data, DataLoader):
                remarks.append(remark(role, data))
            object.__setattr__(self, role, taken_apart(role, data, self.target))
            _check_data(role, getattr(self, role))
        if self.loss_per == "batch" and not remarks.count(PER_BATCH):
            remarks.append(PER_BATCH)
        object.__setattr__(self, "remarks", tuple(remarks))
        object.__setattr__(self, "metrics", metrics.resolved(self.metrics))

    def measuring(self, names: Iterable[str]) -> Workload:
        """With further metrics by name; its own of such a name stay."""
        further = {name: name for name in names if name not in self.metrics}
        return replace(self, metrics={**self.metrics, **further}) if further else self

    @property
    def needs_loop(self) -> str | None:
        """Why only the plain loop can compute it; None where any program may."""
        if self.loss_per == "batch":
            return "the loss gives one value for a batch"
        if isinstance(self.train, Examples | Passes) and self.train.collate is not together:
            return "the batches of a collate_fn may have a shape of their own each time"
        whole = next(iter(self.whole_metrics), None)
        return None if whole is None else f"the metric {whole} is no average over examples"

    @cached_property
    def averages(self) -> dict[str, Any]:
        """The metrics that give one value per example."""
        return {name: metric for name, metric in self.metrics.items() if metrics.is_average(metric)}

    @cached_property
    def whole_metrics(self) -> dict[str, Any]:
        """Factories of the metrics that need all outputs at once."""
        found = {name: metric for name, metric in self.metrics.items() if name not in self.averages}
        return {name: metric for name, metric in found.items() if not isinstance(metric, metrics.OfMean)}

    @cached_property
    def of_means(self) -> dict[str, metrics.OfMean]:
        """The metrics that follow from the mean of another."""
        return {name: metric for name, metric in self.metrics.items() if isinstance(metric, metrics.OfMean)}

    @property
    def train_size(self) -> int | None:
        """Examples in one epoch; None where the data has no end and no stated epoch."""
        if isinstance(self.train, Stream):
            return self.train.epoch_examples
        if isinstance(self.train, tuple):
            return size_of(self.train[0])
        return len(self.train) if hasattr(self.train, "__len__") else None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The columns that a run of this workload measures, and that goals can name."""
        return tuple(f"{data}/{name}" for data in ("validation", "train") for name in ("loss", *self.metrics))

    def fresh_module(self) -> nn.Module:
        """What ``model`` builds.

        Raises:
            WorkloadError: If it is no module, or has parameters that are complex, or without a shape.
        """
        module = self.model()
        if not isinstance(module, nn.Module):
            raise WorkloadError(f"model() must return a torch.nn.Module, got {type(module).__name__}; does it return?")
        for name, parameter in module.named_parameters():
            if nn.parameter.is_lazy(parameter):
                raise WorkloadError(
                    f"the parameter {name} has no shape before the first call of its lazy module: call the model once "
                    "in the function that builds it, such as model(torch.zeros(2, 3)), before it is returned"
                )
            if parameter.is_complex():
                raise WorkloadError(
                    f"the parameter {name} is {parameter.dtype}, and optimizers here update real numbers: keep it as "
                    "nn.Parameter(torch.view_as_real(...)) and call torch.view_as_complex on it in forward"
                )
        return module

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the name, the version, the model's shape and the data."""
        return self._hashes["all"]

    def identity(self) -> dict[str, str]:
        """What the fingerprint is made of, part by part, so that one can tell what has changed."""
        parts = {part: self._hashes[part] for part in ("reading", "model", "data")}
        return {"name": self.name, "version": self.version, "metrics": ", ".join(sorted(self.metrics)), **parts}

    @cached_property
    def _hashes(self) -> dict[str, str]:
        digests = {part: hashlib.sha256() for part in ("all", "names", "reading", "model", "data")}

        def add(part: str, data: bytes) -> None:
            digests["all"].update(data)
            digests[part].update(data)

        add("names", repr((self.name, self.version, sorted(self.metrics))).encode())
        own = (self.target, self.loss_per, self.evaluation_batch_size)
        if own != (None, "example", 256):
            add("reading", repr(own).encode())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for name, value in self.fresh_module().state_dict().items():
                add("model", f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        for data in (self.train, self.validation):
            if isinstance(data, tuple):
                for tensor in leaves(tuple(data)):
                    add("data", f"{tensor.dtype}:{tuple(tensor.shape)}".encode())
                    add("data", _sample(tensor))
            else:
                add("data", f"{type(data).__name__}:{len(data) if hasattr(data, '__len__') else ''}".encode())
        return {part: digest.hexdigest()[:16] for part, digest in digests.items()}


def _check_data(role: str, data: Any) -> None:
    if isinstance(data, tuple):
        _check_pair(role, data)
    elif isinstance(data, Examples | Passes) or (role == "train" and (isinstance(data, Stream) or callable(data))):
        return
    elif not (role == "test" and data is None) and not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        kind = type(data).__name__
        raise WorkloadError(f"{role} must be a pair (inputs, targets), a map-style Dataset or a DataLoader, got {kind}")


def _check_pair(role: str, data: tuple[Any, ...]) -> None:
    if len(data) != 2:
        raise WorkloadError(f"{role} must be a pair (inputs, targets), got a tuple of {len(data)}")
    try:
        sizes = {int(tensor.shape[0]) if tensor.ndim else -1 for tensor in leaves(data)}
    except TypeError as error:
        raise WorkloadError(f"{role}: {error}") from None
    if len(sizes) != 1 or min(sizes) < 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in leaves(data))
        raise WorkloadError(
            f"{role} needs the same number of examples, at least one, along the first dimension of every tensor; "
            f"got the shapes {shapes}"
        )


def _sample(tensor: Tensor, examples: int = 256) -> bytes:
    """Up to ``examples`` examples spread over the data: enough to tell two data sets apart, cheap on any size."""
    last = tensor.shape[0] - 1
    chosen = torch.linspace(0, last, min(examples, last + 1)).long().clamp(max=last)  # in float32, 2**25 - 1 is 2**25
    return bytes(tensor[chosen].cpu().contiguous().flatten().view(torch.uint8).numpy())
