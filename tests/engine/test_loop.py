"""The plain loop is what a user would write, whatever the module: random numbers, frozen and shared parts, hooks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from batchscope.engine.batches import Batches
from batchscope.engine.evaluate import evaluate
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import advance
from batchscope.engine.randomness import keeping_generators, seed_step
from batchscope.engine.training import Loaded
from batchscope.plan.sampling import first_trials
from engine.workbench import Plain, classification, study, training

STEPS = 6
SGD = ("algorithm={optimizer: momentum, weight_decay: 0.01}", "search.space={learning_rate: 0.05, momentum: 0.9}")
CPU = torch.device("cpu")


class Tied(nn.Module):
    """One weight and one buffer, each under two names."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight
        self.register_buffer("seen", torch.zeros(6))
        self.second.register_buffer("seen", self.seen)

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen += inputs.detach().mean(0)
        outputs: Tensor = self.last(self.second(torch.tanh(self.first(inputs))) + self.second.seen)
        return outputs


class Frozen(nn.Module):
    """A layer that stays, and one that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.unused = nn.Linear(6, 12), nn.Linear(12, 3), nn.Linear(2, 2)
        self.first.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(torch.relu(self.first(inputs)))
        return outputs


class Checkpointed(nn.Module):
    """Activations that are computed again, by torch's older way, which works under ``backward`` only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Linear(6, 12), nn.Tanh()), nn.Linear(12, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = checkpoint(self.first, inputs.requires_grad_(), use_reentrant=True)
        outputs: Tensor = self.last(hidden)
        return outputs


def normed() -> nn.Module:
    spectral = parametrizations.spectral_norm(nn.Linear(6, 12))
    return nn.Sequential(spectral, nn.ReLU(), parametrizations.weight_norm(nn.Linear(12, 3)))


def hooked() -> nn.Module:
    net = nn.Linear(6, 3)
    net.weight.register_hook(lambda gradient: 2 * gradient)  # type: ignore[no-untyped-call]
    return net


class Sometimes(nn.Module):
    """Leaves a layer out by Python's random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        kept = not self.training or random.random() < 0.5
        outputs: Tensor = self.last(inputs + self.first(inputs) if kept else inputs * np.random.rand())
        return outputs


class Narrow(nn.Module):
    """A last layer in bfloat16, which the model converts to and from."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 3).bfloat16()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(torch.tanh(self.first(inputs)).bfloat16()).to(inputs.dtype)
        return outputs


@pytest.mark.parametrize("model", [Tied, Frozen, Checkpointed, normed, hooked, Sometimes, Narrow])
def test_the_loop_is_what_a_user_would_write_for_any_module(model: Callable[[], nn.Module]) -> None:
    workload = classification(model)
    bench = training(workload, *SGD)
    trial = first_trials(bench.loaded.study.search, 8, 0, 1)[0]
    with keeping_generators(CPU):
        torch.manual_seed(trial.seed)
        net = model().double()
        if isinstance(net, Tied):  # torch's own ``double`` takes shared buffers apart
            net.second.seen = net.seen
        if isinstance(net, Narrow):
            net.last.bfloat16()
        sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01, fused=isinstance(net, Narrow))
        for step in range(STEPS):
            inputs, targets = bench.batch(step)
            seed_step(bench, step, python=True)
            sgd.zero_grad()
            workload.loss(net(inputs), targets).mean().backward()  # type: ignore[no-untyped-call]
            sgd.step()
        # Another trial in between: what is loaded must be all that there is.
        loop = Loop(bench)
        advance(loop, Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 1, 1)), 2, ())
        pack: Pack | None = Pack.fresh(bench, [trial])
        for until in (2, STEPS):
            advanced = advance(loop, pack, until, ()) if pack else None
            pack = advanced and advanced[0]
    assert pack is not None
    expected: dict[str, Tensor] = {}
    for name, parameter in net.named_parameters():
        expected[f"{'parameter' if parameter.requires_grad else 'buffer'}/{name}"] = parameter
    expected.update({f"buffer/{name}": buffer for name, buffer in net.named_buffers()})
    assert {name for name in pack.state if not name.startswith("slot/")} == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(pack.state[name][0], value.detach(), rtol=1e-12, atol=1e-12)


class Shifting(nn.Module):
    """Writes into what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LeakyReLU(0.5, inplace=True), nn.Linear(6, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs


def test_a_module_that_writes_into_its_inputs_finds_the_same_examples_every_time() -> None:
    bench = training(classification(Shifting))
    loop, state = Loop(bench), Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 2)).state
    before = evaluate(loop.evaluate, bench, state)
    assert evaluate(loop.evaluate, bench, state) == before


class Drawn(nn.Module):
    """Random at its evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs * torch.rand_like(inputs) * random.random())
        return outputs


def test_random_numbers_of_an_evaluation_depend_on_nothing_before_it() -> None:
    bench = training(classification(Drawn))
    loop, pack = Loop(bench), Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 3))
    whole, _ = evaluate(loop.evaluate, bench, pack.state)
    alone, _ = evaluate(loop.evaluate, bench, pack.only([2]).state)
    assert alone["loss"][0] == whole["loss"][2]


def test_initial_values_drawn_by_python_and_numpy_come_from_the_trials_seed() -> None:
    def model() -> nn.Module:
        net = Plain()
        nn.init.constant_(net.get_parameter("layers.0.bias"), random.random() + float(np.random.rand()))
        return net

    loaded = training(classification(model)).loaded
    one, other, again = (loaded.module(seed).state_dict()["layers.0.bias"] for seed in (1, 2, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


class Augmented(Dataset[Any]):
    """Examples shifted by all three kinds of random numbers."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.rand(6) + random.random() + float(np.random.rand()) + index, index % 3


def augmented_epochs(seed: int) -> Iterator[Any]:
    return (Augmented()[i] for i in range(20))


@pytest.mark.parametrize("train", [Augmented(), augmented_epochs])
def test_augmentation_depends_on_the_place_in_the_stream_only(train: Any) -> None:
    workload = replace(classification(), train=train)
    straight, again = (Batches(workload, 0, 0, torch.float64, CPU) for _ in range(2))
    expected = [straight.take(start, 4)[0] for start in range(0, 32, 4)]
    random.random()
    np.random.rand()
    torch.rand(1)
    for start in (12, 4, 28):
        assert torch.equal(again.take(start, 4)[0], expected[start // 4])  # type: ignore[arg-type]


def test_a_validation_set_that_draws_is_the_same_for_every_worker() -> None:
    workload = replace(classification(), validation=Augmented())
    one, other = (Loaded(workload, study(), CPU).validation[0] for _ in range(2))
    assert torch.equal(one, other)  # type: ignore[arg-type]


def test_the_callers_random_numbers_are_left_alone() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    with keeping_generators(CPU):
        bench = training(classification(Sometimes))
        advance(Loop(bench), Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 1)), 3, (3,))
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), before[2])
