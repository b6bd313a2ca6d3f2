"""A workload to start from."""

from __future__ import annotations

from importlib import resources


def template() -> str:
    """A commented workload file that runs as it is: what ``batchscope init`` writes."""
    return resources.files("batchscope.workloads").joinpath("starter.py").read_text(encoding="utf-8")
