"""One thing has one name: words that were given up do not come back, and files that a page names are there."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What was given up, and what is said instead (docs/glossary.md).
GIVEN_UP = {
    r"looks?": "evaluation",
    r"heats?": "search round",
    r"legs?": "step range",
    r"desks?": "worker handle",
    r"lanes?": "progress or timings of a batch size",
    r"fates?": "outcome",
    r"(?<!right-)censored": "stopped",
    r"BLR|LSR|SRSR|blr|lsr|srsr": "constant, linear, square-root scaling",
    r"(largest|maximal) useful|maximal data parallelism": "maximum useful batch size",
}
# Where a word stands because a paper, a peer or an older folder says it.
QUOTED = {
    "docs/glossary.md",
    "docs/schedules.md",
    "docs/statistics.md",
    "src/batchscope/store/schema.py",
    "src/batchscope/analysis/scaling_rules.py",
}
FILES = sorted(
    [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
)


def words(path: Path) -> str:
    """A page, or the names, strings and comments of a module, with names taken apart."""
    text = path.read_text()
    if path.suffix == ".py":
        kinds = {tokenize.NAME, tokenize.STRING, tokenize.COMMENT}
        text = "\n".join(t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type in kinds)
    return text.replace("_", " ")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_words_that_were_given_up_stay_away(path: Path) -> None:
    if str(path.relative_to(ROOT)) in QUOTED:
        return
    text = words(path)
    for word, instead in GIVEN_UP.items():
        found = re.search(rf"(?<![\w-])({word})(?![\w-])", text)
        assert found is None, f"{found.group() if found else ''!r}: say {instead}"


def test_two_classes_do_not_share_a_name() -> None:
    names: dict[str, list[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for name in re.findall(r"^class (\w+)", path.read_text(), re.MULTILINE):
            names.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert not {name: places for name, places in names.items() if len(places) > 1}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_a_page_names_are_there(page: str) -> None:
    named = set(
        re.findall(r"`((?:src/batchscope/|tests/)?[a-z_]+(?:/[a-z_]+)*\.py)(?:: \w+)?`", (ROOT / page).read_text())
    )
    missing = {name for name in named if not (ROOT / name).exists() and not (ROOT / "src/batchscope" / name).exists()}
    assert named or page == "README.md"
    assert not missing - {"my_workload.py"}
