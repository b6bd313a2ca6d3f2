"""The other analyses as parts of the page: what each shows, in words, with its chart."""

from __future__ import annotations

import re

from batchscope.amounts import number
from batchscope.analysis import Answer, Answers, Curve, Refused
from batchscope.analysis.held_out import by_batch_size
from batchscope.report import analyses
from batchscope.report.markup import Cell, Chart, Section, Table
from batchscope.report.palette import NAMED
from batchscope.report.wording import plain
from batchscope.spec.goal import TEST


def sections(answers: Answers) -> list[Section]:
    """Every analysis of one goal that the run can answer, and why the others have no answer."""
    found, without = [], []
    for question, answer in answers:
        if not isinstance(answer, Refused):
            try:
                found.append(section(answer))
                continue
            except Exception as error:  # of the drawing, which must not cost the page
                answer = Refused(error)
        without.append(f"{question.name.capitalize()}: {plain(answer.reason)}.")
    return [*found, Section("What this run cannot answer", without, folded=True)] if without else found


def on_test(curve: Curve) -> list[Section]:
    """What the test examples say, where there are any."""
    found = by_batch_size(curve.test)
    if not found:
        return []
    names = [name.removeprefix(TEST) for name in curve.test.columns if name.startswith(TEST)]
    rows = []
    for size, values in found.items():
        row = [Cell(number(size), size)]
        for name in names:
            again = ", ".join(number(one[name]) for one in values["confirmations"])
            value = values.get(name)
            row.append(Cell("-" if value is None else number(value), value, f"confirmed {again}" if again else ""))
        rows.append(row)
    text = (
        f"Measured where the winner of each batch size, and each run of it with new seeds, reached "
        f"{plain(curve.goal)}. Nothing was chosen by these numbers."
    )
    return [
        Section("Test examples", [text], tables=[Table("Test examples", ["batch size", *names], rows)], folded=True)
    ]


def section(answer: Answer) -> Section:
    """The answer as a part of the page, for ``render(..., sections=...)``."""
    words = answer.words
    title, file = plain(words.title), re.sub(r"\W+", "-", words.title.lower())
    paragraphs = [plain(words.explanation), f"Here: {plain(words.found)}."]
    return Section(title, paragraphs, [Chart(analyses.chart(answer.result, NAMED), title, file)], folded=True)
