"""What a workload's code does beside computing tensors from tensors, which no graph can hold.

A graph is taken from one call and repeated for ever: a branch on a value, a draw from Python's random numbers or a
counter in an attribute stays as it was then. Numbers of a few steps would not tell, for a branch may turn at the
thousandth. So one step and one evaluation are watched as they run in the plain loop: which operations hand values to
Python, which attributes, closures and globals they leave changed, and which functions they may call.
"""

from __future__ import annotations

import functools
import itertools
import random
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from batchscope.engine.calling import called as call
from batchscope.seeds import seeded
from batchscope.tensors import leaves, map_pair

if TYPE_CHECKING:
    from batchscope.engine.training import Loaded

# Examples that are watched: more than one for batch norm, few for the time.
WATCHED = 8

# Of the contents of a list or dict; what grows is noticed by its length.
MOST_LOOKED_AT = 1000

# Attributes of every module, which torch keeps for itself.
_INTERNAL = frozenset(vars(nn.Module()))
# Of a tensor, what hands its values to Python without an operation.
_HANDS_OVER = {getattr(Tensor, name): name for name in ("tolist", "numpy", "__array__", "item")}


@dataclass(frozen=True)
class Habits:
    """How a workload's code behaves.

    Attributes:
        unfit: Why no graph can hold it; empty where one can.
        remark: What of it not even the loop can keep from trial to trial; mostly empty.
        draws: Whether it may draw from Python's or numpy's random numbers.
        writes_inputs: Whether it changes its inputs or targets in place.
    """

    unfit: str = ""
    remark: str = ""
    draws: bool = False
    writes_inputs: bool = False


_UNKNOWN = Habits("a step of it fails", draws=True, writes_inputs=True)
_KNOWN: weakref.WeakKeyDictionary[Loaded, Habits] = weakref.WeakKeyDictionary()


def habits(loaded: Loaded) -> Habits:
    """Of a workload, watched when they are first asked for."""
    if loaded not in _KNOWN:
        # A batch of few examples may be one that the model cannot take.
        _KNOWN[loaded] = _tried(loaded, WATCHED) or _tried(loaded, max(loaded.study.batch_sizes)) or _UNKNOWN
    return _KNOWN[loaded]


def _tried(loaded: Loaded, size: int) -> Habits | None:
    try:
        return _watched(loaded, size)
    except Exception:  # of the user's own code: it fails again, and is told, where it is trained
        return None


def _watched(loaded: Loaded, size: int) -> Habits:
    module, workload = loaded.module(), loaded.workload
    called = [workload.loss, *workload.metrics.values()]
    functions = list(_functions(module, called))
    draws = any(map(_may_draw, functions))
    hooked = next((name for name, parameter in module.named_parameters() if _has_hooks(parameter)), None)
    batch = map_pair(Tensor.clone, loaded.batches(0).take(0, size))
    before = _standing(module, called, functions)
    _once(loaded, module, batch)
    warm = _standing(module, called, functions)
    versions = [tensor._version for tensor in leaves(batch)]
    watch = _Values()
    with seeded(0):
        generators = _generators()
        with watch, _Calls(watch):
            _once(loaded, module, batch)
        drew = _generators() != generators
    after = _standing(module, called, functions)
    lasting, once = _changed(warm, after), _changed(before, after)
    writes = [tensor._version for tensor in leaves(batch)] != versions
    if watch.found:
        unfit = f"it decides by a value of a tensor ({watch.found}), which a graph would freeze"
    elif drew or draws:
        unfit = "it draws from Python's or numpy's random numbers, which a graph would freeze"
    elif once:
        unfit = f"it changes {once} outside of tensors that torch knows, which a graph would freeze"
    elif hooked:
        unfit = f"the parameter {hooked} has a hook, which a graph would leave out"
    else:
        unfit = "it changes its inputs in place, which trials share" if writes else ""
    remark = ""
    if lasting:
        remark = (
            f"the model changes {lasting} in every step: no checkpoint holds it, and trials share it. If its outputs "
            "depend on it, keep it in a buffer (register_buffer)"
        )
    return Habits(unfit, remark, draws or drew, writes)


