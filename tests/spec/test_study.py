"""Study files: every fault at once with its place, safe YAML, and a resolved form that reads back the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import StudyError
from batchscope.spec import documents
from batchscope.spec.goal import Goal
from batchscope.spec.space import Range
from batchscope.spec.study import Study

GOOD = """
workload: fashion_mnist/fc-256
algorithm: {optimizer: nesterov, learning_rate_schedule: constant}
batch_sizes: {from: 1, to: 8192, factor: 2}
search:
  method: sobol
  trials: 50
  space:
    learning_rate: {min: 1e-4, max: 10, scale: log}
    momentum: {min: 0.5, max: 0.999, scale: reverse_log}
goals: ["validation/error < 0.15", "validation/error < 0.13"]
budget: {epochs: 30}
"""


def faults(text: str, *overrides: str) -> str:
    with pytest.raises(StudyError) as caught:
        Study.from_text(text, overrides, "study.yaml")
    return str(caught.value)


def test_the_documented_form_is_read() -> None:
    study = Study.from_text(GOOD)
    assert study.batch_sizes == tuple(2**i for i in range(14))
    assert study.goals[1] == Goal("validation/error", "<", 0.13)
    assert study.policy == "race" and study.margin == 1.5
    space = study.search.space["learning_rate"]
    assert isinstance(space, Range) and space.min == 1e-4  # YAML 1.1 reads 1e-4 as text


def test_the_resolved_study_reads_back_the_same() -> None:
    study = Study.from_text(GOOD, ["search.trials=8", "batch_sizes=[16, 32]", "engine.dtype=float64"])
    assert study.search.trials == 8 and study.batch_sizes == (16, 32) and study.engine.dtype == "float64"
    assert Study.from_text(study.to_yaml()) == study


def test_all_faults_come_at_once_with_place_rule_and_value() -> None:
    text = faults("""
