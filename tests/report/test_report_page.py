"""The page: self-contained, the same numbers as the summary, and nothing from data but text."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import polars as pl
import pytest

from batchscope.analysis import Curve, Regimes
from batchscope.report import Section, Table, render
from batchscope.report.markup import Cell, script_json
from batchscope.report.wording import plain
from batchscope.spec.goal import Goal
from report.report_study import curve, interval, measurements, summary, table, trials

EVIL = "</script><script>alert('x')</script><img src=http://evil/ onerror=alert(1)>\x00\x1b[31m\u202e\u2028 &amp; \"'"
VOID = {"meta", "input", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """What a reader of the page gets: elements with attributes, scripts, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.packed: list[str] = []
        self.data: list[Any] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, (tag, self._open)
        self._open.pop()

    def handle_data(self, data: str) -> None:
        here = self._open[-1] if self._open else ""
        if here == "script":
            kind = self.elements[-1][1].get("type")
            if kind == "application/json":
                self.data.append(json.loads(data))
            elif kind == "text/plain":
                self.packed.append(data)
            else:
                self.scripts.append(data)
        elif here != "style":
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def page(curves: list[Curve] | None = None, **changes: Any) -> str:
    found = [curve()] if curves is None else curves
    arguments: dict[str, Any] = {
        "trials": trials(),
        "measurements": measurements().lazy(),
        "summary": summary(curve()),
        "study_text": "workload: digits/softmax\n",
        "provenance": {"python": "3.11", "hardware": {"cpu": "a cpu", "cores": 2}, "seeds": [0, 1]},
        "title": "digits/softmax",
    } | changes
    return render(found, arguments.pop("trials"), arguments.pop("measurements"), **arguments)


@pytest.fixture(scope="module")
def usual() -> Page:
    return Page(page())


def test_page_loads_nothing(usual: Page) -> None:
    for reference in usual.attributes("src") + usual.attributes("href"):
        assert reference.startswith(("#", "data:application/json;base64,"))
    assert not {tag for tag, _ in usual.elements} & {"link", "iframe", "object", "embed", "base", "img"}
    style = re.findall(r"<style>.*?</style>", page(), re.DOTALL)
    assert not re.search(r"url\((?!#)|@import|@font-face", "".join(style))


def test_only_the_two_scripts_of_the_page_may_run(usual: Page) -> None:
    (policy,) = [
        attributes["content"]
        for tag, attributes in usual.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    (library,) = (gzip.decompress(base64.b64decode(packed)).decode() for packed in usual.packed)
    codes = [*usual.scripts, library]
    digests = {base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in codes}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == digests
    assert len(codes) == 2 and len(re.findall(r"plotly\.js v\d", library)) == 1
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy


def test_plotly_is_embedded_once_and_packed() -> None:
    text = page([curve(), curve()])
    assert text.count('id="plotly"') == 1 and len(text) < 2_500_000


def test_page_and_summary_have_the_same_numbers(usual: Page) -> None:
    document = summary(curve())
    assert usual.data[-1] == document
    (link,) = [reference for reference in usual.attributes("href") if reference.startswith("data:")]
    assert json.loads(base64.b64decode(link.split(",")[1])) == document
    sorted_by = usual.attributes("data-value")
    for row in document["goals"][0]["curve"]:
        for column in ("batch_size", "steps", "reached", "feasible", "trials", "learning_rate", "momentum"):
            assert row[column] is None or str(row[column]) in sorted_by
    for end in document["goals"][0]["regimes"].values():
        assert f"{round(end['value'])}" in usual.text


def test_answer_provenance_and_study_are_in_the_text(usual: Page) -> None:
    for words in (
        "Doubling the batch size halves the steps up to about 3 (2 to 4)",
        "validation/error < 0.2",
        "hardware / cpu",
        "a cpu",
        "0, 1",
        "workload: digits/softmax",
        "8 trials trained 509 steps on 3,670 examples in 51.7 s; evaluating took 12.9 s, 20% of the time.",
        "Not validated: the best learning_rate is at the edge",
        "Batch size 8, learning rate 0.4, momentum 0.9: at least 40 steps, 2.5 times fewer than 2",
    ):
        assert words in usual.text


def test_charts_have_a_label_and_a_height(usual: Page) -> None:
    plots = [attributes for _, attributes in usual.elements if attributes.get("class") == "plot"]
    assert len(plots) == len(usual.data) - 1
    assert all(plot["aria-label"] and re.fullmatch(r"height:\d+px", plot["style"]) for plot in plots)


def hostile() -> str:
    name = f"hyperparameter/{EVIL}"
    strange = trials().with_columns(pl.lit(EVIL).alias(name), pl.lit(EVIL).alias("status"))
    strange = strange.with_columns(pl.col("trial") + EVIL)
    evaluations = measurements().with_columns(pl.col("trial") + EVIL).rename({"validation/error": EVIL})
    known = table().with_columns(pl.col("trial") + EVIL, pl.lit(EVIL).alias(EVIL), pl.lit(EVIL).alias("reason"))
    found = curve(goal=Goal(EVIL, "<", 0.2), table=known, notes=(EVIL,))
    found = replace(found, regimes=replace(found.regimes, notes=(EVIL,)))
    return page(
        [found, found],
        trials=strange,
        measurements=evaluations,
        summary={"workload": EVIL, EVIL: [EVIL]},
        study_text=EVIL,
        provenance={EVIL: {EVIL: [EVIL]}},
        title=EVIL,
        sections=[Section(EVIL, [EVIL], tables=[Table(EVIL, [EVIL], [[Cell(EVIL, EVIL, EVIL)]])])],
    )


def test_nothing_from_data_becomes_markup() -> None:
    text = hostile()
    strange, again = Page(text), Page(page([curve(), curve()]))
    assert strange.scripts == again.scripts
    assert {tag for tag, _ in strange.elements} == {tag for tag, _ in again.elements}
    assert not [name for _, attributes in strange.elements for name in attributes if name.startswith("on")]
    references = strange.attributes("src") + strange.attributes("href")
    assert all(reference.startswith(("#", "data:application/json")) for reference in references)
    body = text[: text.index('id="plotly"')]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u2028]", body)


