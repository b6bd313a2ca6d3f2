"""Models such as users bring, each with a small workload: one row a model."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from batchscope.spec.workload import Workload

TRAINED, VALIDATED = 40, 1030  # enough to validate for evaluations that end early, the last part a short one
CLASSES = 3


class Then(nn.Module):
    """A module around others, with a forward of its own."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, inputs: Any) -> Any:
        return self._forward(self, inputs)


def conv_view() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    return Then(lambda net, x: net.last((y := net.layers(x)).view(y.size(0), -1)), layers=layers, last=nn.Linear(72, 3))


def grouped() -> nn.Module:
    convolution = nn.Conv2d(3, 6, 3, groups=3, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(2, 6), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(6))


def head(width: int) -> nn.Module:
    return nn.Linear(width, CLASSES)


def recurrent(kind: type[nn.Module]) -> nn.Module:
    rnn = kind(4, 8, num_layers=2, batch_first=True)
    return Then(lambda net, x: net.last(net.rnn(x)[0][:, -1]), rnn=rnn, last=head(8))


class Attention(nn.Module):
    """One causal block, whose output weights are those of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(CLASSES, 8), nn.LayerNorm(8)
        self.project, self.output = nn.Linear(8, 24), nn.Linear(8, CLASSES, bias=False)
        self.output.weight = self.embedding.weight
        self.register_buffer("mask", torch.ones(5, 5, dtype=torch.bool).tril())

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        query, key, value = self.project(self.norm(hidden)).chunk(3, -1)
        mask = self.get_buffer("mask")
        hidden = hidden + F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        outputs: Tensor = self.output(hidden)[:, -1]
        return outputs


class Warming(nn.Module):
    """Another function after a thousand steps, counted in an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = head(6)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, inputs: Tensor) -> Tensor:
        steps = self.get_buffer("steps")
        steps += self.training
        outputs: Tensor = self.last(inputs)
        return outputs * 2 if steps > 1000 else outputs


class Counting(nn.Module):
    """Counts its steps in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.steps = head(6), 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.steps += 1
        outputs: Tensor = self.last(inputs)
        return outputs * 2 if self.steps > 1000 else outputs


class Depth(nn.Module):
    """Stochastic depth by Python's random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), head(6)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs if self.training and random.random() < 0.5 else inputs + torch.tanh(self.first(inputs))
        outputs: Tensor = self.last(hidden)
        return outputs


class Swish(torch.autograd.Function):
    """x sigmoid(x), with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        share: Tensor = x.sigmoid()
        slope: Tensor = gradient * (share + x * share * (1 - share))
        return slope


def swish() -> nn.Module:
    return Then(
        lambda net, x: net.last(Swish.apply(net.first(x))),  # type: ignore[no-untyped-call]
        first=nn.Linear(6, 8),
        last=head(8),
    )


def normed() -> nn.Module:
    first = parametrizations.spectral_norm(nn.Linear(6, 8))
    return nn.Sequential(first, nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, CLASSES)))


def recomputed() -> nn.Module:
    first = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2))
    return Then(
        lambda net, x: net.last(checkpoint(net.first, x, use_reentrant=False)),
        first=first,
        last=head(8),
    )


def along(convolution: nn.Module, norm: nn.Module, pool: nn.Module) -> nn.Module:
    return nn.Sequential(convolution, norm, nn.ReLU(), pool, nn.Flatten(), head(6))


def by_name() -> nn.Module:
    return Then(
        lambda net, x: {"logits": net.first(x["one"]) + net.second(x["two"]), "other": x["one"].sum(-1)},
        first=head(6),
        second=head(2),
    )


def two_headed() -> nn.Module:
    return Then(
        lambda net, x: ((hidden := net.first(x).tanh()) @ net.last.weight.T, hidden),
        first=nn.Linear(6, 8),
        last=head(8),
    )


def in_place() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(0.2), head(8))


def bare_input_in_place() -> nn.Module:
    return nn.Sequential(nn.LeakyReLU(0.5, inplace=True), nn.Linear(6, 8), nn.BatchNorm1d(8), head(8))


def cross_entropy(outputs: Any, targets: Tensor) -> Tensor:
    """Of the first output, whatever else there is."""
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0] if isinstance(outputs, tuple) else outputs
    return F.cross_entropy(logits, targets, reduction="none")


def error(outputs: Any, targets: Tensor) -> Tensor:
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0] if isinstance(outputs, tuple) else outputs
    wrong: Tensor = logits.argmax(-1) != targets
    return wrong.double()


class Rotary(nn.Module):
    """Turns pairs of numbers by angles that a complex buffer holds, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), head(4)
        angles = torch.outer(torch.arange(5.0), torch.tensor([1.0, 0.1]))
        self.register_buffer("turns", torch.polar(torch.ones(5, 2), angles))

    def forward(self, inputs: Tensor) -> Tensor:
        pairs = torch.view_as_complex(self.first(inputs).unflatten(-1, (2, 2)))
        outputs: Tensor = self.last(torch.view_as_real(pairs * self.get_buffer("turns")).flatten(-2).mean(1))
        return outputs