def _once(loaded: Loaded, module: nn.Module, batch: Any) -> None:
    """What a step and an evaluation call."""
    inputs, targets = batch
    with loaded.precision():
        loss = loaded.workload.loss(call(module.train(), inputs), targets).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    module.zero_grad()
    with torch.no_grad(), loaded.precision():
        outputs = call(module.eval(), inputs)
        loaded.workload.loss(outputs, targets)
        for metric in loaded.workload.metrics.values():
            if isinstance(metric, types.FunctionType):
                metric(outputs, targets)


class _Values(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the first operation whose result, or its shape, Python needs a value for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = ""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch's compiler is imported, which takes a second, to be kept away from the method below

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(function.tags)
        if function is torch.ops.aten.index.Tensor:  # its tags say nothing of masks
            tags = {tensor for tensor in args[1] if tensor is not None and tensor.dtype in (torch.bool, torch.uint8)}
        if tags and not self.found:
            name = str(function.name()).removeprefix("aten::")
            self.found = {"_local_scalar_dense": "item, or if"}.get(name, name)
        return function(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Notes what hands values to Python without an operation."""

    def __init__(self, watch: _Values) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _HANDS_OVER and not self._watch.found:
            self._watch.found = _HANDS_OVER[function]
        return function(*args, **(kwargs or {}))


def _generators() -> tuple[object, str]:
    return random.getstate(), repr(np.random.get_state())


def _has_hooks(parameter: nn.Parameter) -> bool:
    return bool(parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None))


def _is_users(place: object) -> bool:
    """Whether code of a module with this name may do anything at all; torch's own keeps to tensors."""
    return str(place).partition(".")[0] not in ("torch", "batchscope", "builtins")


def _functions(module: nn.Module, called: list[Any]) -> Iterator[types.FunctionType]:
    """The user's functions that a step may call, as far as their names tell."""
    waiting: list[tuple[Any, Any]] = [(function, None) for function in called]
    for part in module.modules():
        own = type(part)
        waiting.append((own.forward, own))
        hooks = (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
        waiting += [(hook, None) for hook in (*hooks, *part._backward_hooks.values())]
        waiting += [(value, None) for value in vars(part).values() if isinstance(value, types.FunctionType)]
    seen: set[int] = set()
    while waiting:
        thing: Any
        thing, owner = waiting.pop()
        while isinstance(thing, functools.partial):
            thing = thing.func
        if isinstance(thing, types.MethodType):
            thing, owner = thing.__func__, type(thing.__self__)
        elif isinstance(thing, type):
            waiting += [(value, thing) for value in vars(thing).values() if _function(value)]
            continue
        elif not isinstance(thing, types.FunctionType | staticmethod | classmethod) and callable(thing):
            thing, owner = getattr(type(thing), "__call__", None), type(thing)  # noqa: B004 - the function is wanted
        function = _function(thing)
        if function is None or id(function) in seen or not _is_users(function.__module__):
            continue
        seen.add(id(function))
        yield function
        for name in _names(function.__code__):
            found = getattr(owner, name, None) if owner is not None else None
            waiting += [(found, owner)] if _function(found) else []
            value = function.__globals__.get(name)
            if (_function(value) or isinstance(value, type)) and _is_users(getattr(value, "__module__", "")):
                waiting.append((value, None))
        waiting += [(value, None) for value in _closure(function).values() if callable(value)]


def _function(thing: Any) -> types.FunctionType | None:
    found = thing.__func__ if isinstance(thing, staticmethod | classmethod) else thing
    return found if isinstance(found, types.FunctionType) else None


def _names(code: types.CodeType) -> set[str]:
    """Globals and attributes that code names, that of functions inside it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _closure(function: types.FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    return found


def _may_draw(function: types.FunctionType) -> bool:
    """Whether a function names Python's or numpy's random numbers."""
    names = _names(function.__code__)
    for name in names & set(function.__globals__):
        value = function.__globals__[name]
        own = getattr(value, "__self__", None)
        if value is random or value is np.random or isinstance(own, random.Random | np.random.RandomState):
            return True
        if value is np and "random" in names:
            return True
    return False


Standing = dict[str, object]


def _standing(module: nn.Module, called: list[Any], functions: list[types.FunctionType]) -> Standing:
    """Name to a comparable form of everything in Python that a step may change."""
    found: Standing = {}
    for path, part in module.named_modules():
        own = f"{type(part).__name__}.{path}" if path else type(part).__name__
        for name, value in vars(part).items():
            if name not in _INTERNAL:
                found[f"{own}.{name}"] = _comparable(value)
        if _is_users(type(part).__module__):
            for name, value in vars(type(part)).items():
                if not name.startswith("__") and not callable(value):
                    found[f"{type(part).__name__}.{name}"] = _comparable(value)
    for thing in called:
        found[getattr(thing, "__name__", type(thing).__name__)] = _comparable(thing)
    for function in functions:
        reached = {name: function.__globals__.get(name) for name in _names(function.__code__)} | _closure(function)
        for name, value in reached.items():
            if not isinstance(value, types.ModuleType | type):
                found[f"{name} of {function.__qualname__}"] = _comparable(value)
        found[f"defaults of {function.__qualname__}"] = _comparable(function.__defaults__)
    return found


def _changed(before: Standing, after: Standing) -> str:
    """The first name under which something has changed; empty if nothing has."""
    return next((name for name in after if name not in before or before[name] != after[name]), "")


@dataclass(frozen=True)
class _Same:
    """A value that equals itself only, as long as nothing was written into it."""

    value: object
    version: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value and self.version == other.version

    __hash__ = None  # type: ignore[assignment]


_CONTENTS: tuple[tuple[Any, Callable[[Any], object]], ...] = (
    ((bool, int, float, complex, str, bytes, types.NoneType), lambda value: repr(value)),
    (np.ndarray, lambda value: (value.shape, hash(value.tobytes()))),
    (random.Random, lambda value: value.getstate()),
    (np.random.RandomState, lambda value: repr(value.get_state())),
    (np.random.Generator, lambda value: repr(value.bit_generator.state)),
    (torch.Generator, lambda value: value.get_state().tolist()),
    (nn.Module, lambda value: _Same(value)),  # its parts are looked at by themselves
)


def _first(values: Iterable[Any]) -> Iterator[Any]:
    return itertools.islice(values, MOST_LOOKED_AT)


def _comparable(value: Any, depth: int = 4) -> object:
    """A form of a value that differs once its contents do, as far down as is worth going."""
    if isinstance(value, Tensor):
        return _Same(value, value._version)
    for kinds, content in _CONTENTS:
        if isinstance(value, kinds):
            return content(value)
    if depth == 0 or isinstance(value, type | types.ModuleType | types.FunctionType | types.BuiltinFunctionType):
        return _Same(value)
    if isinstance(value, dict):
        return len(value), [(str(name), _comparable(own, depth - 1)) for name, own in _first(value.items())]
    if isinstance(value, functools.partial):
        return _comparable([value.func, value.args, value.keywords], depth)
    if isinstance(value, types.MethodType):
        return _comparable(value.__self__, depth)
    if isinstance(value, list | tuple | set | frozenset) or type(value).__name__ == "deque":
        return len(value), [_comparable(own, depth - 1) for own in _first(value)]
    if hasattr(value, "__dict__"):
        return [type(value).__name__, _comparable(vars(value), depth - 1)]
    if type(value).__module__ == "itertools":
        return repr(value)  # itertools.count shows where it is
    return _Same(value)
