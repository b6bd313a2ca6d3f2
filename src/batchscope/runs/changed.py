"""What has changed where a folder holds a run of something else, and what to type."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import yaml

from batchscope import workloads
from batchscope.errors import StudyError
from batchscope.spec.study import Study

_PARTS = {"reading": "how its data is read", "model": "the shapes of its model", "data": "its data"}
_HASH = re.compile("[0-9a-f]{16}")


def refusal(folder: Path, before: Study, study: Study, noted: object, identity: Mapping[str, str]) -> StudyError:
    """Why a folder cannot go on with a study: what has changed since, and what to type.

    Args:
        folder: Of the run.
        before: Its study.
        study: The one given.
        noted: What the provenance says of the workload's identity.
        identity: What it is now.
    """
    known = {part: was for part, was in noted.items() if isinstance(was, str)} if isinstance(noted, dict) else {}
    changed = {part: known[part] for part in identity if part in known and known[part] != identity[part]}
    causes = [_cause(part, was, identity[part], study.workload) for part, was in changed.items()]
    advice, difference = "put back what changed", ""
    if before.context("") != study.context(""):
        causes, difference = [*causes, "the study"], f":\n{_difference(before, study)}"
        place = shlex.quote(str(folder))
        advice = f"run the study of the folder:  batchscope run {place}/study.yaml -o {place}"
    elif list(changed) == ["version"]:
        advice = f'if it trains what it trained before, write version="{changed["version"]}" in bs.Workload(...)'
    unsaid = " or ".join(["its workload", *study.files])
    return StudyError(
        f"{folder} cannot go on: {' and '.join(causes) or unsaid} changed since it began{difference}\n"
        f"  to go on: {advice}\n  to begin anew: give another folder with -o {shlex.quote(str(_free(folder)))}"
    )


def _cause(part: str, before: str, now: str, workload: str) -> str:
    if part == "version" and workloads.is_file(workload) and _HASH.fullmatch(before) and _HASH.fullmatch(now):
        return f"the code of {workload.rpartition(':')[0]}"
    return _PARTS.get(part, f"the {part} of its workload (from {before or 'none'} to {now or 'none'})")


def _difference(before: Study, after: Study) -> str:
    """The lines in which two studies differ, of what changes the numbers of a trial: ``-`` for the folder's."""

    def lines(study: Study) -> list[str]:
        keys = {"algorithm", "evaluation", *(["budget"] if study.algorithm.depends_on_budget else [])}
        chosen = study.model_dump(mode="json", exclude_none=True, include=keys)
        chosen["engine"] = {"dtype": study.engine.dtype}
        return yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True).splitlines()

    found = difflib.unified_diff(lines(before), lines(after), "folder", "given", lineterm="", n=0)
    return "\n".join(f"    {line}" for line in found if not line.startswith(("@@", "---", "+++")))


def _free(folder: Path) -> Path:
    return next(path for number in count(2) if not (path := folder.with_name(f"{folder.name}-{number}")).exists())
