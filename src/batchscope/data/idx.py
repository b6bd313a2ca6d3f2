"""The idx format of the MNIST family: a magic number, the sizes, the values, all big-endian."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscope.errors import DataError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> NDArray[Any]:
    """The array in an idx file, gzipped or not; read-only, in the file's byte order.

    Source: the description on the MNIST page of LeCun, Cortes and Burges.

    Raises:
        DataError: If the file is missing, is no idx file, or is cut short or otherwise damaged.
    """
    try:
        return parse_idx(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"cannot read the data file {path}: {error.strerror or error}") from None


def parse_idx(content: bytes, path: Path) -> NDArray[Any]:
    """The array in the bytes of the idx file ``path``, gzipped or not.

    Raises:
        DataError: As for ``read_idx``.
    """
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"the gzip file {path} is damaged ({error}): delete it and get it again") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise DataError(
            f"{path} is no idx file: it must start with 00 00, a type (08 to 0e) and a number of dimensions, "
            f"got {content[:4].hex(' ') or 'an empty file'}"
        )
    dtype, dimensions = np.dtype(_TYPES[content[2]]), content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"the idx file {path} ends inside its header: delete it and get it again")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(
            f"the idx file {path} must have {expected} bytes for its shape {shape}, got {len(content)}: "
            "delete it and get it again"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape)
