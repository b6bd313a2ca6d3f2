"""Pieces of HTML. Whatever comes from data is escaped here, or is JSON that cannot leave its element."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from batchscope.amounts import NOTHING
from batchscope.report.wording import escape


@dataclass(frozen=True)
class Chart:
    """A figure on the page: ``label`` says in words what it shows, ``file`` is the name of its image."""

    figure: go.Figure
    label: str
    file: str
    caption: str = ""


@dataclass(frozen=True)
class Cell:
    """What a cell of a table shows, and what it is sorted by."""

    text: str
    value: float | str | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table that sorts by any column: plain text, escaped when it is written."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    footer: Sequence[Cell] = ()


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading: paragraphs of plain text, then charts, then tables.

    What is ``folded`` shows its heading, and the rest to who opens it.
    """

    title: str
    paragraphs: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    folded: bool = False


def script_json(document: object) -> str:
    """JSON inside a ``script`` element: no character in it can end the element or begin a comment.

    What JSON has no number for, infinite or not a number, is null.
    """
    finite = json.loads(json.dumps(document), parse_constant=lambda _: None)
    text = json.dumps(finite, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def chart(shown: Chart) -> str:
    """A figure: an empty place for Plotly, its JSON beside it, and a caption."""
    figure = shown.figure.to_plotly_json()
    height = int(figure["layout"].get("height", 400))
    caption = f"<figcaption>{escape(shown.caption)}</figcaption>" if shown.caption else ""
    data = script_json({"data": figure["data"], "layout": figure["layout"]})
    return (
        f'<figure class="chart"><div class="plot" role="img" aria-label="{escape(shown.label)}" '
        f'data-file="{escape(shown.file)}" style="height:{height}px"></div>'
        f'<script type="application/json">{data}</script>{caption}</figure>'
    )


def table(shown: Table) -> str:
    """A table whose heads are buttons: the page sorts by them."""
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in shown.columns)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in shown.rows)
    foot = f"<tfoot><tr>{_cells(shown.footer)}</tr></tfoot>" if shown.footer else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(shown.caption)}"><table>'
        f"<caption>{escape(shown.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}"
        "</table></div>"
    )


def _cells(row: Sequence[Cell]) -> str:
    notes = [f"<small>{escape(cell.note)}</small>" if cell.note else "" for cell in row]
    cells = [f"<td{_sort_key(cell.value)}>{escape(cell.text)}" for cell in row]
    return "".join(f"{cell}{note}</td>" for cell, note in zip(cells, notes, strict=True))


def _sort_key(value: float | str | None) -> str:
    return "" if value is None else f' data-value="{escape(value)}"'


def section(shown: Section, level: int = 2) -> str:
    """A section with its heading."""
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in shown.paragraphs)
    charts = "".join(map(chart, shown.charts))
    grid = f'<div class="grid">{charts}</div>' if len(shown.charts) > 1 else charts
    tables = "".join(map(table, shown.tables))
    heading, body = f"<h{level}>{escape(shown.title)}</h{level}>", f"{paragraphs}{grid}{tables}"
    return folded(heading, body) if shown.folded else f"<section>{heading}{body}</section>"


def folded(heading: str, body: str) -> str:
    """A section of which only the heading is seen until it is opened; both are markup."""
    return f'<details class="part"><summary>{heading}</summary>{body}</details>'


def definitions(values: Mapping[str, Any]) -> str:
    """A description list; nested mappings are flattened, ``hardware / cpu``."""
    rows = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in _flat(values))
    return f"<dl>{rows}</dl>"


def _flat(values: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        here = f"{path} / {key}" if path else str(key)
        if isinstance(value, Mapping):
            rows += _flat(value, here)
        elif isinstance(value, list | tuple):
            rows.append((here, ", ".join(map(str, value))))
        else:
            rows.append((here, NOTHING if value is None else str(value)))
    return [(key.replace("_", " "), value) for key, value in rows]
