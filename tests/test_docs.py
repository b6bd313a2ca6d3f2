"""The reference of the docs names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NAMES = sorted(
    {name for page in DOCS.rglob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)}
)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_reference_is_there(name: str) -> None:
    assert resolve_name(name) is not None


def test_the_reference_is_not_empty() -> None:
    assert len(NAMES) > 10
