"""Amounts of memory as people write them and as messages show them: one grammar for every option."""

from __future__ import annotations

import math
import re

from batchscope.errors import StudyError

_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*(?:([KMGT]?)(I?)B|([KMGT]?))\s*", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Bytes of ``8GiB`` (2^30), ``500 MB`` (10^6), ``2G`` (as GiB) or a plain number of them.

    Raises:
        StudyError: If it is no size of at least one byte.
    """
    match = _SIZE.fullmatch(str(text))
    if match is not None:
        prefix = (match[2] or match[4] or "").upper()
        base = 1024 if match[3] or match[4] else 1000
        size = int(float(match[1]) * base ** " KMGT".index(prefix or " "))
        if size >= 1:
            return size
    raise StudyError(f"a size of memory is a number with MB, GB, MiB or GiB, got {text!r}; write 8GiB, say")


def size_text(size: float) -> str:
    """Bytes as one would type them."""
    return f"{math.ceil(size / 2**20)} MiB" if size < 10 * 2**30 else f"{math.ceil(size / 2**30)} GiB"
