"""Whether a run has nothing left to do, told without torch, data and workers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl

import batchscope
from batchscope import workloads
from batchscope.errors import BatchscopeError
from batchscope.runs.run_folder import Run
from batchscope.spec.study import Study
from batchscope.store.store import Store
from batchscope.user_file import digest


def note(study: Study, store: Store) -> dict[str, Any]:
    """What a driver writes into the provenance when a study is done: what it was, and how much there is of it."""
    return {"of": _key(study), **_counts(store)}


def finished_run(study: Study, folder: str | Path, device: str = "auto") -> Run | None:
    """The run of a folder in which nothing of this study is left to do; None where a driver must see.

    It is told by what the last driver has noted: the study, the code of its workload's file, the version of Batchscope,
    and how many trials and evaluations there are. A change of the data or of what that file imports is not noticed.
    """
    folder = Path(folder)
    if not (folder / "study.yaml").exists() or any(folder.glob("lock*")):
        return None  # also a dead driver's lock, which the next one tidies
    try:
        store = Store.open(folder)
        found = store.provenance
        known = found.get("finished")
        if not isinstance(known, dict) or known.get("of") is None or device not in ("auto", found.get("device")):
            return None
        same = known["of"] == _key(study) and known == {"of": known["of"], **_counts(store)}
        return Run(folder) if same and not store.warnings else None
    except BatchscopeError:
        return None  # a driver says what is wrong, or mends it


def _counts(store: Store) -> dict[str, int]:
    trials, measurements = store.tables()
    return {"trials": len(trials), "measurements": int(measurements.select(pl.len()).collect().item())}


def _key(study: Study) -> str | None:
    """What decides the trials of a study, as far as it can be told without loading the workload."""
    files = [study.workload, *study.files] if workloads.is_file(study.workload) else study.files
    try:
        code = [digest(file) for file in files]
    except (BatchscopeError, ValueError):
        return None
    return hashlib.sha256(json.dumps([study.to_yaml(), code, batchscope.__version__]).encode()).hexdigest()
