"""MNIST and Fashion-MNIST from their four official idx files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchscope.data.files import DataFile, data_folder, read_verified
from batchscope.data.idx import parse_idx
from batchscope.data.splits import Splits, shuffled

VALIDATION_EXAMPLES = 5_000

_PARTS = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _files(mirrors: tuple[str, ...], *sha256: str) -> tuple[DataFile, ...]:
    return tuple(DataFile(name, digest, mirrors) for name, digest in zip(_PARTS, sha256, strict=True))


MNIST_FILES = _files(
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
)
FASHION_MNIST_FILES = _files(
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)


def load_mnist(data_dir: str | Path | None = None) -> Splits:
    """MNIST (LeCun et al. 1998): 55,000 training, 5,000 validation, 10,000 test images (Sh19 appendix A.1).

    Images (N, 1, 28, 28) float32 in [0, 1], not standardised; digits (N,) int64. The validation examples are
    a fixed random part of the official training set, the test set is the official one. No augmentation.

    The files are looked for in ``mnist/`` and ``MNIST/raw/`` (torchvision's place) of the data folder, else
    downloaded; one that is damaged, or is not to be had, is a ``DataError``.
    """
    return _load("mnist", "MNIST/raw", MNIST_FILES, data_dir)


def load_fashion_mnist(data_dir: str | Path | None = None) -> Splits:
    """Fashion-MNIST (Xiao et al. 2017), from ``fashion_mnist/`` or ``FashionMNIST/raw/`` as MNIST."""
    return _load("fashion_mnist", "FashionMNIST/raw", FASHION_MNIST_FILES, data_dir)


def _load(name: str, elsewhere: str, files: tuple[DataFile, ...], data_dir: str | Path | None) -> Splits:
    root = data_folder(data_dir)
    arrays = []
    for file in files:
        content, path = read_verified(file, (root / name, root / elsewhere))
        arrays.append(parse_idx(content, path))
    images, labels, test_images, test_labels = arrays
    order = shuffled(len(labels), "split", name)
    held_out, kept = np.split(order, [VALIDATION_EXAMPLES])
    return Splits(
        train=_tensors(images[kept], labels[kept]),
        validation=_tensors(images[held_out], labels[held_out]),
        test=_tensors(test_images.copy(), test_labels.copy()),
    )


def _tensors(images: NDArray[Any], labels: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Pixels 0..255 to [0, 1] with a channel dimension; both arrays must be writable."""
    pixels = torch.from_numpy(images).unsqueeze(1).to(torch.float32).div_(255)
    return pixels, torch.from_numpy(labels).to(torch.int64)
