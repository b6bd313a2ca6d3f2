"""The devices that trials can be trained on."""

from __future__ import annotations

import torch

from batchscope.errors import StudyError


def resolve_device(device: str) -> str:
    """The device that a name stands for here.

    Raises:
        StudyError: If there is no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise StudyError(f"no device is called {device!r}; write --device cpu or --device cuda") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise StudyError(f"no CUDA device is available here, got {device!r}; write --device cpu")
    return device
