"""Small studies on synthetic data for the tests of engine, executors and runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.engine.training import Loaded, Training
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload

STUDY = """
workload: synthetic
algorithm: {optimizer: nesterov}
batch_sizes: [8]
search:
  trials: 10
  confirm: {seeds: 0}
  space:
    learning_rate: {min: 1e-2, max: 1, scale: log}
    momentum: {min: 0.5, max: 0.95, scale: reverse_log}
goals: ["validation/error < 0.35"]
budget: {steps: 60}
engine: {dtype: float64, program: vmap, pack_size: 5, threads: 1}
"""


def study(*overrides: str) -> Study:
    """The study above, changed."""
    return Study.from_text(STUDY, overrides)


class Plain(nn.Module):
    """A small network with dropout: randomness in the step."""

    def __init__(self, dropout: float = 0.2, norm: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 12), norm(12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs


def normalised() -> Plain:
    """With batch norm: buffers that change in every step."""
    return Plain(norm=nn.BatchNorm1d)


class Convolutional(nn.Module):
    """A small network on images of 3 x 6 x 6."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    """One for a wrong class."""
    return (outputs.argmax(-1) != targets).double()


def classification(model: Callable[[], nn.Module] = Plain) -> Workload:
    """Three overlapping Gaussian classes in six dimensions."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (300,), generator=generator)
    inputs = torch.randn(300, 6, generator=generator) + 1.2 * F.one_hot(labels, 6)
    return Workload(
        model=model,
        loss=partial(F.cross_entropy, reduction="none"),
        train=(inputs[:200], labels[:200]),
        validation=(inputs[200:], labels[200:]),
        metrics={"error": error},
        name="synthetic",
        version="1",
    )


def images() -> Workload:
    """Three classes of noisy images, one bright channel each."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (300,), generator=generator)
    inputs = torch.randn(300, 3, 6, 6, generator=generator) + 0.3 * F.one_hot(labels, 3)[:, :, None, None]
    return replace(
        classification(Convolutional),
        train=(inputs[:200], labels[:200]),
        validation=(inputs[200:], labels[200:]),
    )


def well_validated(**changes: object) -> Workload:
    """The same with 1500 validation examples: enough for evaluations to end early."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (1500,), generator=generator)
    inputs = torch.randn(1500, 6, generator=generator) + 1.2 * F.one_hot(labels, 6)
    return replace(classification(), validation=(inputs, labels), **changes)  # type: ignore[arg-type]


def training(workload: Workload | None = None, *overrides: str, batch_size: int = 8) -> Training:
    """One batch size of the study."""
    loaded = Loaded(workload or classification(), study(*overrides), torch.device("cpu"))
    return Training(loaded, batch_size)
