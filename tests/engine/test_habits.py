"""What a workload's code does that no graph can hold is seen in one step, even where its numbers cannot tell yet."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.engine.habits import Habits, habits
from batchscope.engine.vmap import Vmap
from batchscope.errors import WorkloadError
from batchscope.spec.workload import Workload
from engine.workbench import classification, normalised, training

CALLS = [0]


class Net(nn.Module):
    """A layer, and something else on the way."""

    count: Tensor

    def __init__(self, between: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.between, self.calls = nn.Linear(6, 3), between, 0
        self.seen: list[int] = []
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.own = random.Random(0)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(self.between(self, inputs))
        return outputs


def late_branch(net: Net, inputs: Tensor) -> Tensor:
    net.count += 1  # noqa: PLW2901
    return inputs * 2 if net.count > 1000 else inputs


def counter(net: Net, inputs: Tensor) -> Tensor:
    net.calls += 1
    return inputs * 2 if net.calls > 1000 else inputs


def global_counter(net: Net, inputs: Tensor) -> Tensor:
    CALLS[0] += 1
    return inputs


def own_list(net: Net, inputs: Tensor) -> Tensor:
    net.seen.append(1)
    return inputs


def python_draw(net: Net, inputs: Tensor) -> Tensor:
    return inputs * 2 if random.random() < 0.5 else inputs


def rare_draw(net: Net, inputs: Tensor) -> Tensor:
    return inputs * np.random.rand() if net.linear.weight.shape[0] > 1000 else inputs


def own_draw(net: Net, inputs: Tensor) -> Tensor:
    return inputs * net.own.random()


def listed(net: Net, inputs: Tensor) -> Tensor:
    return inputs * 2 if inputs[:, 0].detach().tolist()[0] > 1e9 else inputs


def through_numpy(net: Net, inputs: Tensor) -> Tensor:
    return inputs * float(inputs.detach().numpy().max() < 1e9)


def masked(net: Net, inputs: Tensor) -> Tensor:
    return inputs - inputs[inputs > 0].mean()


def in_place(net: Net, inputs: Tensor) -> Tensor:
    return inputs.sub_(0.1)


def last_output(net: Net, inputs: Tensor) -> Tensor:
    net.last = inputs * 2
    return inputs


UNFIT: dict[Callable[[Any, Tensor], Tensor], str] = {
    late_branch: "item, or if",
    counter: r"changes Net\.calls",
    global_counter: r"changes CALLS of global_counter",
    own_list: r"changes Net\.seen",
    python_draw: "random numbers",
    rare_draw: "random numbers",
    own_draw: r"changes Net\.own|random numbers",
    listed: "tolist",
    through_numpy: "numpy",
    masked: "index",
    in_place: "in place",
    last_output: r"changes Net\.last",
}


@pytest.mark.parametrize("between", UNFIT, ids=lambda between: between.__name__)
def test_what_no_graph_can_hold_is_named(between: Callable[[Any, Tensor], Tensor]) -> None:
    bench = training(classification(lambda: Net(between)))
    with pytest.raises(WorkloadError, match=UNFIT[between]):
        Vmap(bench)


def test_what_no_checkpoint_holds_is_said() -> None:
    found = habits(training(classification(lambda: Net(counter))).loaded)
    assert "changes Net.calls in every step" in found.remark and "register_buffer" in found.remark
    assert not habits(training(classification(lambda: Net(late_branch))).loaded).remark


def test_a_loss_that_counts_is_named() -> None:
    counted = [0]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        counted[0] += 1
        return F.cross_entropy(outputs, targets, reduction="none")

    with pytest.raises(WorkloadError, match="changes counted of .*loss"):
        Vmap(training(replace(classification(), loss=loss)))


def test_a_parameter_with_a_hook_is_named() -> None:
    def model() -> nn.Module:
        net = nn.Linear(6, 3)
        net.weight.register_hook(lambda gradient: gradient * 2)  # type: ignore[no-untyped-call]
        return net

    with pytest.raises(WorkloadError, match="the parameter weight has a hook"):
        Vmap(training(classification(model)))


class Quiet(nn.Module):
    """Initialised by numpy, cached in a local, nothing kept: a graph holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        nn.init.constant_(self.linear.bias, float(np.random.rand()))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs * float(np.sqrt(2)))
        return outputs


@pytest.mark.parametrize(
    "workload",
    [
        classification(),
        classification(normalised),
        classification(Quiet),
        replace(classification(), loss=partial(F.cross_entropy, reduction="none", label_smoothing=0.1)),
    ],
)
def test_what_a_graph_can_hold_has_no_habits(workload: Workload) -> None:
    assert habits(training(workload).loaded) == Habits()
