"""What a study's name for its workload stands for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from batchscope.spec.workload import Workload
from batchscope.workloads.registry import WORKLOADS, find
from batchscope.workloads.source import is_file
from batchscope.workloads.user_file import load_file


class Listed(NamedTuple):
    """A row of ``batchscope workloads``."""

    pattern: str
    description: str
    goals: tuple[str, ...]
    example: str


def load(name: str, data_dir: str | Path | None = None) -> Workload:
    """The workload of a built-in name, or of ``path/to/file.py:function``.

    ``data_dir`` is the folder of data sets; without it the environment's ``BATCHSCOPE_DATA``, else the user
    cache directory. A name that is neither is a ``WorkloadError`` that names the nearest; data that is not
    to be had is a ``DataError``.
    """
    if is_file(name):
        return load_file(name, data_dir)
    family, fields = find(name)
    return dataclasses.replace(family.build(fields, data_dir), name=name)


def check_name(name: str) -> None:
    """Refuse what is neither a built-in name nor a file's function, before anything is loaded."""
    if not is_file(name):
        find(name)


def names() -> list[Listed]:
    """Every built-in pattern, with what it is, goals to begin with, and a name that can be used as it is."""
    return [Listed(family.pattern, family.description, family.goals, family.example) for family in WORKLOADS.values()]
