"""What a result says: the words that page and terminal show beside its numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """Plain text: a title, how to read the chart, and what was found, in one line."""

    title: str
    explanation: str
    found: str
