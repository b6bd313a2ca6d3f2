"""How a model is given its inputs: as one argument, or by the names of a dict."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from batchscope.errors import WorkloadError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def called(module: nn.Module, inputs: Any) -> Any:
    """What a model makes of inputs; errors are those of ``arguments``."""
    positional, named = arguments(module, inputs)
    return module(*positional, **named)


def arguments(module: nn.Module, inputs: Any) -> Arguments:
    """Positional and keyword arguments for ``forward``.

    A dict is given by keyword where its names are parameters, which is how models of Hugging Face take it, else as one
    argument; a tuple as one argument where ``forward`` takes one, else as several.

    Raises:
        WorkloadError: If ``forward`` takes the inputs in none of these ways.
    """
    way = _way(_forward(module), _kind(inputs))
    if way == "keywords":
        return (), dict(inputs)
    if way == "several":
        return tuple(inputs), {}
    if way is None:
        raise WorkloadError(_refused(module, inputs))
    return (inputs,), {}


def _forward(module: nn.Module) -> Callable[..., Any]:
    return module.__dict__.get("forward") or type(module).forward.__get__(_SELF)  # type: ignore[no-any-return]


class _Self:
    """Stands for any module, so that signatures are looked up by class."""


_SELF = _Self()


def _kind(inputs: Any) -> tuple[str, ...] | int:
    if isinstance(inputs, dict):
        return tuple(inputs)
    return len(inputs) if isinstance(inputs, tuple | list) else 0


@lru_cache(maxsize=256)
def _way(forward: Callable[..., Any], kind: tuple[str, ...] | int) -> str | None:
    """How inputs of a kind are given: names of a dict, the length of a tuple, or 0 for a tensor."""
    try:
        signature = inspect.signature(forward)
    except (TypeError, ValueError):  # of compiled code, which does not say
        return "one"
    takes_one = _binds(signature, None)
    if isinstance(kind, tuple) and _binds(signature, **dict.fromkeys(kind)):
        own = {p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD}
        if own & set(kind) or not takes_one:
            return "keywords"
    if takes_one:
        return "one"
    return "several" if isinstance(kind, int) and kind and _binds(signature, *[None] * kind) else None


def _binds(signature: inspect.Signature, *positional: None, **named: None) -> bool:
    try:
        signature.bind(*positional, **named)
    except TypeError:
        return False
    return True


def _refused(module: nn.Module, inputs: Any) -> str:
    parameters = inspect.signature(_forward(module)).parameters.values()
    takes = f"{type(module).__name__}.forward takes {', '.join(p.name for p in parameters) or 'nothing'}"
    needed = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if isinstance(inputs, Tensor):
        keys = ", ".join(f'"{name}": ...' for name in needed)
        return f"{takes}, and not one tensor without a name:\ngive inputs as a dict: ({{{keys}}}, targets)"
    got = f"a dict of {', '.join(inputs)}" if isinstance(inputs, dict) else f"a tuple of {len(inputs)}"
    return f"{takes}, and the inputs are {got}:\ngive them under these names, without others that it does not take"
