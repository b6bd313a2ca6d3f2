"""Micro batches: the gradient of the whole batch, in as few parts as fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from batchscope.errors import ScheduleError
from batchscope.schedules import accumulate_gradients, accumulation, in_parts


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def data(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(batch, 5, dtype=torch.float64, generator=generator)
    return inputs, torch.randint(0, 3, (batch,), generator=generator)


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def gradients(net: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("micro", [1, 2, 3, 5, 7, 16, 37, 100])
def test_unequal_parts_give_the_whole_batch_gradient(micro: int) -> None:
    whole, parts, batch = model(), model(), data(37)
    loss = nn.functional.cross_entropy(whole(batch[0]), batch[1])
    backward(loss)
    mean = accumulate_gradients(lambda part: nn.functional.cross_entropy(parts(part[0]), part[1]), batch, micro)
    assert float(mean) == pytest.approx(float(loss.detach()), rel=1e-13)
    assert not mean.requires_grad
    for a, b in zip(gradients(whole), gradients(parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_equal_weights_would_be_wrong() -> None:
    """Why the shares are needed: the mean of the parts' means is another gradient."""
    whole, wrong, batch = model(), model(), data(37)
    backward(nn.functional.cross_entropy(whole(batch[0]), batch[1]))
    cut = [part for part, _ in in_parts(batch, 16)]
    for inputs, targets in cut:
        backward(nn.functional.cross_entropy(wrong(inputs), targets) / len(cut))
    assert max(float((a - b).abs().max()) for a, b in zip(gradients(whole), gradients(wrong), strict=True)) > 1e-3


class Pair(NamedTuple):
    inputs: Tensor
    targets: Tensor


def test_parts_have_the_form_of_the_batch() -> None:
    inputs, targets = data(10)
    for batch in (
        inputs,
        (inputs, targets),
        [inputs, targets],
        Pair(inputs, targets),
        {"x": inputs, "n": {"y": targets}},
    ):
        parts = list(in_parts(batch, 4))
        assert [type(part) for part, _ in parts] == [type(batch)] * 3
        assert [share for _, share in parts] == [0.4, 0.4, 0.2]
    ((first, _), *_) = in_parts({"x": inputs, "n": {"y": targets}, "name": "a"}, 4)
    assert torch.equal(first["n"]["y"], targets[:4])
    assert first["name"] == "a"
    assert sum(share for _, share in in_parts(data(37), 16)) == 1


def test_ranks_wait_for_each_other_in_the_last_part_only() -> None:
    net, log = model(), list[str]()

    @contextmanager
    def no_sync() -> Iterator[None]:
        log.append("apart")
        yield

    def logged(loss: Tensor) -> None:
        log.append("backward")
        backward(loss)

    def loss(part: Any) -> Tensor:
        log.append("forward")  # DistributedDataParallel evaluations at the context in the forward pass
        return nn.functional.cross_entropy(net(part[0]), part[1])

    accumulate_gradients(loss, data(10), 4, backward=logged, no_sync=no_sync)
    assert log == ["apart", "forward", "backward"] * 2 + ["forward", "backward"]


@given(st.integers(1, 10_000), st.integers(1, 2000), st.integers(1, 16))
def test_as_few_parts_as_fit(share: int, largest: int, ranks: int) -> None:
    plan = accumulation(share * ranks, largest, ranks)
    assert plan.micro_batch_size <= largest
    assert plan.micro_batch_size * plan.accumulation_steps >= share
    assert plan.micro_batch_size * (plan.accumulation_steps - 1) < share  # the last part has something to do
    assert plan.accumulation_steps == -(-share // largest)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ScheduleError, match="granularity=3"):
        accumulation(128, 32, 3)
    with pytest.raises(ScheduleError, match="max_micro_batch_size must be at least 1"):
        accumulation(128, 0)
    with pytest.raises(ScheduleError, match="micro_batch_size must be at least 1"):
        list(in_parts(torch.ones(3), 0))
    batches: list[Any] = [(torch.ones(3), torch.ones(4)), torch.ones(0), torch.tensor(1.0), "text", []]
    for batch in batches:
        with pytest.raises(ScheduleError, match="tensors of one length"):
            list(in_parts(batch, 2))
