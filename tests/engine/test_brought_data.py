"""Data and losses as users have them: the same examples whoever reads them, and every other form said in words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from batchscope.engine.batches import Batches
from batchscope.engine.calling import called
from batchscope.engine.evaluate import evaluate
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import advance
from batchscope.engine.vmap import Vmap
from batchscope.errors import StudyError, WorkloadError
from batchscope.plan.sampling import first_trials
from batchscope.runs.preflight import check_goals
from batchscope.spec.examples import as_tensors
from batchscope.spec.workload import Workload
from batchscope.tensors import leaves
from engine.workbench import study, training
from rows import first

N = 24
CROSS_ENTROPY = partial(F.cross_entropy, reduction="none")


class Augmented(Dataset[tuple[Tensor, int]]):
    """Draws from all three global generators."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.rand(2) + random.random() + np.random.rand()
        return torch.cat([torch.tensor([float(index)]), noise.float()]), index % 3


class Dicts(Dataset[dict[str, Any]]):
    """As Hugging Face data sets give items: lists and numbers."""

    def __init__(self, target: str = "labels", **more: Any) -> None:
        self.target, self.more = target, more

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": [index, 1, 2], "mask": [1, 1, 0], self.target: index % 3, **self.more}


class Passing(IterableDataset[tuple[Tensor, int]]):
    """In a random order, with random numbers in every example."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        for index in torch.randperm(N).tolist():
            yield torch.tensor([float(index), random.random(), np.random.rand()]), index % 3


def noisy(items: list[Any]) -> tuple[Tensor, Tensor]:
    """A collate_fn that draws, as one that masks words does."""
    return torch.stack([x for x, _ in items]) + torch.rand(()), torch.tensor([y for _, y in items])


def workload(train: Any, **more: Any) -> Workload:
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    held_out = (inputs, torch.arange(40) % 3)
    return Workload(partial(nn.Linear, 3, 3), CROSS_ENTROPY, train, more.pop("validation", held_out), **more)


def batches(train: Any, replicate: int = 0, **more: Any) -> Batches:
    return Batches(workload(train, **more), 0, replicate, torch.float32, torch.device("cpu"))


def inputs_of(found: Batches, start: int, count: int) -> Tensor:
    inputs, _ = found.take(start, count)
    assert isinstance(inputs, Tensor)
    return inputs


@pytest.mark.parametrize(
    ("workers", "collate"), first(3, [(0, None), (0, noisy), (2, noisy), (2, None), (1, noisy), (1, None)])
)
def test_examples_are_the_same_whoever_reads_them_and_wherever_one_begins(
    workers: int, collate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    loader: Any = DataLoader(Augmented(), batch_size=5, num_workers=workers, collate_fn=collate)
    steps = [(0, 4), (4, 4), (8, 4), (20, 8), (28, 8), (4, 4), (0, 4)]
    plain = {step: inputs_of(batches(DataLoader(Augmented(), collate_fn=collate)), *step) for step in steps}
    found = batches(loader)
    random.seed(workers)
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    for step in steps:
        assert torch.equal(inputs_of(found, *step), plain[step])
    # what trains has its own random numbers
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert repr(np.random.get_state()) == before[2]


def test_augmentation_depends_on_the_place_in_the_stream_alone() -> None:
    whole = inputs_of(batches(Augmented()), 0, 2 * N)
    halves = [inputs_of(batches(Augmented()), start, 8) for start in range(0, 2 * N, 8)]
    assert torch.equal(torch.cat(halves), whole)
    assert len(set(whole[:, 1].tolist())) == 2 * N  # drawn anew in every epoch
    assert not torch.equal(inputs_of(batches(Augmented(), replicate=1), 0, N), whole[:N])


@pytest.mark.parametrize("train", [Passing(), DataLoader(Passing(), num_workers=2, batch_size=3)])
def test_an_iterable_that_draws_is_read_the_same_again(train: Any) -> None:
    whole = inputs_of(batches(train), 0, 2 * N)
    found = batches(train)
    torch.rand(3), random.random()
    assert torch.equal(inputs_of(found, 5, 7), whole[5:12])
    assert torch.equal(inputs_of(found, 2, 30), whole[2:32])
    assert sorted(whole[:N, 0].tolist()) == list(range(N))


def test_a_sampler_says_which_examples_an_epoch_has() -> None:
    weights = torch.zeros(N)
    weights[[3, 7]] = torch.tensor([1.0, 3.0])
    weighted: Any = DataLoader(Augmented(), sampler=WeightedRandomSampler(weights.tolist(), 200), batch_size=8)
    found = workload(weighted)
    assert found.train_size == 200
    drawn = inputs_of(batches(weighted), 0, 200)[:, 0]
    assert set(drawn.tolist()) == {3.0, 7.0} and 108 < int((drawn == 7).sum()) < 192
    assert torch.equal(drawn, inputs_of(batches(weighted), 0, 200)[:, 0])
    some: Any = DataLoader(Augmented(), sampler=SubsetRandomSampler(range(5, 15)))
    assert sorted(inputs_of(batches(some), 10, 10)[:, 0].tolist()) == list(range(5, 15))
    (said,) = found.remarks
    assert "WeightedRandomSampler" in said and "not used are batch_size=8, shuffle and drop_last" in said


def test_what_a_loader_has_beside_its_data_is_said_once() -> None:
    loader: Any = DataLoader(Augmented(), batch_size=5, shuffle=True, num_workers=2, collate_fn=noisy)
    found = workload(loader)
    (said,) = found.remarks
    assert "used are its dataset, collate_fn and 2 workers; not used are batch_size=5" in said
    assert found.measuring(["accuracy"]).remarks == found.remarks
    plain: Any = DataLoader(TensorDataset(torch.zeros(4, 3), torch.zeros(4)), batch_size=2, shuffle=True)
    assert isinstance(workload(plain).train, TensorDataset)  # as quick as tensors


def test_batches_of_a_users_own_are_refused() -> None:
    class Buckets(BatchSampler):
        pass

    own: Any = DataLoader(Augmented(), batch_sampler=Buckets(SequentialSampler(Augmented()), 4, False))
    with pytest.raises(WorkloadError, match="batch_sampler, Buckets, and batches are made by the study"):
        workload(own)
    with pytest.raises(WorkloadError, match="whole batches"):
        workload(DataLoader(Augmented(), batch_size=None))


@pytest.mark.parametrize(("items", "target"), [(Dicts(), None), (Dicts("answer"), "answer")])
def test_of_items_that_are_dicts_the_target_is_apart(items: Dicts, target: str | None) -> None:
    inputs, targets = batches(items, target=target, validation=items).take(0, 6)
    assert isinstance(inputs, dict) and set(inputs) == {"input_ids", "mask"}
    assert isinstance(inputs["input_ids"], Tensor) and inputs["input_ids"].shape == (6, 3)
    assert torch.equal(targets, inputs["input_ids"][:, 0] % 3)  # type: ignore[arg-type]
    held_out, labels = as_tensors(items, target)
    assert isinstance(held_out, dict) and torch.equal(labels, torch.arange(N) % 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("items", "target", "words"),
    [
        (Dicts("answer"), None, r"'mask' \(Tensor\), 'answer'.*which of these is the target"),
        (Dicts(), "label", r"no key 'label'.*'labels' \(Tensor\).*target=\"labels\""),
        (Dicts(label=3), None, "which of these is the target"),
        (Dicts(text="a"), None, r"under 'text' what is no tensor \(text\).*remove_columns\(\"text\"\)"),
    ],
)
def test_a_target_that_cannot_be_told_lists_the_keys(items: Dicts, target: str | None, words: str) -> None:
    with pytest.raises(WorkloadError, match=words):
        batches(items, target=target).take(0, 2)


def test_tensors_in_a_dict_are_a_pair() -> None:
    data = {"x": torch.randn(8, 3), "y": torch.arange(8) % 3}
    found = workload(data, validation=data)
    assert isinstance(found.train, tuple) and found.train_size == 8
    with pytest.raises(WorkloadError, match="Of a dict of datasets give one, such as data"):
        workload({"train": Dicts()})


class ByName(nn.Module):
    def forward(self, input_ids: Any = None, mask: Any = None, **_: Any) -> Any:
        return {"logits": input_ids + mask}


class KeywordOnly(nn.Module):
    def forward(self, *, x: Any) -> Any:
        return x


class OneDict(nn.Module):
    def forward(self, batch: Any) -> Any:
        return batch["input_ids"]


class Two(nn.Module):
    def forward(self, first: Any, second: Any) -> Any:
        return first - second


def test_a_model_gets_its_inputs_as_it_takes_them() -> None:
    named = {"input_ids": torch.ones(2), "mask": torch.ones(2)}
    assert called(ByName(), named)["logits"].tolist() == [2, 2]
    assert called(OneDict(), named).tolist() == [1, 1]
    assert called(Two(), (torch.ones(1), torch.zeros(1))).item() == 1
    assert called(nn.Identity(), torch.ones(1)).item() == 1
    assert called(KeywordOnly(), {"x": torch.ones(1)}).item() == 1
    with pytest.raises(WorkloadError, match=r'KeywordOnly.forward takes x, .*\n.*\(\{"x": ...\}, targets\)'):
        called(KeywordOnly(), torch.ones(1))
    with pytest.raises(WorkloadError, match="inputs are a dict of input_ids, mask"):
        called(KeywordOnly(), named)


def nce(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compares the examples of a batch."""
    scores = outputs @ outputs.T
    return F.cross_entropy(scores, torch.arange(len(outputs)))


