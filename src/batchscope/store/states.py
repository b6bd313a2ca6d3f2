"""Checkpoints: named tensors in a safetensors file, with a checksum over names, types, shapes and bytes."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from batchscope.errors import StoreError
from batchscope.store.disk import TEMPORARY, Files

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor

CHECKPOINTS, WEIGHTS, DAMAGED = "checkpoints", "weights", "damaged"
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SUFFIX = ".safetensors"


class States:
    """The checkpoints of one run folder, or the weights that it keeps."""

    def __init__(self, files: Files, folder: str = CHECKPOINTS) -> None:
        """Nothing is read yet."""
        self._files, self._folder = files, folder

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Write a state durably, replacing the one with this key."""
        from safetensors.torch import save  # here, because tables are read without torch

        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._files.write(self._name(key), save(plain, {"sha256": _checksum(plain)}))

    def load(self, key: str) -> tuple[dict[str, Tensor] | None, str]:
        """The state with this key, or None and what is wrong with it."""
        from safetensors.torch import load  # here, because tables are read without torch

        name = self._name(key)
        try:
            data = self._files.read(name)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            tensors: dict[str, Tensor] = load(data)
            if header["__metadata__"]["sha256"] == _checksum(tensors):
                return tensors, ""
        except FileNotFoundError:
            return None, f"{name} is missing"
        except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, OverflowError):
            pass
        return None, f"{name} is damaged"

    def set_aside(self, key: str) -> None:
        """Move a damaged state out of the way, keeping it."""
        name = self._name(key)
        if self._files.exists(name):
            self._files.move(name, f"{DAMAGED}/{name.replace('/', '-')}")

    def keys(self) -> list[str]:
        """The keys of all states, sorted."""
        return [name.removesuffix(_SUFFIX) for name in self._files.names(self._folder) if name.endswith(_SUFFIX)]

    def drop(self, keys: Collection[str]) -> None:
        """Remove states; missing ones are no fault."""
        for key in keys:
            self._files.remove(self._folder, self._name(key).rpartition("/")[2])

    def _name(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise StoreError(f"a state's key holds letters, digits, '_', '-' and '.', at most 128; got {key!r}")
        return f"{self._folder}/{key}{_SUFFIX}"

    def tidy(self) -> None:
        """Remove what a write cut short has left."""
        for name in self._files.names(self._folder):
            if TEMPORARY.fullmatch(name):
                self._files.remove(self._folder, name)


def weights_name(batch_size: int, trial: str, step: int) -> str:
    """The key of the weights that a trial had after a step."""
    return f"{batch_size}-{trial}-{step}"


def _checksum(tensors: dict[str, Tensor]) -> str:
    import torch  # here, because tables are read without it

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name!r} {tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
