"""Whatever is done to a study file: a valid study that can be planned, or a clear error; soon, and nothing else."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscope import workloads
from batchscope.errors import BatchscopeError, StudyError
from batchscope.plan.sampling import first_trials
from batchscope.runs.preflight import check_goals, grids_of, timelines_of
from batchscope.spec import documents
from batchscope.spec.study import Study

GOOD = """\
workload: noisy_quadratic/4
algorithm: {optimizer: nesterov, learning_rate_schedule: constant, weight_decay: 0.001}
batch_sizes: {from: 1, to: 64, factor: 2}
search:
  method: sobol
  trials: 5
  space:
    learning_rate: {min: 1e-4, max: 10, scale: log}
    momentum: {min: 0.5, max: 0.999, scale: reverse_log}
  widen: {edge: 0.05, rounds: 1}
  confirm: {seeds: 2}
goals: ["validation/loss < 0.15", "validation/loss < 0.13"]
budget: {steps: 300}
policy: race
margin: 1.5
evaluation: {ratio: 1.1, first: 1}
engine: {program: loop, pack_size: 2, dtype: float32, threads: 1}
seed: 3
"""
# What YAML, numbers, terminals and pages have their trouble with.
TOKENS = (
    ["0", "-1", "1e999", "-.inf", ".nan", "1e308", "1e-320", "9" * 400, "9" * 5000, "0x10", "0o7", "1_000", "1:30"]
    + ["null", "yes", "2026-01-01", "!!binary aGk=", "!!python/object:os.system {}", "!!set {a}", "&a [1]", "*a"]
    + ["!!int ''", "!!float ''", "!!bool maybe", "!!timestamp x", "!!omap [1]", "!!null x", "1:59:59.5" + ":59" * 300]
    + ["<<: {a: 1}", "{}", "[]", "[" * 30, "'", '"', "|", "? ", "- ", "---", "...", "%YAML 9.9", "\t", "\n", "#"]
    + ["\x00", "\x1b[31m", "<script>alert(1)</script>", "\u202e", "\ud7ff", "é", "grid", "halton", "full", "1.00000001"]
)
edits = st.tuples(
    st.sampled_from(["insert", "replace a value", "repeat a line", "drop a line"]),
    st.integers(0, 10**6),
    st.sampled_from(TOKENS) | st.text(max_size=3),
)


def edited(text: str, kind: str, place: int, token: str) -> str:
    lines = text.split("\n")
    here = place % len(lines)
    if kind == "repeat a line":
        return "\n".join([*lines, lines[here]])
    if kind == "drop a line":
        return "\n".join(lines[:here] + lines[here + 1 :])
    if kind == "insert":
        return text[: place % len(text)] + token + text[place % len(text) :]
    colons = [i for i, character in enumerate(text) if character == ":"] or [0]
    start = colons[place % len(colons)] + 1
    end = next((i for i in range(start, len(text)) if text[i] in ",}\n"), len(text))
    return f"{text[:start]} {token}{text[end:]}"


@settings(max_examples=300, deadline=5000)
@given(st.lists(edits, min_size=1, max_size=3))
def test_a_mutated_study_can_be_planned_or_is_a_clear_error(changes: list[tuple[str, int, str]]) -> None:
    text = GOOD
    for change in changes:
        text = edited(text, *change)
    try:
        study = Study.from_text(text)
        assert Study.from_text(study.to_yaml()) == study
        workload = workloads.load(study.workload)
        check_goals(study, workload)
        for grid in grids_of(study, timelines_of(study, workload)).values():
            assert grid.rungs()[-1] == grid.last
        first_trials(study.search, study.batch_sizes[0], study.seed, 3)
    except BatchscopeError as error:
        assert str(error)


@settings(max_examples=100, deadline=5000)
@given(st.lists(st.sampled_from(TOKENS) | st.sampled_from(["a", ": ", "{", "}", "[", "]", ",", "\n  "]), max_size=12))
def test_pieces_of_yaml_are_a_study_or_a_clear_error(pieces: list[str]) -> None:
    for text in ("".join(pieces), GOOD + "".join(pieces)):
        try:
            Study.from_text(text)
        except StudyError as error:
            assert str(error)


def test_the_study_that_is_mutated_is_valid() -> None:
    assert Study.from_text(GOOD).batch_sizes == (1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize(
    ("bomb", "expected"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]", "aliases are not allowed"),
        ("a: &a {b: *a}", "aliases are not allowed"),
        ("[" * 5000, "at most 20 levels"),
        ("{a: " * 5000, "at most 20 levels"),
        ("".join(f"{' ' * depth}b:\n" for depth in range(1000)), "at most 20 levels"),
        ("a: " + "x" * 2_000_000, "at most 1,000,000 are read"),
        ("a: " + "9" * 100_000, "a number may have 500 characters"),
        ("a: 1" + ":59" * 200_000, "a number may have 500 characters"),
        ("a: 1" + ":59" * 200_000 + ".5", "a number may have 500 characters"),
        ('workload: "' + "\\U0001F600" * 90_000 + '"', "string should have at most 1000 characters"),
    ],
    ids=["aliases", "itself", "lists", "blocks", "indents", "size", "digits", "base 60", "base 60 float", "escapes"],
)
def test_a_bomb_is_refused_soon(bomb: str, expected: str) -> None:
    started = time.monotonic()
    with pytest.raises(StudyError) as caught:
        Study.from_text(bomb)
    assert time.monotonic() - started < 20
    assert expected in str(caught.value) and len(str(caught.value)) < 5000


def test_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_NODES", 1000)
    with pytest.raises(StudyError, match="1000 values are allowed"):
        Study.from_text("a: [" + "1," * 1000 + "]")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("budget.steps=99999999999999999999", "must be at most 9007199254740992"),
        ("budget={epochs: 1e308}", "must be at most 1000000000"),
        ("evaluation.first=99999999999999999999", "must be at most 9007199254740992"),
        ("evaluation.ratio=1.0000001", "must be at least 1.0001"),
    ],
)
def test_what_would_never_end_is_refused(change: str, expected: str) -> None:
    with pytest.raises(StudyError) as caught:
        Study.from_text(GOOD, [change])
    assert expected in str(caught.value)
