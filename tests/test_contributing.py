"""What ``CONTRIBUTING.md`` says of adding something: its lists of files, counted with an example of each kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = re.compile(r"^### (.+)\n\nFor example `([^`]+)`\.\n\n((?:\* .+\n)+)", re.MULTILINE)
KINDS = {
    title: (example, re.findall(r"^\* `([^`]+)`", files, re.MULTILINE))
    for title, example, files in SECTION.findall((ROOT / "CONTRIBUTING.md").read_text())
}

# Tests that only use the example, for something else.
USERS = ("tests/meters/", "tests/spec/", "tests/analysis/test_analysis_scale", "tests/analysis/test_analysis_early")


def mentions(example: str) -> set[str]:
    """Files of the package, and of the tests that are about it, in which the example has its name."""
    as_function = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", example).lower()
    word = re.compile(rf"\b({re.escape(example)}|{re.escape(as_function)}\b)")
    found = {
        str(path.relative_to(ROOT))
        for folder in ("src", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if word.search(path.read_text())
    }
    return {name for name in found if not name.startswith(USERS) and name != "tests/test_contributing.py"}


def test_every_kind_of_addition_has_its_list() -> None:
    assert list(KINDS) == ["An optimizer", "A model", "A built-in workload", "An analysis", "An importer"]


@pytest.mark.parametrize("kind", ["An optimizer", "A model", "An analysis", "An importer"])
def test_an_addition_touches_the_files_of_its_list_and_no_other(kind: str) -> None:
    example, files = KINDS[kind]
    assert mentions(example) == set(files)


def test_a_workload_is_one_row_of_the_package() -> None:
    example, files = KINDS["A built-in workload"]
    assert {name for name in mentions(example) if name.startswith("src/batchscope/workloads/")} == set(files)
