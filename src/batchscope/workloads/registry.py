"""Built-in workloads by name: one row a family."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.data import (
    Splits,
    load_cifar10,
    load_cifar100,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    load_tinyshakespeare,
)
from batchscope.data.text import CHARACTERS
from batchscope.errors import WorkloadError
from batchscope.models import (
    SIZES,
    VGG,
    AlexNet,
    CharacterTransformer,
    CifarResNet,
    FullyConnected,
    LSTMLanguageModel,
    MobileNetV2,
    ReducedAlexNet,
    ResNet,
    SimpleCNN,
    WideResNet,
)
from batchscope.spec.workload import Workload
from batchscope.workloads.noisy_quadratic import noisy_quadratic

DROPOUT = 0.4  # Sh19 appendix B

DataDir = str | Path | None
Fields = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """Workloads of one pattern.

    ``expression`` matches their names; its groups are handed to ``build`` with the data folder. ``goals``
    are such as the example reaches in minutes.
    """

    pattern: str
    expression: str
    example: str
    description: str
    goals: tuple[str, ...]
    build: Callable[[Fields, DataDir], Workload]


def _classification(splits: Splits, model: Callable[[], nn.Module]) -> Workload:
    """Cross entropy to train, the share of wrong classes to judge (Sh19 appendix A.2).

    Model, loss and metric are such as another process can be sent.
    """
    return Workload(
        model=model,
        loss=partial(F.cross_entropy, reduction="none"),
        train=splits.train,
        validation=splits.validation,
        metrics={"error": _error},
        test=splits.test,
        remarks=splits.remarks,
    )


def _error(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(-1) != labels).to(torch.float32)


def _language_model(splits: Splits, model: Callable[[], nn.Module]) -> Workload:
    """The mean cross entropy of an example's tokens, in nats (Sh19 appendix A.2), and the share of wrong ones."""
    return Workload(
        model=model,
        loss=_token_loss,
        train=splits.train,
        validation=splits.validation,
        metrics={"error": _token_error},
        test=splits.test,
    )


def _token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(-2, -1), tokens, reduction="none").mean(-1)


def _token_error(logits: Tensor, tokens: Tensor) -> Tensor:
    return _error(logits, tokens).mean(-1)


def _fully_connected(splits: Splits, fields: Fields) -> Workload:
    hidden = tuple(int(units) for units in fields.get("hidden", "").split("-") if units)
    dropout = DROPOUT if fields.get("dropout") else 0.0
    shape = splits.train[0].shape[1:]
    return _classification(splits, partial(FullyConnected, shape, hidden, dropout=dropout))


def _simple_cnn(splits: Splits, fields: Fields) -> Workload:
    dropout = DROPOUT if fields["dropout"] else 0.0
    size = next(size for size in SIZES if size == fields["size"])
    return _classification(splits, partial(SimpleCNN, size=size, dropout=dropout))


# Networks for small images by name, each of its number of classes: Sh19's, ML18's, G18's and S18's.
_SMALL_IMAGE_MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "resnet-8": partial(CifarResNet, 8),
        "resnet-20": partial(CifarResNet, 20, batch_norm=True, pre_activation=False),
        "resnet-32": partial(CifarResNet, 32, batch_norm=True, pre_activation=False),
        "reduced-alexnet": ReducedAlexNet,
        "reduced-alexnet-bn": partial(ReducedAlexNet, batch_norm=True),
        "alexnet": partial(AlexNet, small_images=True),
        "vgg-16": partial(VGG, 16, small_images=True, batch_norm=True),
        "resnet-18": partial(ResNet, 18, small_images=True),
        "resnet-34": partial(ResNet, 34, small_images=True),
        "wrn-16-4": partial(WideResNet, 16, 4),
        "mobilenet-v2": partial(MobileNetV2, small_images=True),
    }
)


def _small_images(splits: Splits, fields: Fields, classes: int) -> Workload:
    return _classification(splits, partial(_SMALL_IMAGE_MODELS[fields["model"]], classes=classes))


