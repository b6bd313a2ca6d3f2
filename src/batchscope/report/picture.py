"""The steps-to-result curve as a still picture: plain SVG, for a README or a page without JavaScript."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import polars as pl

from batchscope.amounts import number
from batchscope.analysis import Curve
from batchscope.report import figures
from batchscope.report.palette import DARK, LIGHT, stylesheet
from batchscope.report.wording import escape

WIDTH, HEIGHT = 820, 470
LEFT, RIGHT, TOP, BOTTOM = 78, 22, 58, 58
_DASHES = ("", "9 5", "2 4", "10 4 2 4")
_NAME = "batchscope-picture"
_STYLE = (
    f".{_NAME}{{{stylesheet(LIGHT)}}}"
    f"@media screen and (prefers-color-scheme:dark){{.{_NAME}{{{stylesheet(DARK)}}}}}"
    f".{_NAME} text{{fill:var(--ink);font:13px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}}"
    f".{_NAME} .faint{{fill:var(--muted);font-size:12px}}"
    f".{_NAME} .title{{font-size:16px;font-weight:600}}"
)
Place = Callable[[float], float]


def steps_to_result(curves: Sequence[Curve], *, title: str = "") -> str:
    """An SVG document of one or more goals, log-log: curves, intervals, perfect scaling, regimes of the first.

    It has the colours of light and of dark, and needs nothing from outside.

    Args:
        curves: Of one run.
        title: Stands above the picture.
    """
    tables = [figures.steps_to_result(curve) for curve in curves]
    counts = [
        float(count)
        for table in tables
        for column in ("shown", "shown_low", "shown_high")
        for count in table[column].drop_nulls()
        if count > 0
    ]
    sizes = sorted({size for table in tables for size in table["batch_size"]})
    if not sizes or not counts:
        return _document(title, [_text(WIDTH / 2, HEIGHT / 2, "no batch size has reached the goal", "middle")])
    x = _scale(sizes[0], sizes[-1], LEFT, WIDTH - RIGHT, 1.15)
    y = _scale(min(counts), max(counts), HEIGHT - BOTTOM, TOP, 1.35)
    parts = [*_regimes(curves[0], x), *_grid(sizes, counts, x, y)]
    parts.append(_path(_points(tables[0], "perfect_scaling", x, y), 'stroke="var(--muted)" stroke-dasharray="7 5"'))
    for index, table in enumerate(tables):
        parts += _curve(table, index, x, y)
    if len(curves) > 1 and not figures.regimes(curves[0]).is_empty():
        parts.append(_text(WIDTH - RIGHT, 32, f"shaded: regimes of {curves[0].goal}", "end", "faint"))
    hollow = any((table.drop_nulls("shown")["validated"] == False).any() for table in tables)  # noqa: E712
    return _document(title, parts + _legend(curves, hollow))


def _scale(low: float, high: float, start: float, end: float, room: float) -> Place:
    first, last = math.log(low / room), math.log(high * room)
    return lambda value: start + (math.log(value) - first) / (last - first) * (end - start)


def _document(title: str, parts: Iterable[str]) -> str:
    heading = title or "Steps to result against batch size"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{_NAME}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(heading)}"><title>{escape(heading)}</title><style>{_STYLE}</style>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="var(--paper)"/>'
        f'<clipPath id="{_NAME}-plot"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>'
        + _text(LEFT, 32, heading, "start", "title")
        + "".join(parts)
        + "</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "", extra: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}{extra}>{escape(text)}</text>'


def _path(points: Sequence[tuple[float, float]], style: str, end: str = "") -> str:
    if not points:
        return ""
    d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + end
    return f'<path d="{d}" fill="none" stroke-width="2" clip-path="url(#{_NAME}-plot)" {style}/>'


def _points(table: pl.DataFrame, column: str, x: Place, y: Place) -> list[tuple[float, float]]:
    return [(x(size), y(count)) for size, count in table.select("batch_size", column).drop_nulls().rows()]


def _curve(table: pl.DataFrame, index: int, x: Place, y: Place) -> list[str]:
    colour = f"var(--series-{index % len(LIGHT.series) + 1})"
    parts = []
    rows = table.select("batch_size", "shown_low", "shown_high").rows()
    for known, group in groupby(rows, key=lambda row: None not in row):
        run = list(group)
        if known:
            edge = [(x(row[0]), y(row[1])) for row in run] + [(x(row[0]), y(row[2])) for row in run[::-1]]
            band = f'style="fill:var(--bands-{index % len(LIGHT.bands) + 1})" stroke="none"'
            parts.append(_path(edge, band, "Z"))
    line = _points(table, "shown", x, y)
    dash = _DASHES[index % len(_DASHES)]
    parts.append(_path(line, f'style="stroke:{colour}" stroke-linejoin="round" stroke-dasharray="{dash}"'))
    checked = table.drop_nulls("shown")["validated"].to_list()
    for (left, top), valid in zip(line, checked, strict=True):
        fill = "var(--paper)" if valid is False else colour
        parts.append(
            f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4.5" fill="{fill}" stroke="{colour}" stroke-width="2"/>'
        )
    return parts


def _regimes(curve: Curve, x: Place) -> list[str]:
    colours = {"perfect scaling": "perfect", "diminishing returns": "diminishing"}
    parts = []
    for regime, start, end in figures.regimes(curve).iter_rows():
        left, right = x(start), x(end)
        parts.append(
            f'<rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}" '
            f'fill="var(--{colours.get(regime, "maximal")})"/>'
        )
        parts += _label(regime, left, right)
    return parts


def _label(regime: str, left: float, right: float) -> list[str]:
    """The whole name of a regime: in one line, in a line for each word, or upright where it is narrower than a word."""
    middle, width = (left + right) / 2, right - left
    words = regime.split()
    if width > 7 * len(regime):
        return [_text(middle, TOP + 18, regime, "middle", "faint")]
    if width > 6.2 * max(map(len, words)):
        return [_text(middle, TOP + 18 + 15 * row, word, "middle", "faint") for row, word in enumerate(words)]
    turned = f' transform="rotate(-90 {middle + 4:.1f} {TOP + 10})"'
    return [_text(middle + 4, TOP + 10, regime, "end", "faint", turned)] if width > 8 else []


def _grid(sizes: Sequence[int], counts: Sequence[float], x: Place, y: Place) -> list[str]:
    line = '<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="var(--grid)"/>'
    low, high = math.ceil(math.log2(sizes[0])), math.floor(math.log2(sizes[-1]))
    step = 1 if high - low < 12 else 2
    parts = []
    for size in [2**power for power in range(low, high + 1, step)]:
        parts.append(line.format(x(size), TOP, x(size), HEIGHT - BOTTOM))
        parts.append(_text(x(size), HEIGHT - BOTTOM + 20, number(size), "middle", "faint"))
    first, last = math.floor(math.log10(min(counts))), math.ceil(math.log10(max(counts)))
    marks = (1, 2, 5) if last - first < 4 else (1,)
    for count in [mark * 10.0**power for power in range(first, last + 1) for mark in marks]:
        if TOP <= y(count) <= HEIGHT - BOTTOM:
            parts.append(line.format(LEFT, y(count), WIDTH - RIGHT, y(count)))
            parts.append(_text(LEFT - 8, y(count) + 4, number(count), "end", "faint"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "batch size (examples)"))
    turned = f' transform="rotate(-90 18 {middle:.0f})"'
    return [*parts, _text(18, middle, "steps to the goal", "middle", "", turned)]


def _legend(curves: Sequence[Curve], hollow: bool) -> list[str]:
    entries = [
        (str(curve.goal), f"var(--series-{index % len(LIGHT.series) + 1})", _DASHES[index % len(_DASHES)])
        for index, curve in enumerate(curves)
    ]
    parts = []
    for index, (label, colour, dash) in enumerate([*entries, ("perfect scaling", "var(--muted)", "7 5")]):
        top = TOP + 58 + 22 * index
        right = WIDTH - RIGHT - 14
        parts.append(
            f'<line x1="{right - 34}" x2="{right}" y1="{top - 4}" y2="{top - 4}" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>' + _text(right - 42, top, label, "end")
        )
    if hollow:
        top, right = TOP + 58 + 22 * (len(entries) + 1), WIDTH - RIGHT - 14
        style = 'r="4.5" fill="var(--paper)" stroke="var(--ink)" stroke-width="2"'
        parts.append(f'<circle class="key" cx="{right - 17}" cy="{top - 4}" {style}/>')
        parts.append(_text(right - 42, top, "not validated", "end"))
    return parts
