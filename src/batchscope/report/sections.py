"""The other analyses as parts of the page: what each shows, in words, with its chart."""

from __future__ import annotations

import re

from batchscope.analysis import Answer, Answers, Refused
from batchscope.report import analyses
from batchscope.report.markup import Chart, Section
from batchscope.report.palette import NAMED
from batchscope.report.text import plain


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
    return [*found, Section("What this run cannot answer", without)] if without else found


def section(answer: Answer) -> Section:
    """The answer as a part of the page, for ``render(..., sections=...)``."""
    words = answer.words
    title, file = plain(words.title), re.sub(r"\W+", "-", words.title.lower())
    paragraphs = [plain(words.explanation), f"Here: {plain(words.found)}."]
    return Section(title, paragraphs, [Chart(analyses.chart(answer.result, NAMED), title, file)])