algoritm: {}
algorithm: {optimizer: nestrov, learning_rate_schedule: {name: cosin}}
batch_sizes: {from: 10, to: 1, factr: 3}
search: {trials: -3, method: sobl, space: {learning_rate: {min: 1, max: 0.1, scale: log}, momentum: {mn: 3, max: x}}}
goals: ["validation/error <= 0.1", 3]
budget: {epochs: 1, steps: 3}
engine: {dtype: float16}
""")
    for expected in (
        "workload: is missing",
        "algoritm: unknown key; did you mean algorithm?",
        "algorithm.optimizer: no optimizer is called 'nestrov'; did you mean nesterov?",
        "algorithm.learning_rate_schedule.name: no schedule is called 'cosin'; did you mean cosine?",
        "batch_sizes.factr: unknown key; did you mean factor?",
        "search.trials: must be at least 1, got -3",
        "search.method: must be sobol, halton, random or grid, got 'sobl'; did you mean sobol?",
        "search.space.learning_rate: min must be below max, got min 1 and max 0.1",
        "search.space.momentum.mn: unknown key; did you mean min?",
        "search.space.momentum.max: must be a number, got 'x'",
        "goals[0]: cannot read the goal 'validation/error <= 0.1'",
        "goals[1]: cannot read the goal '3'",
        "budget: give exactly one of epochs, steps, examples; got epochs, steps",
        "engine.dtype: must be float32, float64 or bfloat16, got 'float16'",
    ):
        assert expected in text
    assert "Traceback" not in text and "pydantic" not in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("search.space={momentum: 0.9}", "learning_rate is missing"),
        ("search.space.learning_rat=0.1", "did you mean learning_rate?"),
        ("search.space.learning_rate={min: 0, max: 1, scale: log}", "a log scale needs min above 0, got 0"),
        ("search.space.momentum={min: 0, max: 1, scale: reverse_log}", "a reverse_log scale needs max below 1, got 1"),
        ("search.space.momentum=fast", "must be numbers, got ['fast']"),
        ("search.method=grid", "a grid needs points"),
        ("search={trials: 2}", "space: give a range for learning_rate"),
        ("search.optimizers=[momentum, adma]", "search.optimizers.adma: no optimizer is called 'adma'; did you mean"),
        ("search={optimizers: {adam: {lr: 1}}}", "search.optimizers.adam.lr: no hyperparameter of adam is called 'lr'"),
        ("search.optimizers={adam: {learning_rate: {min: 1}}}", "search.optimizers.adam.learning_rate.max: is missing"),
        (
            "search={optimizers: {adam: {}, sgd: {learning_rate: 1}}}",
            "search.optimizers.adam: learning_rate is missing",
        ),
        ("search.space.optimizer=[momentum, adam]", "optimizers to choose from stand beside the space"),
        ("batch_sizes=[0]", "batch_sizes[0]: must be at least 1, got 0"),
        ("batch_sizes=[]", "batch_sizes: needs at least 1 entry, got []"),
        ("batch_sizes=many", "must be a list such as [16, 32, 64], got 'many'"),
        ("goals=[]", "goals: needs at least 1 entry"),
        ("seed=x", "seed: must be a whole number, got 'x'"),
        ("workload.x=1", "leads into workload"),
        ("workload", "an override is KEY=VALUE"),
        ("algorithm={optimizer: sgd}", "no hyperparameter of sgd is called 'momentum'"),
        ("algorithm.weight_decay=.nan", "must be a finite number"),
    ],
)
def test_what_is_wrong_is_said(change: str, expected: str) -> None:
    assert expected in faults(GOOD, change)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x [1]\nb: *x", "line 2, column 4: aliases are not allowed"),
        ("a: 1\na: 2", "line 2, column 1: the key 'a' is given twice"),
        ("1: 2", "keys must be text"),
        ("- 1", "it holds a list"),
        ("", "it holds nothing"),
        ("a: [", "line 1, column 5"),
        ("a: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("a: " + "[" * 50 + "]" * 50, "at most 20 levels"),
        ("a: '" + "x" * 1_000_001 + "'", "at most 1,000,000 are read"),
        ("a: \x00", "special characters are not allowed"),
    ],
)
def test_yaml_is_data_within_bounds(text: str, expected: str) -> None:
    with pytest.raises(StudyError, match=r".*") as caught:
        documents.load(text, "study.yaml")
    assert expected in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_study_or_a_clear_error(text: str) -> None:
    try:
        Study.from_text(text)
    except StudyError as error:
        assert str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*yaml.safe_load(GOOD), "policy", "engine", "evaluation", "margin", "seed"]), json_values)
def test_any_value_under_any_key_is_valid_or_a_clear_error(key: str, value: object) -> None:
    document = {**yaml.safe_load(GOOD), key: value}
    try:
        study = Study.from_mapping(document)
    except StudyError as error:
        assert str(error)
    else:
        assert Study.from_text(study.to_yaml()) == study


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study file at"):
        Study.from_yaml(tmp_path / "none.yaml")


@given(st.floats(0, 1), st.sampled_from(["linear", "log", "reverse_log"]))
def test_scales_go_there_and_back(u: float, scale: str) -> None:
    dimension = Range.model_validate({"min": 1e-4, "max": 0.999, "scale": scale})
    value = dimension.from_unit(u)
    assert dimension.min <= value * (1 + 1e-12) and value <= dimension.max * (1 + 1e-12)
    assert dimension.to_unit(value) == pytest.approx(u, abs=1e-9)


def test_reverse_log_is_log_uniform_in_one_minus_the_value() -> None:
    dimension = Range(min=0.5, max=0.995, scale="reverse_log")
    assert 1 - dimension.from_unit(0.5) == pytest.approx((0.5 * 0.005) ** 0.5)


@given(
    st.sampled_from(["validation/error", "train/loss", "validation/f1-macro"]),
    st.sampled_from("<>"),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_goals_are_read_back_from_their_text(metric: str, side: str, threshold: float) -> None:
    goal = Goal.parse(f"{metric}{side} {threshold!r}")
    assert Goal.parse(str(goal)) == goal
    assert not goal.is_reached(threshold) and not goal.is_reached(float("nan"))


def test_the_context_changes_with_what_changes_numbers_and_with_nothing_else() -> None:
    study = Study.from_text(GOOD)
    context = study.context("f")
    assert Study.from_text(GOOD, ["search.trials=8", "seed=3", "margin=2"]).context("f") == context
    for change in ("algorithm.optimizer=momentum", "engine.dtype=float64", "evaluation.ratio=1.1"):
        assert Study.from_text(GOOD, [change]).context("f") != context
    assert study.context("g") != context


def test_a_study_made_in_python_explains_itself_as_a_file_does() -> None:
    document = Study.from_text(GOOD).model_dump()
    assert Study(**document) == Study.from_text(GOOD)
    wrong = {**document, "budget": {"epoch": 5}, "policy": "sprint", "sed": 1}
    with pytest.raises(StudyError) as made:
        Study(**wrong)
    with pytest.raises(StudyError) as read:
        Study.from_mapping(wrong)
    assert str(made.value) == str(read.value) and str(made.value).startswith("the study has 3 faults:")
    assert "budget.epoch: unknown key; did you mean epochs?" in str(made.value)
    with pytest.raises(StudyError, match="^my.yaml has 3 faults:"):
        Study.from_mapping(wrong, "my.yaml")
