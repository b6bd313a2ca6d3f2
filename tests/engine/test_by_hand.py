"""Whatever model a study trains, a loop by hand and a probe train too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import batchscope as bs
from batchscope.probing.updates import ProbeSetup, Trainer
from engine.zoo import MODELS, Then, head, workload


def half_head() -> nn.Module:
    layers = {"first": nn.Linear(6, 8), "last": head(8).to(torch.bfloat16)}
    return Then(lambda net, x: net.last(net.first(x).to(torch.bfloat16)).float(), **layers)


ODD: dict[str, Callable[[], bs.Workload]] = {
    **{name: MODELS[name] for name in ("sparse embedding", "complex buffer", "dicts")},
    "head in half precision": partial(workload, half_head, 6),
    "half precision": partial(workload, lambda: head(6).half(), 6),
    "double precision": partial(workload, lambda: head(6).double(), 6),
}


@pytest.mark.parametrize(
    "name", [*ODD, *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in ODD)]
)
def test_a_loop_by_hand_and_a_probe_take_what_a_study_takes(name: str) -> None:
    """Torch's own Adam refuses a gradient that is sparse, and layers whose dtypes differ from their inputs'."""
    given = (ODD | MODELS)[name]()
    hand = bs.ByHand(given, device="cpu")
    model = hand.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    hand.loss(model, next(hand.batches(7))).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert 0 < hand.measure(model)["validation/loss"] < 100
    setup = ProbeSetup("", None, "cpu", 1, "nesterov", "float32", None, 0)
    trainer = Trainer(given, setup, own_process=False)
    inputs, targets = trainer._fetch(7)
    trainer.update(iter([((inputs, targets), 1.0)]))
    trainer.close()


def test_sparse_gradients_are_written_out() -> None:
    """Two parts of a batch that is accumulated: the second is added to a gradient that is written out already."""
    hand = bs.ByHand(MODELS["sparse embedding"](), device="cpu")
    model = hand.model()
    inputs, targets = next(hand.batches(8))
    assert isinstance(inputs, Tensor)
    assert isinstance(targets, Tensor)
    for k in (0, 4):
        hand.loss(model, (inputs[k : k + 4], targets[k : k + 4])).mul(0.5).backward()  # type: ignore[no-untyped-call]
    dense = nn.Sequential(nn.Embedding(3, 8), nn.Flatten(), head(40))
    dense.load_state_dict(model.state_dict())
    hand.loss(dense, (inputs, targets)).backward()  # type: ignore[no-untyped-call]
    for mine, other in zip(model.parameters(), dense.parameters(), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert mine.grad.layout is torch.strided
        torch.testing.assert_close(mine.grad, other.grad)
