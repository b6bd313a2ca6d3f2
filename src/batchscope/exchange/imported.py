"""How an imported run is to be read: which of its trials count, and what its source called the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from batchscope.errors import StoreError
from batchscope.exchange.importers.batch_science import metric_name
from batchscope.spec.goal import Goal


def selected(trials: pl.DataFrame, document: Mapping[str, Any]) -> pl.DataFrame:
    """The trials that the source's own analysis takes; all of them if the document states no ``selection``.

    ``selection: {statuses: [complete], trials: 100}`` takes, at every batch size, the first 100 complete trials in the
    order of their ``index`` (Sh19 section 4.1).

    Raises:
        StoreError: If the selection is not of this form.
    """
    rule = document.get("selection")
    if rule is None:
        return trials
    statuses = rule.get("statuses") if isinstance(rule, dict) else None
    count = rule.get("trials") if isinstance(rule, dict) else None
    if not isinstance(statuses, list) or not isinstance(count, int) or count < 1:
        raise StoreError(
            f"the selection in study.yaml reads {rule!r:.200}; write selection: {{statuses: [complete], trials: 100}}"
        )
    fit = trials.filter(pl.col("status").is_in([str(status) for status in statuses]))
    return fit.filter(pl.struct("index", "trial").rank("ordinal").over("batch_size") <= count)


def in_our_words(goal: Goal, document: Mapping[str, Any]) -> Goal:
    """A goal on a metric as its source calls it (``val/classification_error``) as one on ours."""
    imported = document.get("imported")
    published = isinstance(imported, dict) and imported.get("kind") == "batch-science"
    return replace(goal, metric=metric_name(goal.metric)) if published else goal


def lacks(document: Mapping[str, Any]) -> dict[str, str]:
    """What the source of an imported run did not have that analyses ask for, and why: ``search``, ``metric``."""
    imported = document.get("imported")
    found = {}
    if is_tuned(document):
        found["search"] = "what was imported had been tuned before, and no search came with it"
    if isinstance(imported, dict) and imported.get("kind") == "curve":
        found["metric"] = "steps to a target were imported, and no values of a metric"
    return found


def is_tuned(document: Mapping[str, Any]) -> bool:
    """Whether the trials of an imported run train what was tuned before."""
    imported = document.get("imported")
    return isinstance(imported, dict) and imported.get("tuned") is True
