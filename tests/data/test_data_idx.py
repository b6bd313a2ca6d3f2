"""The idx reader: its format by hand, and every way in which a file can be damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from batchscope.data import read_idx
from batchscope.errors import DataError

# Two matrices of 1x3 unsigned bytes, written out by hand.
BYTES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 253, 254, 255])


def write(folder: Path, content: bytes) -> Path:
    path = folder / "values-idx3-ubyte.gz"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [BYTES, gzip.compress(BYTES)], ids=["plain", "gzip"])
def test_reads_unsigned_bytes(tmp_path: Path, content: bytes) -> None:
    values = read_idx(write(tmp_path, content))
    assert values.tolist() == [[[1, 2, 3]], [[253, 254, 255]]]


@pytest.mark.parametrize(
    ("code", "format_", "values"),
    [
        (0x09, "b", [-128, 127]),
        (0x0B, "h", [-300, 300]),
        (0x0C, "i", [-70000, 70000]),
        (0x0D, "f", [0.5, -2.0]),
        (0x0E, "d", [0.1, 1e300]),
    ],
)
def test_reads_every_type_big_endian(tmp_path: Path, code: int, format_: str, values: list[float]) -> None:
    header = bytes([0, 0, code, 1]) + struct.pack(">I", len(values))
    read = read_idx(write(tmp_path, header + struct.pack(f">{len(values)}{format_}", *values)))
    np.testing.assert_array_equal(read, np.array(values))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(BYTES)[:-9], "is damaged"),
        (gzip.compress(BYTES)[:20] + b"\xff\xff" + gzip.compress(BYTES)[22:], "is damaged"),
        (b"\x1f\x8b garbage", "is damaged"),
        (b"\x89PNG\r\n", "is no idx file: .* got 89 50 4e 47"),
        (b"", "is no idx file: .* got an empty file"),
        (bytes([0, 0, 7, 1, 0, 0, 0, 0]), "is no idx file: .* got 00 00 07 01"),
        (BYTES[:10], "ends inside its header"),
        (BYTES[:-1], r"must have 22 bytes for its shape \(2, 1, 3\), got 21"),
        (BYTES + b"\0", r"must have 22 bytes for its shape \(2, 1, 3\), got 23"),
    ],
    ids=["cut gzip", "changed gzip", "no gzip", "png", "empty", "no such type", "header", "short", "long"],
)
def test_damage_is_named_with_its_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the data file .*absent-idx1-ubyte"):
        read_idx(tmp_path / "absent-idx1-ubyte")
