"""A workload: data, model, loss and metrics, in the form that a user of PyTorch has them already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from batchscope.errors import WorkloadError
from batchscope.tensors import Tree, leaves, map_tree

PerExample = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Stream:
    """Endless fresh examples instead of a finite training set.

    ``draw(generator, count)`` returns ``(inputs, targets)`` with ``count`` examples along the first dimension and takes
    every random number from ``generator``, which is on the CPU. ``epoch_examples`` says how many count as one epoch.
    """

    draw: Callable[[torch.Generator, int], tuple[Tree, Tree]]
    epoch_examples: int | None = None


IterableFactory = Callable[[int], Iterable[tuple[Any, Any]]]
Data = tuple[Any, Any] | Dataset[Any]
TrainingData = Data | Stream | IterableFactory


@dataclass(frozen=True)
class Workload:
    """What is trained, on what, and how it is judged.

    Attributes:
        model: Builds a fresh ``nn.Module``. Its initial values come from torch's global generator, which is seeded
            before every call.
        loss: ``(outputs, targets) -> (B,)``, one value per example; the mean over the batch is minimised.
        train: Training examples: a pair of tensors ``(inputs, targets)`` (or of tuples or dicts of tensors) with the
            examples along the first dimension; a map-style ``Dataset`` of ``(input, target)``; a ``Stream``; or a
            function ``seed -> iterable of (input, target)``, called once for every epoch.
        validation: Held-out examples: a pair of tensors or a ``Dataset``.
        metrics: Name to ``(outputs, targets) -> (B,)``, one value per example, averaged over the examples; or to a
            factory of ``torchmetrics`` metrics for what is no average. Measured on the validation examples as
            ``validation/NAME``; ``validation/loss`` is always there.
        test: Examples that no decision may see: a pair of tensors or a ``Dataset``.
        name: Shown in reports; the registry and the command line fill it in.
        version: Whatever distinguishes this workload from an earlier one of the same name.
    """

    model: Callable[[], nn.Module]
    loss: PerExample
    train: TrainingData
    validation: Data
    metrics: Mapping[str, Any] = field(default_factory=dict)
    test: Data | None = None
    name: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        """Refuse what could only fail later, in the middle of a run."""
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
        for role, data in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if isinstance(data, tuple):
                _check_pair(role, data)
            elif role == "train" and (isinstance(data, Stream) or callable(data)):
                continue
            elif data is not None and not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
                kind = type(data).__name__
                raise WorkloadError(f"{role} must be a pair (inputs, targets) or a map-style Dataset, got {kind}")
        for name in self.metrics:
            if "/" in name or not name or name == "loss":
                raise WorkloadError(f"a metric needs a name without '/', other than 'loss', got {name!r}")

    @property
    def train_size(self) -> int | None:
        """Examples in one epoch; None where the data has no end and no stated epoch."""
        if isinstance(self.train, Stream):
            return self.train.epoch_examples
        if isinstance(self.train, tuple):
            return int(next(leaves(self.train[0])).shape[0])
        return len(self.train) if hasattr(self.train, "__len__") else None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The columns that a run of this workload measures, and that goals can name."""
        return ("train/loss", "validation/loss", *(f"validation/{name}" for name in self.metrics))

    def fresh_module(self) -> nn.Module:
        """What ``model`` builds.

        Raises:
            WorkloadError: If it is no module.
        """
        module = self.model()
        if not isinstance(module, nn.Module):
            raise WorkloadError(f"model() must return a torch.nn.Module, got {type(module).__name__}; does it return?")
        return module

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the name, the version, the model's shape and the data."""
        digest = hashlib.sha256(repr((self.name, self.version, sorted(self.metrics))).encode())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for name, value in self.fresh_module().state_dict().items():
                digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        for data in (self.train, self.validation):
            if isinstance(data, tuple):
                for tensor in leaves(tuple(data)):
                    digest.update(f"{tensor.dtype}:{tuple(tensor.shape)}".encode())
                    digest.update(_sample(tensor))
            else:
                digest.update(f"{type(data).__name__}:{len(data) if hasattr(data, '__len__') else ''}".encode())
        return digest.hexdigest()[:16]


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
    chosen = torch.linspace(0, tensor.shape[0] - 1, min(examples, tensor.shape[0])).long()
    return bytes(tensor[chosen].cpu().contiguous().flatten().view(torch.uint8).numpy())


def as_tensors(data: Data) -> tuple[Tree, Tree]:
    """A pair of tensors as it is; a map-style Dataset read once, its examples stacked.

    Raises:
        WorkloadError: If an example is not an ``(input, target)`` pair of one shape.
    """
    if isinstance(data, tuple):
        return data[0], data[1]
    try:
        examples = [data[i] for i in range(len(data))]  # type: ignore[arg-type]
        inputs, targets = torch.utils.data.default_collate(examples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WorkloadError(f"every item of a Dataset must be an (input, target) pair of one shape: {error}") from None
    return map_tree(torch.as_tensor, inputs), map_tree(torch.as_tensor, targets)
