"""The still picture: sound SVG that needs nothing, with points where the numbers are."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import polars as pl
import pytest

from batchscope.analysis import Regimes
from batchscope.report import picture
from report.report_study import curve, interval, table

SVG = "{http://www.w3.org/2000/svg}"


def points(text: str) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(text)
    return [
        (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
        for circle in root.iter(f"{SVG}circle")
        if "class" not in circle.attrib
    ]


def test_points_lie_at_the_logarithms() -> None:
    many = table().with_columns(steps=pl.Series([100, 40, 16]), low=None, high=None)
    (x0, y0), (x1, y1), (x2, y2) = points(picture.steps_to_result([curve(table=many)]))
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.11)  # 2, 8, 32
    assert y2 - y1 == pytest.approx(y1 - y0, abs=0.11)  # 100, 40, 16
    assert y1 > y0  # fewer steps stand lower


def test_perfect_scaling_goes_through_the_cheapest_point() -> None:
    text = picture.steps_to_result([curve()])
    root = ElementTree.fromstring(text)
    (line,) = [path for path in root.iter(f"{SVG}path") if path.attrib.get("stroke") == "var(--muted)"]
    start, *_ = line.attrib["d"].removeprefix("M").split("L")
    assert tuple(map(float, start.split())) == points(text)[0]


def test_points_that_are_not_validated_are_hollow() -> None:
    root = ElementTree.fromstring(picture.steps_to_result([curve()]))
    fills = [circle.attrib["fill"] for circle in root.iter(f"{SVG}circle") if "class" not in circle.attrib]
    assert fills == ["var(--series-1)", "var(--paper)"]


def test_regimes_are_shaded_between_their_ends() -> None:
    root = ElementTree.fromstring(picture.steps_to_result([curve()]))
    shades = [rect for rect in root.iter(f"{SVG}rect") if rect.attrib.get("fill", "").startswith("var(--")][1:]
    assert [shade.attrib["fill"] for shade in shades] == ["var(--perfect)", "var(--diminishing)", "var(--maximal)"]
    widths = [float(shade.attrib["width"]) for shade in shades]
    assert widths[0] / widths[1] == pytest.approx(math.log(3 / 2) / math.log(6 / 3), rel=0.01)


@pytest.mark.parametrize("width", [400.0, 100.0, 75.0, 30.0])
def test_the_name_of_a_regime_is_whole_however_narrow_it_is(width: float) -> None:
    for regime in ("perfect scaling", "diminishing returns", "beyond the maximum useful"):
        parts = picture._label(regime, 100.0, 100.0 + width)
        words = [ElementTree.fromstring(part).text or "" for part in parts]
        assert " ".join(words) == regime
        upright = "rotate" in parts[0]
        assert upright or max(map(len, words)) * 6 < width


def test_hollow_points_are_explained() -> None:
    assert "not validated" in picture.steps_to_result([curve()])
    sound = table().with_columns(validated=pl.lit(True))
    assert "not validated" not in picture.steps_to_result([curve(table=sound)])


def test_picture_has_both_colour_schemes_and_loads_nothing() -> None:
    text = picture.steps_to_result([curve(), curve()], title="a run")
    assert "prefers-color-scheme:dark" in text
    assert not {"script", "image", "use", "foreignObject"} & {
        element.tag.removeprefix(SVG) for element in ElementTree.fromstring(text).iter()
    }
    assert "href" not in text
    assert "shaded: regimes of validation/error &lt; 0.2" in text


def test_hostile_title_is_text() -> None:
    title = "</title><script>alert(1)</script>\x00\"'&"
    root = ElementTree.fromstring(picture.steps_to_result([curve()], title=title))
    assert root.findtext(f"{SVG}title") == title.replace("\x00", "␀")
    assert not list(root.iter(f"{SVG}script"))


@pytest.mark.parametrize("rows", [0, 1])
def test_few_points_or_none_make_a_picture(rows: int) -> None:
    unknown = interval(None)
    few = table().head(1) if rows else table().with_columns(steps=pl.lit(None, pl.Int64), low=None, high=None)
    text = picture.steps_to_result([curve(table=few, regimes=Regimes(unknown, unknown, unknown))])
    assert len(points(text)) == rows
    assert ("no batch size has reached the goal" in text) == (not rows)
