"""Texts that a spreadsheet would run: quoted with ``'`` where a table becomes CSV, as they were when it is read again.

Spreadsheets take what begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return for a formula, and show what
begins with ``'`` as it stands (OWASP, "CSV Injection"). A number with a sign is no formula.
"""

from __future__ import annotations

from typing import TypeVar

import polars as pl

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)
_TEXT = pl.col(pl.String)


def defused(frame: Frame) -> Frame:
    """``frame`` with one ``'`` before every text that is a formula, or is like one that is quoted already."""
    number = _TEXT.cast(pl.Float64, strict=False).is_not_null()
    return frame.with_columns(pl.when(number).then(_TEXT).otherwise(_TEXT.str.replace(r"^('*[=+\-@\t\r])", "'$1")))


def undefused(frame: Frame) -> Frame:
    """The texts that ``defused`` was given."""
    return frame.with_columns(_TEXT.str.replace(r"^'('*[=+\-@\t\r])", "$1"))
