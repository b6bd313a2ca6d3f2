"""CIFAR-10 and CIFAR-100 from the official binary files."""

from __future__ import annotations

import io
import math
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchscope.data.files import DataFile, data_folder, read_verified
from batchscope.data.splits import Splits, shuffled
from batchscope.errors import DataError

VALIDATION_EXAMPLES = 5_000

_SHAPE = (3, 32, 32)
_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets: its archive, the files in it with their sha256, and what a record is.

    A record is ``label_bytes`` bytes, the last of them the class, then the red, green and blue pixels by rows.
    """

    title: str
    name: str
    archive: DataFile
    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    label_bytes: int
    classes: int


CIFAR10 = Cifar(
    title="CIFAR-10",
    name="cifar10",
    archive=DataFile(
        "cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", _MIRRORS
    ),
    folder="cifar-10-batches-bin",
    train={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    },
    test={"test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"},
    label_bytes=1,
    classes=10,
)
CIFAR100 = Cifar(
    title="CIFAR-100",
    name="cifar100",
    archive=DataFile(
        "cifar-100-binary.tar.gz", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", _MIRRORS
    ),
    folder="cifar-100-binary",
    train={"train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"},
    test={"test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"},
    label_bytes=2,
    classes=100,
)


def load_cifar10(data_dir: str | Path | None = None) -> Splits:
    """CIFAR-10 (Krizhevsky 2009): 45,000 training, 5,000 validation, 10,000 test images (Sh19 appendix A.1).

    Images (N, 3, 32, 32) float32, each standardised to mean 0 and standard deviation 1 over its pixels and
    channels, as Sh19 has them; classes (N,) int64. The validation examples are a fixed random part of the
    official training set, the test set is the official one. No augmentation.

    The binary files are looked for in ``cifar10/`` and ``cifar-10-batches-bin/`` of the data folder, and in the
    latter below the former; else the archive is, and is downloaded. Files of the right layout with another
    content are read, and a remark says so. What is cut short, or is not to be had, is a ``DataError``.
    """
    return _load(CIFAR10, data_dir)


def load_cifar100(data_dir: str | Path | None = None) -> Splits:
    """CIFAR-100 with its 100 fine classes, from ``cifar100/`` or ``cifar-100-binary/``, as CIFAR-10."""
    return _load(CIFAR100, data_dir)


def _load(data: Cifar, data_dir: str | Path | None) -> Splits:
    root = data_folder(data_dir)
    contents, remarks = _contents(data, root)
    images, classes = _records(data, [contents[name] for name in data.train], root)
    test_images, test_classes = _records(data, [contents[name] for name in data.test], root)
    order = shuffled(len(classes), "split", data.name)
    held_out, kept = np.split(order, [VALIDATION_EXAMPLES])
    return Splits(
        train=(_standardised(images[kept]), torch.from_numpy(classes[kept])),
        validation=(_standardised(images[held_out]), torch.from_numpy(classes[held_out])),
        test=(_standardised(test_images), torch.from_numpy(test_classes)),
        remarks=remarks,
    )


def _contents(data: Cifar, root: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The bytes of every file: unpacked ones where they lie, else those of the archive."""
    wanted = {**data.train, **data.test}
    places = (root / data.name, root / data.name / data.folder, root / data.folder)
    folder = next((place for place in places if (place / next(iter(wanted))).is_file()), None)
    if folder is None:
        archive, path = read_verified(data.archive, (root / data.name, root))
        return _unpacked(archive, [f"{data.folder}/{name}" for name in wanted], path), ()
    try:
        contents = {name: (folder / name).read_bytes() for name in wanted}
    except OSError as error:
        raise DataError(f"cannot read the data file {error.filename}: {error.strerror or error}") from None
    others = [name for name, content in contents.items() if sha256(content).hexdigest() != wanted[name]]
    remark = (
        f"{folder} has the layout of {data.title}, but not its content ({others[0] if others else ''} has another "
        "sha256): results are not comparable with published ones"
    )
    return contents, (remark,) if others else ()


def _unpacked(archive: bytes, members: list[str], path: Path) -> dict[str, bytes]:
    """The files of an archive by their names, read where they are: nothing is written."""
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in members:
                file = tar.extractfile(member)
                assert file is not None  # the archive is the published one
                contents[member.rsplit("/", 1)[-1]] = file.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"the archive {path} is damaged ({error}): delete it and get it again") from None
    return contents


def _records(data: Cifar, contents: list[bytes], root: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and classes of some files."""
    size = data.label_bytes + math.prod(_SHAPE)
    for content in contents:
        if not content or len(content) % size:
            raise DataError(
                f"a file of {data.title} below {root} must be whole records of {size} bytes, got {len(content)} bytes: "
                f"delete it and get {data.archive.address} again"
            )
    records = np.concatenate([np.frombuffer(content, np.uint8).reshape(-1, size) for content in contents])
    classes = records[:, data.label_bytes - 1].astype(np.int64)
    if (most := int(classes.max())) >= data.classes:
        raise DataError(f"{data.title} has the classes 0 to {data.classes - 1}, got {most} in a file below {root}")
    return records[:, data.label_bytes :].reshape(-1, *_SHAPE), classes


def _standardised(images: NDArray[np.uint8]) -> Tensor:
    """Each image with mean 0 and standard deviation 1; one of a single colour is divided by 1 / sqrt(values).

    The small floor is that of the function by which Sh19's pipeline does it (Abadi et al. 2015).
    """
    pixels = torch.from_numpy(images).to(torch.float32).div_(255)
    for part in torch.split(pixels, 5_000):  # whole, the squares would double the memory
        flat = part.view(len(part), -1)
        flat -= flat.mean(1, keepdim=True)
        flat /= flat.square().mean(1, keepdim=True).sqrt().clamp_(min=1 / math.sqrt(flat.shape[1]))
    return pixels
