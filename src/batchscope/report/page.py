"""The report: one HTML file that holds everything it shows, and asks nothing of any network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import polars as pl
from plotly.offline import get_plotlyjs

from batchscope.amounts import batch_size, counted, duration, number, percent
from batchscope.analysis import Curve, Headline, headline
from batchscope.analysis.outcomes import Outcomes
from batchscope.report import answers, charts, figures, page_tables
from batchscope.report.markup import Chart, Section, definitions, folded, script_json, section
from batchscope.report.palette import DARK, LIGHT, NAMED, stylesheet
from batchscope.report.panels import all_goals, panel
from batchscope.report.wording import escape, plain
from batchscope.spec.goal import Goal

REFRESH = 10  # seconds between two readings of a run that is going on
_ENDS = {
    "perfect_scaling_until": "perfect scaling until",
    "critical_batch_size": "critical batch size",
    "maximum_useful_batch_size": "maximum useful batch size",
}


def render(
    curves: Sequence[Curve],
    trials: pl.DataFrame,
    measurements: pl.LazyFrame | pl.DataFrame,
    *,
    summary: Mapping[str, Any],
    study_text: str,
    provenance: Mapping[str, Any],
    title: str,
    live: bool = False,
    sections: Sequence[Section] = (),
    outcomes: Mapping[Goal, Outcomes] | None = None,
    refused: Mapping[str, str] | None = None,
    first: Headline | None = None,
) -> str:
    """``report.html`` of a run, as text to be written in UTF-8.

    Everything that comes from data is shown as text: no name, whatever its characters, becomes markup or code.

    Args:
        curves: One per goal, in the order of the study.
        trials: All trials of the run.
        measurements: All measurements; a lazy table is never read whole.
        summary: The document of ``summary.json``; the page carries it along.
        study_text: The resolved study file.
        provenance: Versions, hardware, command, seeds: any mapping, nested or not.
        title: What the window is called.
        live: Says that the run is going on, and makes the page load itself anew.
        sections: Further parts, shown after the curves.
        outcomes: What became of the trials for each goal, where it is known already.
        refused: The goals that have no curve, and why.
        first: The answer for the first goal, where more is known than its curve tells.
    """
    known = outcomes or {}
    panels = [
        _panel(index, curve, trials, measurements, known.get(curve.goal)) for index, curve in enumerate(curves, 1)
    ]
    without = [f"{plain(goal)}: {plain(reason)}." for goal, reason in (refused or {}).items()]
    body = [
        _header(curves, trials, summary, live),
        '<main id="main"><noscript><p class="note">The charts need JavaScript; the rest does not.</p></noscript>',
        _answers(curves, first),
        _choice(curves) if len(curves) > 1 else "",
        *panels,
        section(Section("Goals without an answer", without)) if without else "",
        all_goals(curves),
        *(section(part) for part in sections),
        _costs(trials),
        _method(),
        _provenance(provenance, study_text, summary),
        "</main>",
        "<footer>Written by Batchscope. This file holds its own data and code and loads nothing.</footer>",
    ]
    return document(title, "".join(body), summary, live)


def _panel(
    index: int,
    curve: Curve,
    trials: pl.DataFrame,
    measurements: pl.LazyFrame | pl.DataFrame,
    known: Outcomes | None,
) -> str:
    """The panel of a goal; one that cannot be drawn says so, and costs the page nothing else."""
    try:
        return panel(index, curve, trials, measurements, known)
    except Exception as error:
        reason = f"This part could not be drawn ({type(error).__name__}: {plain(error)}); summary.json has its numbers."
        part = section(Section(f"Steps to {plain(curve.goal)}", [reason]))
        return f'<div class="panel" data-of="goal-{index}">{part}</div>'


def document(title: str, body: str, summary: Mapping[str, Any], live: bool) -> str:
    """A whole page around its ``body``, which is markup; it carries the ``summary`` along."""
    library, code = get_plotlyjs(), _resource("page.js")
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (library, code)]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Only these two scripts may run, and nothing may be loaded: a browser holds the page to what it promises.
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; "
        f"script-src {allowed}"
    )
    refresh = f'<meta http-equiv="refresh" content="{REFRESH}">' if live else ""
    style = (
        f":root {{ color-scheme: light dark; {stylesheet(LIGHT)} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {stylesheet(DARK)} }} }}\n"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">{refresh}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="generator" content="Batchscope">'
        f"<title>{escape(title)}</title><style>{style}{_resource('page.css')}</style></head><body>"
        f'<a class="skip" href="#main">Skip to the answers</a>{body}'
        f'<script type="application/json" id="summary">{script_json(summary)}</script>'
        f'<script type="text/plain" id="plotly">{_compressed(library)}</script><script>{code}</script></body></html>\n'
    )


@cache
def _compressed(library: str) -> str:
    """The library as the page carries it, which unpacks it when it is opened: 1.9 MB in the place of 4.7."""
    return base64.b64encode(gzip.compress(library.encode(), 6, mtime=0)).decode()


def _resource(file: str) -> str:
    return files("batchscope.report").joinpath(file).read_text(encoding="utf-8")


def _header(curves: Sequence[Curve], trials: pl.DataFrame, summary: Mapping[str, Any], live: bool) -> str:
    sizes = sorted(set(trials["batch_size"]))
    facts = [counted(trials.height, "trial")]
    if sizes:
        facts.append(
            f"batch size {number(sizes[0])}"
            if len(sizes) == 1
            else f"{len(sizes)} batch sizes from {number(sizes[0])} to {number(sizes[-1])}"
        )
    facts.append(counted(len(curves), "goal"))
    note = (
        '<p class="live" role="status">The run is still going on: every number here can change. '
        f"The page loads itself anew every {REFRESH} seconds.</p>"
        if live
        else ""
    )
    return (
        f'<header><p class="eyebrow">Batchscope report</p><h1>{escape(summary.get("workload", "") or "a run")}</h1>'
        f'<p class="lead">{escape(" · ".join(facts))}</p>{note}</header>'
    )


def _answers(curves: Sequence[Curve], first: Headline | None) -> str:
    if not curves:
        return "<p>No batch size has been analysed yet.</p>"
    found = [headline(curve) for curve in curves]
    cards = [_card(curve, one) for curve, one in zip(curves, [first or found[0], *found[1:]], strict=True)]
    return f'<div class="answers">{"".join(cards)}</div>'


def _card(curve: Curve, found: Headline) -> str:
    """The answer of a goal: what to do, why that can be believed, what matters most against it; the rest is folded."""
    trust = f'<p class="trust">{escape(found.trust)}</p>' if found.trust else ""
    caveats = f'<ul class="caveats" aria-label="Reservations">{_items(found.caveats)}</ul>' if found.caveats else ""
    further = [text for text in (answers.regimes_in_words(curve),) if text]
    more = "".join(f"<p>{escape(text)}</p>" for text in further)
    more += f'<ul class="caveats">{_items(found.further)}</ul>' if found.further else ""
    what = "In words" + (f", and {counted(len(found.further), 'further reservation')}" if found.further else "")
    return (
        f'<article class="answer"><h2>{escape(found.goal)}</h2><p class="do">{escape(found.sentence)}</p>'
        f"{trust}{caveats}{_ends(curve)}"
        f"{f'<details><summary>{what}</summary>{more}</details>' if more else ''}</article>"
    )


def _items(texts: Sequence[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def _ends(curve: Curve) -> str:
    rows = []
    sizes = figures.reached(curve)
    for row in figures.boundaries(curve).iter_rows(named=True):
        if row["place"] != "unknown":
            sides = {"beyond": f"> {batch_size(sizes[-1])}", "below": f"< {batch_size(sizes[0])}"}
            value = escape(sides.get(row["place"], batch_size(row["value"])))
            interval = f"<small>{escape(answers.bounds(row))}</small>"
            rows.append(f"<div><dt>{_ENDS[row['boundary']]}</dt><dd>{value}{interval}</dd></div>")
    return f'<dl class="ends">{"".join(rows)}</dl>' if rows else ""


def _choice(curves: Sequence[Curve]) -> str:
    options = "".join(
        f'<label><input type="radio" name="goal" value="goal-{index}"><span>{escape(curve.goal)}</span></label>'
        for index, curve in enumerate(curves, 1)
    )
    return f'<fieldset class="choice"><legend>Goal</legend>{options}</fieldset>'


def _costs(trials: pl.DataFrame) -> str:
    if trials.is_empty():
        return ""
    costs = figures.costs(trials)
    whole = figures.total(costs).row(0, named=True)
    text = (
        f"{counted(whole['trials'], 'trial')} trained {counted(whole['steps'], 'step')} on "
        f"{number(whole['examples'])} examples in {duration(whole['train_seconds'])}; evaluating took "
        f"{duration(whole['evaluation_seconds'])}, {percent(whole['evaluation_share'])} of the time. "
        f"{counted(whole['diverged'], 'trial')} diverged."
    )
    shown = Chart(charts.trial_counts(costs, NAMED), "How the trials of every batch size ended", "trials")
    return section(Section("Trials and cost", [text], [shown], [page_tables.costs(costs)], folded=True))


def _method() -> str:
    paragraphs = [
        "Steps are the first step at which the metric was strictly beyond the goal, everything tuned anew at every "
        "batch size. What is promised is one fresh training of the setting shown: the best few points of the search "
        "were trained again with new seeds, the choice among them and the number come from different trainings, and "
        "the interval holds one training.",
        "The fewest steps of a search (Shallue and others 2019) are lower, for the fastest of many trials was lucky. "
        "They are shown beside it, for comparison with papers, with the interval of the expected fewest steps over as "
        "many trials as were feasible. Where nothing was trained again they are all there is, and a lower bound.",
        "Perfect scaling: doubling the batch size halves the steps. Diminishing returns: it brings less. Maximal "
        "data parallelism: it brings next to nothing. The critical batch size is where the two asymptotes of the "
        "fitted law meet; the law says nothing beyond the batch sizes that were measured, and is not drawn there. "
        "A point is not validated when it lies near the edge of its search space: a better one may lie outside.",
    ]
    return section(Section("How to read this", paragraphs, folded=True))


def _provenance(provenance: Mapping[str, Any], study_text: str, summary: Mapping[str, Any]) -> str:
    document = base64.b64encode(json.dumps(dict(summary), indent=1).encode()).decode()
    return folded(
        "<h2>Provenance</h2>",
        f'<div class="provenance">{definitions(provenance)}'
        f'<h3>Study</h3><pre tabindex="0">{escape(study_text)}</pre>'
        f'<p><a download="summary.json" href="data:application/json;base64,{document}">Download summary.json</a>, '
        "the same numbers for programs.</p></div>",
    )