def contrastive(**more: Any) -> Workload:
    inputs = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(90)
    data = inputs, targets
    return Workload(partial(nn.Linear, 6, 4), nce, data, data, name="pairs", version="1", loss_per="batch", **more)


def test_a_loss_for_a_batch_is_minimised_as_it_is_and_averaged_over_fixed_batches() -> None:
    bench = training(
        contrastive(evaluation_batch_size=20),
        "goals=['validation/loss < 0']",
        "algorithm.optimizer=sgd",
        "search.space={learning_rate: 0.1}",
    )
    trial = first_trials(bench.loaded.study.search, 8, 0, 1)[0]
    pack = Pack.fresh(bench, [trial])
    found, taken = evaluate(Loop(bench).evaluate, bench, pack.state)
    model: Any = bench.loaded.module(trial.seed)
    (inputs,) = leaves(bench.loaded.validation[0])
    with torch.no_grad():
        expected = [float(nce(model(inputs[i : i + 20]), inputs)) for i in (0, 20, 40, 60)]  # the last 10 are left out
    assert found["loss"][0] == pytest.approx(sum(expected) / 4, rel=1e-12) and taken == [90]
    advanced = advance(Loop(bench), pack, 1, ())
    assert advanced is not None
    batch: Any = bench.batch(0)
    nce(model(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
    moved = model.weight - 0.1 * model.weight.grad
    torch.testing.assert_close(advanced[0].state["parameter/weight"][0], moved, rtol=1e-12, atol=1e-12)


def test_what_a_loss_for_a_batch_cannot_have_is_refused_and_what_it_costs_is_said() -> None:
    found = contrastive()
    assert "one after the other by the plain loop" in found.remarks[0]
    with pytest.raises(WorkloadError, match="the loss gives one value for a batch, which needs engine.program: loop"):
        Vmap(training(found, "goals=['validation/loss < 0']"))
    asked = study("algorithm.label_smoothing=0.1", "algorithm.discard_small_loss={fraction: 0.1}")
    with pytest.raises(
        StudyError, match="label_smoothing: (?s:.*)discard_small_loss: (?s:.*)engine.program: vmap cannot"
    ):
        check_goals(asked, found)
    with pytest.raises(WorkloadError, match="one value for the batch, got"):
        contrastive_training = training(contrastive(), "goals=['validation/loss < 0']")
        object.__setattr__(contrastive_training.loaded.workload, "loss", lambda o, t: o.sum(1))
        evaluate(
            Loop(contrastive_training).evaluate,
            contrastive_training,
            Pack.fresh(contrastive_training, first_trials(contrastive_training.loaded.study.search, 8, 0, 1)).state,
        )


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda outputs, targets: F.cross_entropy(outputs, targets), r"reduction='none'.*loss_per=\"batch\""),
        (lambda outputs, targets: outputs, r"\.flatten\(1\)\.mean\(1\)"),
        (lambda outputs, targets: 1.0, "got float"),
    ],
)
def test_a_loss_of_another_shape_is_told_what_to_write(loss: Any, words: str) -> None:
    inputs, targets = torch.randn(20, 6), torch.arange(20) % 3
    data = (inputs, targets)
    bench = training(Workload(partial(nn.Linear, 6, 3), loss, data, data), "goals=['validation/loss < 0']")
    with pytest.raises(WorkloadError, match=words):
        evaluate(Loop(bench).evaluate, bench, Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 1)).state)
