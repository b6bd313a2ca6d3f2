"""The page in a real browser: every figure is drawn, nothing is loaded, and what matters is in the window.

``make page`` runs it, with Debian's chromium.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batchscope as bs
from batchscope import workloads
from batchscope.spec.workload import Workload

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "<img src=x onerror=alert(1)><b>bold</b>"
STUDY = """
workload: noisy_quadratic/8
algorithm: {optimizer: momentum}
batch_sizes: [1, 4, 16, 64, 256, 1024, 4096]
search:
  trials: 8
  space: {learning_rate: {min: 0.01, max: 1.5, scale: log}, momentum: {min: 0.3, max: 0.95, scale: reverse_log}}
  confirm: {seeds: 3}
goals: ["validation/loss < 0.3", "validation/loss < 0.2"]
budget: {steps: 400}
evaluation: {ratio: 1.1}
engine: {program: loop, pack_size: 8, threads: 1}
"""
MATTER = ("batch size", "steps", "90%", "learning rate", "momentum")
SIZES = [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose workload has a name that would be markup if it could."""
    study = bs.Study.from_text(STUDY)
    made: Workload = workloads.load(study.workload)
    hostile = study.model_copy(update={"workload": EVIL})
    run = bs.run(hostile, tmp_path_factory.mktemp("page") / "run", workload=made, workers=0)
    return run.folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """The page in a window, with all that went wrong and all that was asked for."""

    def __init__(self, browser: Any, report: Path, width: int, scheme: str) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())
        self.until("window.Plotly")
        self.page.locator(".panel.chosen .plot").first.scroll_into_view_if_needed()
        self.page.wait_for_selector(".plot .main-svg", state="attached", timeout=20_000)

    def until(self, expression: str) -> None:
        """Wait for it; the page itself may not evaluate text, so that it cannot be asked to wait."""
        for _ in range(200):
            if self.page.evaluate(f"Boolean({expression})"):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"never: {expression}")

    def unfold(self) -> None:
        """Open everything, and go past every figure, as a reader would."""
        self.page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        for top in range(0, self.page.evaluate("document.body.scrollHeight"), 700):
            self.page.evaluate(f"scrollTo(0, {top})")
            self.page.wait_for_timeout(40)
        self.until(
            "[...document.querySelectorAll('.plot')].every((plot) => !plot.clientWidth || plot.querySelector('svg'))"
        )


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_every_figure_is_drawn_and_nothing_is_asked_of_the_network(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    opened = Opened(browser, report, width, scheme)
    opened.unfold()
    page = opened.page
    assert opened.faults == []
    assert [url for url in opened.requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".plot").count() > 20
    undrawn = "[...document.querySelectorAll('.plot')].filter((plot) => plot.clientWidth && !plot.querySelector('svg'))"
    assert page.evaluate(f"{undrawn}.length") == 0
    broken = "[...document.querySelectorAll('.plot svg *')].filter((e) => /NaN/.test(e.outerHTML.split('>')[0]))"
    assert page.evaluate(f"{broken}.length") == 0
    paper = page.evaluate("getComputedStyle(document.querySelector('.plot .main-svg')).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 27, 35)")
    opened.context.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_the_columns_that_matter_are_inside_the_window(browser: Any, report: Path, width: int) -> None:
    opened = Opened(browser, report, width, "light")
    heads = opened.page.locator(".panel.chosen table").first.locator("thead th")
    for column, named in enumerate(MATTER):
        assert heads.nth(column).inner_text().replace("\n", " ").startswith(named)
        box = heads.nth(column).bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width, (named, box)
    opened.context.close()


def test_hover_legend_sorting_goals_and_keyboard(browser: Any, report: Path) -> None:
    opened = Opened(browser, report, 1280, "light")
    page = opened.page
    first = page.locator(".panel.chosen .plot").first
    first.scroll_into_view_if_needed()
    point = first.locator(".points path").first
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".hoverlayer text")
    assert "batch size" in (first.locator(".hoverlayer").text_content() or "")
    shown = first.locator(".scatterlayer .trace").count()
    first.locator(".legendtoggle").last.click()  # the fewest of the search, which are hidden at first
    traces = "document.querySelector('.panel.chosen .plot').querySelectorAll('.scatterlayer .trace').length"
    opened.until(f"{traces} != {shown}")
    table = page.locator(".panel.chosen table").first
    head = table.locator("thead th").first
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert table.locator("tbody tr td").first.inner_text() == "4,096"
    page.locator('.choice input[value="goal-1"]').focus()
    page.keyboard.press("ArrowRight")
    assert "0.2" in page.locator(".panel.chosen h2").first.inner_text()
    summary = page.locator("details.part > summary:visible").first
    summary.focus()
    page.keyboard.press("Enter")
    assert summary.evaluate("node => node.parentElement.open")
    assert opened.faults == []
    opened.context.close()


def test_a_hostile_name_is_text(browser: Any, report: Path) -> None:
    opened = Opened(browser, report, 1280, "light")
    assert opened.page.locator("h1").inner_text() == EVIL
    assert opened.page.locator("h1 *, main img, main b:not(svg b)").count() == 0 and opened.page.title() == EVIL
    opened.context.close()
