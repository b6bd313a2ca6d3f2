"""Metrics by name against scikit-learn and closed forms, and what they let an evaluation do."""

from __future__ import annotations

import math
from functools import partial

import pytest
import sklearn.metrics
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.engine.evaluate import evaluate
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import Program
from batchscope.engine.vmap import Vmap
from batchscope.errors import StudyError, WorkloadError
from batchscope.plan.sampling import first_trials
from batchscope.runs.preflight import check_goals
from batchscope.spec.goal import Goal
from batchscope.spec.metrics import Gathered, is_average, named, resolved
from batchscope.spec.workload import Workload
from engine.workbench import classification, study, training, well_validated

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, LABELS = torch.randn(200, 4, generator=GENERATOR), torch.randint(4, (200,), generator=GENERATOR)
SCORES, HITS = torch.randn(200, generator=GENERATOR), torch.randint(2, (200,), generator=GENERATOR)


def whole(name: str, outputs: Tensor, targets: Tensor) -> float:
    metric = named(name)
    assert isinstance(metric, Gathered)
    gathered = metric()
    for start in range(0, len(targets), 64):
        gathered.update(outputs[start : start + 64], targets[start : start + 64])
    return float(gathered.compute())


def test_averages_are_those_of_scikit_learn() -> None:
    chosen = LOGITS.argmax(1)
    assert float(named("accuracy")(LOGITS, LABELS).mean()) == pytest.approx(float((chosen == LABELS).float().mean()))
    assert float(named("error")(LOGITS, LABELS).mean()) == pytest.approx(float((chosen != LABELS).float().mean()))
    top = sklearn.metrics.top_k_accuracy_score(LABELS, LOGITS, k=2)
    assert float(named("top_2_accuracy")(LOGITS, LABELS).mean()) == pytest.approx(top)
    assert float(named("top_2_error")(LOGITS, LABELS).mean()) == pytest.approx(1 - top)
    two = sklearn.metrics.accuracy_score(HITS, SCORES > 0)
    for outputs, targets in ((SCORES, HITS.float()), (SCORES[:, None], HITS), (SCORES[:, None], HITS[:, None].float())):
        assert float(named("accuracy")(outputs, targets).mean()) == pytest.approx(two)


def test_metrics_of_all_outputs_are_those_of_scikit_learn() -> None:
    pytest.importorskip("torchmetrics")
    probabilities = LOGITS.double().softmax(1)
    for outputs in (SCORES, SCORES[:, None], torch.stack([-SCORES, SCORES], 1) / 2):
        assert whole("auroc", outputs, HITS) == pytest.approx(sklearn.metrics.roc_auc_score(HITS, SCORES), abs=1e-6)
        assert whole("f1", outputs, HITS) == pytest.approx(sklearn.metrics.f1_score(HITS, SCORES > 0), abs=1e-6)
    many = sklearn.metrics.roc_auc_score(LABELS, probabilities, multi_class="ovr")
    assert whole("auroc", LOGITS, LABELS) == pytest.approx(many, abs=1e-6)
    macro = sklearn.metrics.f1_score(LABELS, LOGITS.argmax(1), average="macro")
    assert whole("f1", LOGITS, LABELS) == pytest.approx(macro, abs=1e-6)
    targets = SCORES[:, None] + 0.5 * LOGITS[:, :1]
    expected = sklearn.metrics.r2_score(targets, SCORES)
    assert whole("r2", SCORES, targets) == pytest.approx(expected, abs=1e-6)


def test_positions_are_averaged_and_ignored_ones_left_out() -> None:
    words, labels = torch.randn(5, 7, 3), torch.randint(3, (5, 7))
    labels[:, 4:] = -100
    expected = (words[:, :4].argmax(-1) == labels[:, :4]).float().mean(1)
    accuracy = named("accuracy")
    torch.testing.assert_close(accuracy(words, labels), expected)
    torch.testing.assert_close(accuracy({"logits": words.transpose(1, 2)}, labels), expected)
    with pytest.raises(WorkloadError, match=r"outputs \(5, 7, 3\) and targets \(2,\)"):
        accuracy(words, labels[:2, 0])


def test_a_name_that_is_none_names_the_nearest() -> None:
    with pytest.raises(WorkloadError, match="no metric is called 'acuracy'; did you mean accuracy"):
        named("acuracy")
    with pytest.raises(StudyError, match="metrics: no metric is called 'preplexity'; did you mean perplexity"):
        study("metrics=[preplexity]")
    asked = study("goals=['validation/accuracy > 0.9']")
    with pytest.raises(StudyError, match=r"add metrics: \[accuracy\] to the study"):
        check_goals(asked, classification())
    check_goals(asked, classification().measuring(["accuracy"]))


def test_a_factory_is_told_from_a_function_of_examples() -> None:
    class Metric:
        def __init__(self, classes: int = 2) -> None: ...

    assert not any(map(is_average, (Metric, partial(Metric, 3), lambda: Metric(), Gathered("f1"))))
    assert all(map(is_average, (F.l1_loss, partial(F.l1_loss, reduction="none"), lambda outputs, targets: outputs)))


@pytest.mark.parametrize("program", [Loop, Vmap])
def test_perplexity_is_the_exponential_of_the_mean_and_ends_as_early_as_the_loss(program: type[Program]) -> None:
    bench = training(well_validated(), "metrics=[perplexity, accuracy]")
    pack = Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 3))
    run = program(bench)
    values, taken = evaluate(run.evaluate, bench, pack.state)
    assert taken == [1500] * 3
    for loss, perplexity in zip(values["loss"], values["perplexity"], strict=True):
        assert loss is not None and perplexity == math.exp(loss)
    assert values["accuracy"] == [pytest.approx(1 - (error or 0)) for error in values["error"]]

    def early(goal: Goal) -> tuple[object, ...]:
        return evaluate(run.evaluate, bench, pack.state, goals={k: [goal] for k in range(3)})

    by_loss = early(Goal("validation/loss", "<", 0.6))
    assert early(Goal("validation/perplexity", "<", math.exp(0.6))) == by_loss and max(by_loss[1]) < 1500  # type: ignore[call-overload]


def test_a_metric_that_is_no_average_never_ends_an_evaluation_early() -> None:
    pytest.importorskip("torchmetrics")
    bench = training(well_validated(), "metrics=[f1]")
    pack = Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 2))
    goal = Goal("validation/f1", ">", 0.99)
    values, taken = evaluate(Loop(bench).evaluate, bench, pack.state, goals={k: [goal] for k in range(2)})
    assert taken == [1500, 1500] and None not in values["f1"]


def test_metrics_of_a_workload_may_be_names() -> None:
    pair = torch.randn(8, 3), torch.arange(8) % 3
    loss = partial(F.cross_entropy, reduction="none")
    found = Workload(partial(nn.Linear, 3, 3), loss, pair, pair, metrics=["accuracy", "perplexity"])
    assert found.metric_names[1:3] == ("validation/accuracy", "validation/perplexity")
    assert found.fingerprint() != found.measuring(["error"]).fingerprint()
    with pytest.raises(WorkloadError, match="the metric best must be a function"):
        Workload(partial(nn.Linear, 3, 3), loss, pair, pair, metrics={"best": 3})


@pytest.mark.parametrize("name", ["loss", "running_loss", "a/b", ""])
def test_a_name_that_would_be_another_column_is_refused(name: str) -> None:
    with pytest.raises(WorkloadError, match="other than 'loss' and 'running_loss'"):
        resolved({name: "accuracy"})
