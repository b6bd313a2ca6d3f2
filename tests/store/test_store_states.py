"""Checkpoints come back bit for bit, or not at all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from batchscope.errors import StoreError
from batchscope.store import Store
from batchscope.store.disk import Files
from batchscope.store.states import States


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Store.create(tmp_path, "workload: x\n", {}).close()
    return tmp_path


@pytest.fixture
def states(folder: Path) -> States:
    return States(Files(folder))


STATE = {
    "weight": torch.tensor([[1.0, float("nan")], [-0.0, float("inf")]]),
    "step": torch.tensor(7),
    "half": torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
    "double": torch.tensor([[1.0]], dtype=torch.float64).t(),
    "mask": torch.tensor([True, False]),
    "none": torch.zeros(0, 3),
    "strided": torch.arange(6).reshape(2, 3).t(),
}


def test_tensors_of_every_kind_come_back_bit_for_bit(states: States) -> None:
    states.save("pack-3-40", STATE)
    loaded, reason = states.load("pack-3-40")
    assert loaded is not None and set(loaded) == set(STATE)
    for name, tensor in STATE.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        left, right = (value.contiguous().reshape(-1).view(torch.uint8) for value in (loaded[name], tensor))
        assert torch.equal(left, right)
    loaded["weight"][0, 0] = 5.0  # and can be trained on
    assert reason == ""


def test_saving_again_replaces(states: States) -> None:
    states.save("a", {"x": torch.zeros(1)})
    states.save("a", {"x": torch.ones(2)})
    loaded, _ = states.load("a")
    assert loaded is not None and torch.equal(loaded["x"], torch.ones(2))
    states.save("b", {})
    assert states.load("b") == ({}, "") and states.keys() == ["a", "b"]
    states.drop(["a", "never"])
    assert states.keys() == ["b"]


def test_a_missing_state_is_none_and_named(states: States) -> None:
    assert states.load("a") == (None, "checkpoints/a.safetensors is missing")


def test_every_flipped_bit_and_every_cut_is_found(states: States, folder: Path) -> None:
    states.save("a", {"weight": torch.arange(4.0), "step": torch.tensor(3)})
    path = folder / "checkpoints" / "a.safetensors"
    good = path.read_bytes()
    generator = random.Random(0)
    damaged: list[bytes] = [good[:length] for length in (0, 7, 8, 50, len(good) - 1)]
    for place in range(len(good)):
        flipped = bytearray(good)
        flipped[place] ^= 1 << generator.randrange(8)
        damaged.append(bytes(flipped))
    found = 0
    for data in damaged:
        path.write_bytes(data)
        loaded, reason = states.load("a")
        if loaded is not None:  # a flip in the padding of the header changes nothing
            assert torch.equal(loaded["weight"], torch.arange(4.0)) and loaded["step"] == 3
            assert list(loaded) == ["weight", "step"] or set(loaded) == {"weight", "step"}
        else:
            assert reason == "checkpoints/a.safetensors is damaged"
            found += 1
    assert found > len(good) / 2


def test_a_damaged_state_is_set_aside_and_kept(states: States, folder: Path) -> None:
    states.save("a", {"x": torch.zeros(1)})
    path = folder / "checkpoints" / "a.safetensors"
    path.write_bytes(b"x")
    assert states.load("a")[0] is None and path.exists()
    states.set_aside("a")
    assert not path.exists() and (folder / "damaged" / "checkpoints-a.safetensors").read_bytes() == b"x"


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".hidden", "x" * 200, "a\0", "ä"])
def test_a_key_that_is_no_plain_name_is_refused(states: States, key: str) -> None:
    with pytest.raises(StoreError, match="key holds letters"):
        states.save(key, {})
    with pytest.raises(StoreError, match="key holds letters"):
        states.load(key)
