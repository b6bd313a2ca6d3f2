"""Tables of rows of which the first stand for all by default; the others run with the slow tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def first(count: int, rows: Sequence[Any]) -> list[Any]:
    """The rows of a table, as ``pytest.mark.parametrize`` takes them, all but ``count`` of them marked slow."""
    rest = [row if isinstance(row, tuple) else (row,) for row in rows[count:]]
    return [*rows[:count], *(pytest.param(*row, marks=pytest.mark.slow) for row in rest)]
