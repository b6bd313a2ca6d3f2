"""Checkpoints come back bit for bit, or not at all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from batchscope.errors import StoreError
from batchscope.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "run", "workload: x\n", {})


STATE = {
    "weight": torch.tensor([[1.0, float("nan")], [-0.0, float("inf")]]),
    "step": torch.tensor(7),
    "half": torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
    "double": torch.tensor([[1.0]], dtype=torch.float64).t(),
    "mask": torch.tensor([True, False]),
    "none": torch.zeros(0, 3),
    "strided": torch.arange(6).reshape(2, 3).t(),
}


def test_tensors_of_every_kind_come_back_bit_for_bit(store: Store) -> None:
    store.save_state("pack-3-40", STATE)
    loaded = store.load_state("pack-3-40")
    assert loaded is not None and set(loaded) == set(STATE)
    for name, tensor in STATE.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        left, right = (value.contiguous().reshape(-1).view(torch.uint8) for value in (loaded[name], tensor))
        assert torch.equal(left, right)
    loaded["weight"][0, 0] = 5.0  # and can be trained on
    assert store.warnings == []


def test_saving_again_replaces(store: Store) -> None:
    store.save_state("a", {"x": torch.zeros(1)})
    store.save_state("a", {"x": torch.ones(2)})
    loaded = store.load_state("a")
    assert loaded is not None and torch.equal(loaded["x"], torch.ones(2))
    store.save_state("b", {})
    assert store.load_state("b") == {} and store.state_keys() == ["a", "b"]
    store.drop_states(["a", "never"])
    assert store.state_keys() == ["b"]


def test_a_missing_state_is_none_and_named(store: Store) -> None:
    assert store.load_state("a") is None
    assert store.warnings == ["checkpoints/a.safetensors is missing: its units are run again"]


def test_every_flipped_bit_and_every_cut_is_found(store: Store) -> None:
    store.save_state("a", {"weight": torch.arange(4.0), "step": torch.tensor(3)})
    path = store.folder / "checkpoints" / "a.safetensors"
    good = path.read_bytes()
    generator = random.Random(0)
    damaged: list[bytes] = [good[:length] for length in (0, 7, 8, 50, len(good) - 1)]
    for place in range(len(good)):
        flipped = bytearray(good)
        flipped[place] ^= 1 << generator.randrange(8)
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        loaded = store.load_state("a")
        if loaded is not None:  # a flip in the padding of the header changes nothing
            assert torch.equal(loaded["weight"], torch.arange(4.0)) and loaded["step"] == 3
            assert list(loaded) == ["weight", "step"] or set(loaded) == {"weight", "step"}
        else:
            assert not path.exists() and (store.folder / "damaged" / "checkpoints-a.safetensors").exists()
    assert len(store.warnings) > len(good) / 2


def test_a_reader_leaves_a_damaged_state_where_it_is(store: Store) -> None:
    store.save_state("a", {"x": torch.zeros(1)})
    path = store.folder / "checkpoints" / "a.safetensors"
    path.write_bytes(b"x")
    reader = Store.open(store.folder)
    assert reader.load_state("a") is None and path.exists()


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".hidden", "x" * 200, "a\0", "ä"])
def test_a_key_that_is_no_plain_name_is_refused(store: Store, key: str) -> None:
    with pytest.raises(StoreError, match="key holds letters"):
        store.save_state(key, {})
    with pytest.raises(StoreError, match="key holds letters"):
        store.load_state(key)
