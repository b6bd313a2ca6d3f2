"""Tables as a person reads them, printed or in a notebook, and as pandas has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any

import polars as pl

from batchscope.errors import AnalysisError

Rows = Sequence[Sequence[str]]


def as_text(heads: Sequence[str], rows: Rows) -> str:
    """Columns aligned to the right, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    return "\n".join(lines)


def as_html(title: str, paragraphs: Sequence[str], heads: Sequence[str], rows: Rows) -> str:
    """The same for a notebook: whatever stands in data is text."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    told = "".join(f"<p>{escape(text)}</p>" for text in paragraphs)
    return f"<div><b>{escape(title)}</b>{told}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def to_pandas(table: pl.DataFrame) -> Any:
    """A ``pandas.DataFrame``; pyarrow, which polars would want for it, is not needed.

    Raises:
        AnalysisError: If pandas is not installed.
    """
    try:
        pandas = import_module("pandas")
    except ImportError:
        raise AnalysisError("to_pandas needs pandas, which is not installed: pip install pandas") from None
    columns: Mapping[str, list[Any]] = table.to_dict(as_series=False)
    return pandas.DataFrame(columns)
