"""The drop-ins on parameters that two processes share out (FSDP), beside one process that has them whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from batchscope.errors import StudyError
from optim.test_optim_torch import CASES

WHOLE = ("LARS", "LAMB", "PercentDelta", "CBLR", "MCLR", "MCLR literal", "Muon", "Adafactor")
RANKS, STEPS = 2, 3


def model() -> nn.Sequential:
    """A layer that does not divide by two, and one of which a process has nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).double()


def train(own: nn.Module, optimizer: torch.optim.Optimizer, rank: int, ranks: int) -> None:
    for step in range(STEPS):
        inputs = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        own(inputs[rank::ranks]).square().mean().backward()
        optimizer.step()


def work(rank: int, folder: str) -> None:
    """Every optimizer in one of the processes."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    for name, case in CASES.items():
        sharded, alone = model(), model()
        fully_shard(sharded, mesh=mesh)
        if name in WHOLE:
            with pytest.raises(StudyError, match="sharded"):
                case.make(sharded.parameters())
            continue
        optimizer, reference = case.make(sharded.parameters()), case.make(alone.parameters())
        train(sharded, optimizer, rank, RANKS)
        train(alone, reference, 0, 1)
        check(sharded, alone, name)
        # What torch's distributed checkpoints keep is the state of the whole model.
        found: Any = get_optimizer_state_dict(sharded, optimizer, options=StateDictOptions(full_state_dict=True))
        wanted: Any = get_optimizer_state_dict(alone, reference)
        for parameter, slots in wanted["state"].items():
            for slot, value in slots.items():
                torch.testing.assert_close(found["state"][parameter][slot], value, rtol=1e-9, atol=1e-12, msg=name)
        if name == "ScheduleFreeAdamW":
            for each in (optimizer, reference):
                each.eval()  # type: ignore[attr-defined]
            check(sharded, alone, name)
    dist.destroy_process_group()


def check(sharded: nn.Module, alone: nn.Module, name: str) -> None:
    for own, wanted in zip(sharded.parameters(), alone.parameters(), strict=True):
        whole: Tensor = own.full_tensor()  # type: ignore[attr-defined]
        torch.testing.assert_close(whole, wanted, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed training")
def test_shards_are_updated_as_the_whole_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=RANKS)  # type: ignore[attr-defined, no-untyped-call]
