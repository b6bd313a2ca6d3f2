"""The colours of every chart, for light, for dark, and as names that a page fills in when it knows which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Palette:
    """What a chart is painted with. The series are Okabe and Ito's, which the colour-blind tell apart."""

    paper: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]
    bands: tuple[str, ...]  # the series again, faint: intervals
    ramp: tuple[str, ...]  # for more lines than there are series: from violet to red, neighbours darker and lighter
    perfect: str  # the three regimes, faint
    diminishing: str
    maximal: str
    best: str
    fast: str  # ends of the scale from the fastest trial to the slowest
    slow: str
    infeasible: str

    def lines(self, count: int) -> list[str]:
        """A colour for each of ``count`` lines, none twice as long as the ramp has that many."""
        if count <= len(self.series):
            return list(self.series[:count])
        last = len(self.ramp) - 1
        return [self.ramp[round(position * last / (count - 1))] for position in range(count)]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Every colour with its name: ``("series-2", "#d55e00")``."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                yield from ((f"{field.name}-{position}", colour) for position, colour in enumerate(value, 1))
            else:
                yield field.name, value


LIGHT = Palette(
    paper="#ffffff",
    ink="#1c2530",
    muted="#5b6876",
    grid="#e3e8ee",
    series=("#0072b2", "#d55e00", "#009e73", "#b0508c", "#8a6d00", "#2f8fc4"),
    bands=("#0072b22e", "#d55e002e", "#009e732e", "#b0508c2e", "#8a6d002e", "#2f8fc42e"),
    ramp=(
        "#8317d0",
        "#9071ef",
        "#2f3fe8",
        "#4985eb",
        "#105d93",
        "#1491b4",
        "#0b6363",
        "#119977",
        "#0b672a",
        "#549611",
        "#5e5b0a",
        "#a78213",
        "#7d4f0e",
        "#de6119",
        "#ae2013",
        "#ea468b",
    ),
    perfect="#0072b214",
    diminishing="#e69f0024",
    maximal="#5b68761f",
    best="#e69f00",
    fast="#08306b",
    slow="#9ecae1",
    infeasible="#c2410c",
)
DARK = Palette(
    paper="#151b23",
    ink="#e6edf3",
    muted="#9aa7b4",
    grid="#2b3540",
    series=("#56b4e9", "#ff9a5c", "#3fcf9f", "#e08fc4", "#e5cf4a", "#9cc9f0"),
    bands=("#56b4e938", "#ff9a5c38", "#3fcf9f38", "#e08fc438", "#e5cf4a38", "#9cc9f038"),
    ramp=(
        "#c27ff1",
        "#cec0f8",
        "#8b93f2",
        "#b0c9f6",
        "#3fa2ea",
        "#76d5f0",
        "#13acac",
        "#19e2b0",
        "#14b349",
        "#7de119",
        "#a4a012",
        "#ecc550",
        "#da8918",
        "#f4bd9c",
        "#ef796e",
        "#f7b6d1",
    ),
    perfect="#56b4e91f",
    diminishing="#e69f0026",
    maximal="#9aa7b426",
    best="#f5b62e",
    fast="#d6ecfb",
    slow="#2b5f86",
    infeasible="#ff8a65",
)


def _named(palette: Palette) -> Palette:
    names = {
        field.name: tuple(f"var(--{field.name}-{position})" for position, _ in enumerate(value, 1))
        if isinstance(value := getattr(palette, field.name), tuple)
        else f"var(--{field.name})"
        for field in fields(Palette)
    }
    return replace(palette, **names)  # type: ignore[arg-type]


NAMED = _named(LIGHT)


def stylesheet(palette: Palette) -> str:
    """The colours as CSS custom properties."""
    return " ".join(f"--{name}: {colour};" for name, colour in palette)