def _character_transformer(fields: Fields, folder: DataDir) -> Workload:
    layers, width = int(fields["layers"]), int(fields["width"])
    heads = next(heads for heads in range(max(width // 32, 1), 0, -1) if width % heads == 0)
    model = partial(CharacterTransformer, CHARACTERS, layers, width, heads)
    return _language_model(load_tinyshakespeare(folder), model)


def _character_lstm(fields: Fields, folder: DataDir) -> Workload:
    layers, width = int(fields["layers"]), int(fields["width"])
    return _language_model(
        load_tinyshakespeare(folder), partial(LSTMLanguageModel, CHARACTERS, layers, width, embedding=width)
    )


_MODELS = "|".join(_SMALL_IMAGE_MODELS)
_LAYERS_AND_WIDTH = r"(?P<layers>[1-9]\d?)x(?P<width>[1-9]\d*)"
_HIDDEN = r"(?P<hidden>[1-9]\d*(-[1-9]\d*)*)"
_OR_DROPOUT = r"(?P<dropout>-dropout)?"

FAMILIES = (
    Family(
        "digits/softmax",
        r"digits/softmax",
        "digits/softmax",
        "softmax regression on the 8x8 digits of scikit-learn (no download)",
        ("validation/error < 0.06", "validation/error < 0.05"),
        lambda fields, _: _fully_connected(load_digits(), fields),
    ),
    Family(
        "digits/mlp-N1-...[-dropout]",
        rf"digits/mlp-{_HIDDEN}{_OR_DROPOUT}",
        "digits/mlp-32",
        "hidden layers of N1, ... units on the digits of scikit-learn (no download)",
        ("validation/error < 0.05", "validation/error < 0.04"),
        lambda fields, _: _fully_connected(load_digits(), fields),
    ),
    Family(
        "mnist/fc-N1-...[-dropout]",
        rf"mnist/fc-{_HIDDEN}{_OR_DROPOUT}",
        "mnist/fc-256",
        "hidden layers of N1, ... units on MNIST (Sh19: with dropout 0.4)",
        ("validation/error < 0.05", "validation/error < 0.03"),
        lambda fields, folder: _fully_connected(load_mnist(folder), fields),
    ),
    Family(
        "mnist/simple-cnn-(narrow|base|wide)[-dropout]",
        rf"mnist/simple-cnn-(?P<size>narrow|base|wide){_OR_DROPOUT}",
        "mnist/simple-cnn-base",
        "Simple CNN of Sh19 on MNIST (Sh19: with dropout 0.4)",
        ("validation/error < 0.02", "validation/error < 0.01"),
        lambda fields, folder: _simple_cnn(load_mnist(folder), fields),
    ),
    Family(
        "fashion_mnist/fc-N1-...[-dropout]",
        rf"fashion_mnist/fc-{_HIDDEN}{_OR_DROPOUT}",
        "fashion_mnist/fc-256",
        "hidden layers of N1, ... units on Fashion-MNIST (Sh19: with dropout 0.4)",
        ("validation/error < 0.17", "validation/error < 0.15"),
        lambda fields, folder: _fully_connected(load_fashion_mnist(folder), fields),
    ),
    Family(
        "fashion_mnist/simple-cnn-(narrow|base|wide)[-dropout]",
        rf"fashion_mnist/simple-cnn-(?P<size>narrow|base|wide){_OR_DROPOUT}",
        "fashion_mnist/simple-cnn-base",
        "Simple CNN of Sh19 on Fashion-MNIST (Sh19: with dropout 0.4)",
        ("validation/error < 0.12", "validation/error < 0.1"),
        lambda fields, folder: _simple_cnn(load_fashion_mnist(folder), fields),
    ),
    Family(
        "cifar10/MODEL",
        rf"cifar10/(?P<model>{_MODELS})",
        "cifar10/resnet-8",
        f"CIFAR-10 with one of {', '.join(_SMALL_IMAGE_MODELS)}",
        ("validation/error < 0.4", "validation/error < 0.3"),
        lambda fields, folder: _small_images(load_cifar10(folder), fields, 10),
    ),
    Family(
        "cifar100/MODEL",
        rf"cifar100/(?P<model>{_MODELS})",
        "cifar100/resnet-8",
        "CIFAR-100 with one of the same models",
        ("validation/error < 0.75", "validation/error < 0.65"),
        lambda fields, folder: _small_images(load_cifar100(folder), fields, 100),
    ),
    Family(
        "tinyshakespeare/char-transformer-LxW",
        rf"tinyshakespeare/char-transformer-{_LAYERS_AND_WIDTH}",
        "tinyshakespeare/char-transformer-2x64",
        "Transformer of L layers and width W, heads of 32 or more, over the characters of Shakespeare's plays",
        ("validation/loss < 2.2", "validation/loss < 2.0"),
        _character_transformer,
    ),
    Family(
        "tinyshakespeare/char-lstm-LxW",
        rf"tinyshakespeare/char-lstm-{_LAYERS_AND_WIDTH}",
        "tinyshakespeare/char-lstm-1x128",
        "LSTM of L layers and width W over the same characters",
        ("validation/loss < 2.2", "validation/loss < 2.0"),
        _character_lstm,
    ),
    Family(
        "noisy_quadratic/D",
        r"noisy_quadratic/(?P<dimension>[1-9]\d*)",
        "noisy_quadratic/100",
        "noisy quadratic in D dimensions: steps to result known in closed form (no download)",
        ("validation/loss < 0.1", "validation/loss < 0.05"),
        lambda fields, _: noisy_quadratic(int(fields["dimension"])),
    ),
)

WORKLOADS: Mapping[str, Family] = MappingProxyType({family.pattern: family for family in FAMILIES})


def find(name: str) -> tuple[Family, Fields]:
    """The family of a built-in name, and the fields read from the name.

    Raises:
        WorkloadError: If there is none; it names the nearest.
    """
    for family in FAMILIES:
        if match := re.fullmatch(family.expression, name):
            return family, {field: value or "" for field, value in match.groupdict().items()}
    near = difflib.get_close_matches(name, [family.example for family in FAMILIES], n=2, cutoff=0.5)
    pattern = "".join(
        f" ({family.pattern})" for family in FAMILIES if near and family.example == near[0] != family.pattern
    )
    raise WorkloadError(
        f"there is no workload {name!r}. "
        + (f"Did you mean {' or '.join(near)}{pattern}? " if near else "")
        + "batchscope workloads  lists the built-in ones; your own is written  path/to/file.py:function"
    )