def test_what_is_hostile_is_shown_as_it_is() -> None:
    strange = Page(hostile())
    assert strange.text.count(plain(EVIL)) >= 12
    assert strange.data[-1] == {"workload": EVIL, EVIL: [EVIL]}


def test_charts_of_hostile_names_have_text_for_labels() -> None:
    for document in Page(hostile()).data[:-1]:
        found = re.findall(r"<(?!/?b>|br>|/?extra>)", json.dumps(document))
        assert not found


def test_lone_surrogates_can_be_written() -> None:
    page(title="\ud800", study_text="\udfff").encode("utf-8")


def test_script_json_cannot_leave_its_element() -> None:
    text = script_json({"<!--<script>": "</script>&", "number": float("nan"), "far": float("inf")})
    assert not set(text) & set("<>&")
    assert json.loads(text) == {"<!--<script>": "</script>&", "number": None, "far": None}


def test_a_live_page_says_so_and_loads_itself_anew() -> None:
    live = Page(page(live=True))
    assert ("meta", {"http-equiv": "refresh", "content": "10"}) in live.elements
    assert "still going on" in live.text


def test_a_finished_page_stays(usual: Page) -> None:
    assert "refresh" not in usual.attributes("http-equiv")
    assert "still going on" not in usual.text


def test_several_goals_can_be_chosen() -> None:
    several = Page(page([curve(), curve(goal=Goal("validation/error", "<", 0.3))]))
    radios = [attributes for tag, attributes in several.elements if tag == "input"]
    assert [radio["value"] for radio in radios] == ["goal-1", "goal-2"]
    assert [attributes["data-of"] for _, attributes in several.elements if attributes.get("class") == "panel"] == [
        "goal-1",
        "goal-2",
    ]
    assert "All goals" in several.text


def test_a_run_that_has_just_begun_has_a_page() -> None:
    begun = Page(page([], trials=trials().clear(), measurements=measurements().clear(), live=True))
    assert "No batch size has been analysed yet." in begun.text


def test_a_goal_never_reached_and_words_as_hyperparameters_have_a_page() -> None:
    unknown = interval(None)
    nothing = table().with_columns(
        pl.lit(None).alias("steps"),
        pl.lit(None).alias("low"),
        pl.lit(None).alias("high"),
        trial=pl.lit(None, pl.String),
    )
    worded = trials().drop("hyperparameter/momentum", "hyperparameter/learning_rate")
    worded = worded.with_columns(pl.Series("hyperparameter/schedule", ["cosine", "constant"] * 4))
    found = curve(table=nothing, regimes=Regimes(unknown, unknown, unknown))
    assert "No batch size reached validation/error < 0.2" in Page(page([found], trials=worded)).text


def test_sections_are_shown_with_their_parts() -> None:
    part = Section("Recommended", ["because"], tables=[Table("costs", ["devices"], [[Cell("8", 8)]])])
    text = Page(page(sections=[part])).text
    assert "Recommended" in text and "because" in text and "devices" in text


def test_page_is_the_same_every_time() -> None:
    assert page() == page()
