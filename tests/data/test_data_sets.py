"""The data sets: sizes, splits that never change, and values as in the files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from batchscope.data import Splits, load_digits, load_fashion_mnist, load_mnist, load_tinyshakespeare
from batchscope.data.files import DataFile
from batchscope.data.mnist import FASHION_MNIST_FILES, MNIST_FILES
from batchscope.data.splits import shuffled
from batchscope.errors import DataError

PINNED = {
    "digits": "62af42f8dac9fccb",
    "mnist": "677f46dc3b2630b8",
    "fashion_mnist": "5716a5215c2eba94",
}


def rows(*parts: tuple[Tensor, Tensor]) -> list[bytes]:
    """Every example as bytes, label included, sorted: a multiset."""
    return sorted(
        image.numpy().tobytes() + bytes([int(label)])
        for images, labels in parts
        for image, label in zip(images, labels, strict=True)
    )


def pinned(splits: Splits) -> str:
    """A hash of the labels in the order of the splits: it changes when an example moves."""
    labels = torch.cat([splits.train[1], splits.validation[1], splits.test[1]])
    return hashlib.sha256(labels.to(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def test_shuffled_is_a_permutation_that_never_changes() -> None:
    assert shuffled(10, "split", "test").tolist() == [5, 9, 0, 8, 1, 2, 3, 7, 6, 4]
    assert sorted(shuffled(1000, 1)) == list(range(1000))
    assert shuffled(1000, 1).tolist() != shuffled(1000, 2).tolist()


def test_digits_are_split_without_loss_or_overlap() -> None:
    from sklearn.datasets import load_digits as load

    splits = load_digits()
    assert [len(labels) for _, labels in (splits.train, splits.validation, splits.test)] == [1297, 250, 250]
    everything = (torch.tensor(load().images, dtype=torch.float32) / 16, torch.tensor(load().target))
    assert rows(splits.train, splits.validation, splits.test) == rows(everything)
    assert pinned(splits) == PINNED["digits"]


def test_digits_are_stratified_and_the_training_order_is_random() -> None:
    splits = load_digits()
    everywhere = torch.cat([splits.train[1], splits.validation[1], splits.test[1]]).bincount()
    for _, labels in (splits.validation, splits.test):
        assert ((labels.bincount() - everywhere * 250 / 1797).abs() <= 2).all()
    first = splits.train[1][:200].bincount(minlength=10)
    assert first.min() >= 8  # 20 expected of each; sorted labels would give none of most


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "load"), [("mnist", load_mnist), ("fashion_mnist", load_fashion_mnist)], ids=["mnist", "fashion"]
)
def test_mnist_family(name: str, load: Callable[[Path], Splits], data_dir: Path) -> None:
    splits = load(data_dir)
    for (images, labels), count in zip(
        (splits.train, splits.validation, splits.test), (55_000, 5_000, 10_000), strict=True
    ):
        assert images.shape == (count, 1, 28, 28)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert images.min() == 0 and images.max() == 1
        # What is scaled by 1/255 comes back to whole numbers.
        pixels = images[:100] * 255
        torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-4)
    # The official training sets: 60,000 images; 6,000 of every article, and MNIST's published digit counts.
    counts = torch.cat([splits.train[1], splits.validation[1]]).bincount().tolist()
    published = {
        "mnist": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        "fashion_mnist": [6000] * 10,
    }
    assert counts == published[name]
    assert pinned(splits) == PINNED[name]


@pytest.mark.data
def test_mnist_images_keep_their_labels(data_dir: Path) -> None:
    """The first test image is the 7 that every tutorial shows; the nearest mean is right 4 times in 5."""
    splits = load_mnist(data_dir)
    assert splits.test[1][:5].tolist() == [7, 2, 1, 0, 4]
    images, labels = splits.train[0].flatten(1), splits.train[1]
    means = torch.stack([images[labels == digit].mean(0) for digit in range(10)])
    for part in (splits.validation, splits.test):
        nearest = torch.cdist(part[0].flatten(1), means).argmin(1)
        assert (nearest == part[1]).float().mean() > 0.78


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "files", "md5"),
    [
        (
            "mnist",
            MNIST_FILES,
            [
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ],
        ),
        (
            "fashion_mnist",
            FASHION_MNIST_FILES,
            [
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ],
        ),
    ],
    ids=["mnist", "fashion"],
)
def test_our_sha256_are_of_the_files_with_the_published_md5(
    folder: str, files: tuple[DataFile, ...], md5: list[str], data_dir: Path
) -> None:
    for file, published in zip(files, md5, strict=True):
        content = (data_dir / folder / file.name).read_bytes()
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() == published
        assert hashlib.sha256(content).hexdigest() == file.sha256


@pytest.mark.data
def test_torchvision_layout_is_found_and_damage_named(tmp_path: Path, data_dir: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    shutil.copytree(data_dir / "fashion_mnist", raw, copy_function=shutil.copyfile)
    there = load_fashion_mnist(tmp_path)
    assert pinned(there) == PINNED["fashion_mnist"]
    labels = raw / "train-labels-idx1-ubyte.gz"
    content = bytearray(labels.read_bytes())
    content[1000] ^= 1
    labels.write_bytes(content)
    with pytest.raises(DataError, match=f"{labels} is damaged"):
        load_fashion_mnist(tmp_path)


def test_splits_do_not_depend_on_numpy_seeding() -> None:
    """The raw stream of PCG64 for seed 0, as numpy documents and will not change."""
    assert int(np.random.PCG64(0).random_raw()) == 11749869230777074271


@pytest.mark.data
def test_shakespeare_is_cut_into_windows_that_follow_each_other(data_dir: Path) -> None:
    """Inputs and targets are the text, shifted by one, in its three parts; every character of 65 has a number."""
    text = (data_dir / "tinyshakespeare" / "input.txt").read_text(encoding="ascii")
    characters = sorted(set(text))
    splits = load_tinyshakespeare(data_dir, context=50)

    def read(tokens: Tensor) -> str:
        return "".join(characters[token] for token in tokens.flatten().tolist())

    start, end = len(text) * 90 // 100, len(text) * 95 // 100
    inputs, targets = splits.validation
    assert inputs.shape[1] == 50 and inputs.dtype == torch.int64
    assert read(inputs) == text[start : start + inputs.numel()] and start + inputs.numel() > end - 52
    assert read(targets) == text[start + 1 : start + 1 + targets.numel()]
    assert read(splits.test[0]) == text[end : end + splits.test[0].numel()]
    inputs, targets = splits.train
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    windows = {text[at : at + 50] for at in range(0, start - 50, 50)}
    assert {read(window) for window in inputs} == windows
    assert read(inputs[0]) != text[:50]
