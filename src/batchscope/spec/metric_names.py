"""The names of metrics: known without torch, so that a study is read without."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from batchscope.errors import WorkloadError

AVERAGES = ("accuracy", "error")
OF_MEANS = ("perplexity",)
TORCHMETRICS = ("f1", "auroc", "r2")
TOP = re.compile(r"top_(?P<k>[1-9]\d{0,4})_(?P<side>accuracy|error)")


def is_named(name: str) -> bool:
    """Whether a metric is known by a name."""
    return bool(TOP.fullmatch(name)) or name in (*AVERAGES, *OF_MEANS, *TORCHMETRICS)


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once.

    Raises:
        WorkloadError: If one is not known, with the nearest.
    """
    known = (*AVERAGES, "top_5_accuracy", "top_5_error", *OF_MEANS, *TORCHMETRICS)
    for name in names:
        if not is_named(name):
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise WorkloadError(f"no metric is called {name!r}; {advice}")
    return tuple(dict.fromkeys(names))