class Augmented(Dataset[Any]):
    """Examples with noise that is drawn anew each time."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index] + 0.1 * torch.randn(6) + 0.1 * random.random(), self.targets[index]


def workload(model: Callable[[], nn.Module], *shape: int, kind: str = "floats") -> Workload:
    """Three classes that the inputs tell apart."""
    generator = torch.Generator().manual_seed(0)
    count = TRAINED + VALIDATED
    targets = torch.randint(CLASSES, (count,), generator=generator)
    inputs: Any = torch.randn(count, *shape, generator=generator) + targets.reshape(-1, *[1] * len(shape))
    if kind == "tokens":
        inputs = torch.randint(CLASSES, (count, *shape), generator=generator)
        inputs[:, 0] = targets
    pairs: list[Any] = [(inputs[:TRAINED], targets[:TRAINED]), (inputs[TRAINED:], targets[TRAINED:])]
    if kind == "dicts":
        pairs = [({"one": one, "two": one[:, :2].clone()}, labels) for one, labels in pairs]
    if kind == "dataset":
        pairs[0] = Augmented(*pairs[0])
    return Workload(model, cross_entropy, pairs[0], pairs[1], {"error": error}, name="zoo", version="1")


MODELS: dict[str, Callable[[], Workload]] = {
    "convolution, batch norm, view": partial(workload, conv_view, 3, 6, 6),
    "grouped convolution, group norm": partial(workload, grouped, 3, 6, 6),
    "GRU": partial(workload, partial(recurrent, nn.GRU), 5, 4),
    "LSTM": partial(workload, partial(recurrent, nn.LSTM), 5, 4),
    "masked attention, tied weights": partial(workload, Attention, 5, kind="tokens"),
    "branch on an integer buffer": partial(workload, Warming, 6),
    "counter in Python": partial(workload, Counting, 6),
    "stochastic depth": partial(workload, Depth, 6),
    "autograd function": partial(workload, swish, 6),
    "spectral and weight norm": partial(workload, normed, 6),
    "activation checkpointing": partial(workload, recomputed, 6),
    "1-d convolution": partial(
        workload, partial(along, nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.AdaptiveMaxPool1d(1)), 2, 8
    ),
    "3-d convolution": partial(
        workload, partial(along, nn.Conv3d(2, 6, 2), nn.BatchNorm3d(6), nn.AdaptiveAvgPool3d(1)), 2, 4, 4, 4
    ),
    "dicts": partial(workload, by_name, 6, kind="dicts"),
    "sparse embedding": partial(
        workload, lambda: nn.Sequential(nn.Embedding(CLASSES, 8, sparse=True), nn.Flatten(), head(40)), 5, kind="tokens"
    ),
    "complex buffer": partial(workload, Rotary, 5, 4),
    "two outputs": partial(workload, two_headed, 6),
    "modules in place": partial(workload, in_place, 6),
    "inputs in place": partial(workload, bare_input_in_place, 6),
    "augmented dataset": partial(
        workload, lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), head(8)), 6, kind="dataset"
    ),
}

# What would go wrong in silence: no graph may ever be taken of these.
NEVER_A_GRAPH = ("branch on an integer buffer", "counter in Python", "stochastic depth", "inputs in place")
