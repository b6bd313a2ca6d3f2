"""CIFAR from its binary layout: every record once, with its class; what is damaged or another's is said."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from batchscope.data import Splits, cifar, load_cifar10, load_cifar100
from batchscope.data.cifar import CIFAR10, CIFAR100, Cifar
from batchscope.data.files import DataFile
from batchscope.errors import DataError

RECORDS = 3 * 32 * 32


def contents(data: Cifar) -> dict[str, bytes]:
    """Files of one layout: training record n is black but for value n, test record n for value n + 1."""
    found = {}
    per_file = -(-(cifar.VALIDATION_EXAMPLES + 100) // len(data.train))
    for at, name in enumerate([*data.train, *data.test]):
        test = name in data.test
        numbers = np.arange(300) if test else np.arange(at * per_file, (at + 1) * per_file)
        records = np.zeros((len(numbers), data.label_bytes + RECORDS), np.uint8)
        records[:, data.label_bytes - 1] = numbers % data.classes
        records[np.arange(len(numbers)), data.label_bytes + (numbers + test) % RECORDS] = 255
        found[name] = records.tobytes()
    return found


def written(folder: Path, data: Cifar) -> Path:
    folder.mkdir(parents=True)
    for name, content in contents(data).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    root = tmp_path_factory.mktemp("data")
    written(root / "cifar10" / "cifar-10-batches-bin", CIFAR10)
    return load_cifar10(root)


def test_every_record_is_in_one_part_with_its_class(splits: Splits) -> None:
    parts = (splits.train, splits.validation)
    places = torch.cat([images.flatten(1).argmax(1) for images, _ in parts])
    classes = torch.cat([labels for _, labels in parts])
    counts = np.bincount(np.arange(cifar.VALIDATION_EXAMPLES + 100) % RECORDS)
    assert places.bincount().tolist() == counts.tolist()
    # 3,072 values and 10 classes: records n and n + 3,072 share a value and not a class.
    assert set(zip(places.tolist(), classes.tolist(), strict=True)) == {
        (n % RECORDS, n % 10) for n in range(cifar.VALIDATION_EXAMPLES + 100)
    }
    images, labels = splits.test
    assert torch.equal(images.flatten(1).argmax(1), torch.arange(1, 301)) and torch.equal(
        labels, torch.arange(300) % 10
    )
    assert len(splits.validation[1]) == 5_000
    first = splits.train[0][:50].flatten(1).argmax(1)
    assert (first.diff() < 0).any()  # not in the order of the files


def test_images_are_standardised_one_by_one(splits: Splits) -> None:
    """One white value among n black ones: mean p = 1/n, standard deviation sqrt(p (1 - p)), which is above 1/sqrt(n)
    only by rounding: the floor of black images holds here as well.
    """
    image = splits.test[0][0].double()
    p = 1 / RECORDS
    assert image.mean().item() == pytest.approx(0, abs=1e-7)
    assert image.max().item() == pytest.approx((1 - p) / max((p * (1 - p)) ** 0.5, RECORDS**-0.5), rel=1e-5)
    grey = cifar._standardised(np.full((1, 3, 32, 32), 7, np.uint8))
    assert not grey.any()
    noise = cifar._standardised(np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8))
    torch.testing.assert_close(noise.var((1, 2, 3), unbiased=False), torch.ones(3))


def test_content_that_is_not_the_published_one_is_said(splits: Splits) -> None:
    (remark,) = splits.remarks
    assert "has the layout of CIFAR-10, but not its content (data_batch_1.bin" in remark


def test_cifar100_has_the_fine_classes(tmp_path: Path) -> None:
    written(tmp_path / "cifar-100-binary", CIFAR100)
    assert load_cifar100(tmp_path).train[1].max() == 99


def test_the_archive_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: Splits) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in contents(CIFAR10).items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    ours = DataFile(CIFAR10.archive.name, sha256(buffer.getvalue()).hexdigest(), ("https://example.invalid/",))
    monkeypatch.setattr(cifar, "CIFAR10", dataclasses.replace(CIFAR10, archive=ours))
    (tmp_path / ours.name).write_bytes(buffer.getvalue())
    found = load_cifar10(tmp_path)
    assert torch.equal(found.train[0], splits.train[0]) and found.remarks == ()
    assert [path.name for path in tmp_path.iterdir()] == [ours.name]


def test_what_is_cut_short_or_no_class_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "cifar10", CIFAR10)
    last = folder / "data_batch_5.bin"
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"whole records of 3073 bytes, got \d+ bytes: .*cifar-10-binary.tar.gz again"):
        load_cifar10(tmp_path)
    last.write_bytes(bytes([10]) + whole[1:])
    with pytest.raises(DataError, match="has the classes 0 to 9, got 10"):
        load_cifar10(tmp_path)
    last.unlink()
    with pytest.raises(DataError, match=f"cannot read the data file {last}: No such file"):
        load_cifar10(tmp_path)
