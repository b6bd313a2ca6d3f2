"""An optimizer of the user's: a ``torch.optim.Optimizer`` whose state becomes flat tensors and comes back from them.

What its state consists of is found by watching its first steps, and whether that is all of it by going on from a copy:
the next step must give the same bits.

State names: ``has/SLOT/PARAMETER`` and ``state/SLOT/PARAMETER`` for what it keeps of a parameter, which may come with
the first step only; ``group/I/KEY`` for the numbers of its groups. A number is a 0-dim tensor.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from batchscope import user_file
from batchscope.errors import BatchscopeError, StudyError
from batchscope.optim.rule import Rule
from batchscope.optim.table import TORCH, own_arguments
from batchscope.seeds import seeded

State = dict[str, Tensor]
Named = Mapping[str, Tensor]
Values = Mapping[str, float]

WATCHED_STEPS = 2


def load(name: str) -> type[Optimizer]:
    """The class that a study names: ``torch.optim.NAME``, or ``path/to/file.py:NAME``.

    Raises:
        StudyError: If there is none, or if it is none that a plain training loop can call.
    """
    where = f"algorithm.optimizer: {name}"
    if user_file.is_reference(name):
        found = user_file.member(name, "optimizer")
    else:
        found = getattr(torch.optim, name.removeprefix(TORCH), None)
        if found is None:
            known = [other for other, value in vars(torch.optim).items() if inspect.isclass(value)]
            raise StudyError(f"{where} is not there; torch.optim has {', '.join(known)}")
    if not (inspect.isclass(found) and issubclass(found, Optimizer) and found is not Optimizer):
        raise StudyError(f"{where} must be a class made from torch.optim.Optimizer, got {found!r}")
    if callable(getattr(found, "eval", None)):
        raise StudyError(
            f"{where} is evaluated at weights of its own (it has eval()), which a study cannot ask it for; write "
            "schedule_free_adamw, or average_weights beside an optimizer without"
        )
    return found


def hyperparameters(cls: type[Optimizer], name: str) -> dict[str, float | None]:
    """What a study may search of a class, with its default; None where one must be given.

    Raises:
        StudyError: If the class takes no ``lr``.
    """
    found: dict[str, float | None] = {}
    taken = dict(list(inspect.signature(cls).parameters.items())[1:])
    if "lr" not in taken:
        raise StudyError(f"algorithm.optimizer: {name} must take its learning rate as lr; it takes {', '.join(taken)}")
    for argument, parameter in taken.items():
        default = parameter.default
        if argument == "lr":
            found["learning_rate"] = None
        elif parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        elif default is parameter.empty:
            found[argument] = None
        elif argument == "betas" and isinstance(default, tuple) and len(default) == 2:
            found |= {"beta1": float(default[0]), "beta2": float(default[1])}
        elif isinstance(default, int | float) and not isinstance(default, bool):
            found["epsilon" if argument == "eps" else argument] = float(default)
    return found


def built(cls: type[Optimizer], parameters: Iterable[Tensor], values: Values) -> Optimizer:
    """The optimizer with hyperparameters by their names in a study; whole numbers as such where the class has them."""
    taken = inspect.signature(cls).parameters
    whole = {name for name, value in taken.items() if type(value.default) is int}
    given: dict[str, Any] = {
        name: int(value) if name in whole and float(value).is_integer() else value
        for name, value in own_arguments(values).items()
    }
    return cls(list(parameters), **given)


def made(name: str, parameters: Iterable[Tensor], values: Values) -> Optimizer:
    """An object of a class of the user's, with hyperparameters by their names in a study.

    Raises:
        StudyError: If the class must be given more, or cannot be used with these.
    """
    cls = load(name)
    missing = [n for n, default in hyperparameters(cls, name).items() if default is None and n not in values]
    if missing:
        raise StudyError(
            f"{name} must be given {', '.join(missing)}: name a study whose search.space gives it in the place of the "
            "workload, such as batchscope probe study.yaml"
        )
    try:
        return built(cls, parameters, values)
    except Exception as error:  # whatever the user's class raises
        raise _unusable(name, values, error) from error


def _unusable(name: str, values: Values, error: Exception) -> StudyError:
    told = ", ".join(f"{key}={value:g}" for key, value in values.items())
    return StudyError(f"algorithm.optimizer: {name} cannot be used with {told}: {type(error).__name__}: {error}")


def moved_already(name: str) -> Rule:
    """The rule of a parameter that its optimizer has moved: nothing is left to do."""
    return Rule(name, (), lambda parameter, gradient, slots, step, hyper: (parameter, slots))


@dataclass(frozen=True)
class UserOptimizer:
    """A class of the user's, and what of its objects must be kept from step to step.

    Attributes:
        name: In the study.
        cls: The class.
        hyperparameters: Names in a study, with defaults.
        slots: (slot, parameter) to what it was like when it was seen: a tensor or a number.
        numbers: (group, key) likewise.
    """

    name: str
    cls: type[Optimizer]
    hyperparameters: Mapping[str, float | None]
    slots: dict[tuple[str, str], Any] = field(default_factory=dict)
    numbers: dict[tuple[int, str], Any] = field(default_factory=dict)

    @classmethod
    def watched(cls, name: str, parameters: Named, points: Iterable[Values]) -> UserOptimizer:
        """Take the class through its first steps at some points of the search space.

        Args:
            name: In the study.
            parameters: Copied, whatever their values.
            points: Hyperparameters by their names in a study.

        One that fails, or keeps what no checkpoint can hold, is a ``StudyError``.
        """
        kind = load(name)
        found = cls(name, kind, hyperparameters(kind, name))
        for point in points:
            found._check_names(point)
            try:
                with seeded(0):
                    found._watch(parameters, point)
            except BatchscopeError:
                raise
            except Exception as error:  # whatever the user's class raises
                raise _unusable(name, point, error) from error
        return found

    def begin(self, parameters: Named, values: Values) -> State:
        """The flat state before the first step, with hyperparameters by their names in a study."""
        return self.flat(self._build(parameters, values), parameters)

    def resumed(self, parameters: Named, values: Values, state: Named) -> Optimizer:
        """An optimizer that goes on from a flat state."""
        optimizer = self._build(parameters, values)
        for (slot, name), like in self.slots.items():
            if state[f"has/{slot}/{name}"]:
                optimizer.state[parameters[name]][slot] = _as(like, state[f"state/{slot}/{name}"])
        for (place, key), like in self.numbers.items():
            optimizer.param_groups[place][key] = _as(like, state[f"group/{place}/{key}"])
        return optimizer

    def step(self, optimizer: Optimizer, parameters: Named, gradients: Named, rate: float) -> None:
        """Move the parameters that have a gradient."""
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, parameter in parameters.items():
            parameter.grad = gradients.get(name)
        optimizer.step()
        for parameter in parameters.values():
            parameter.grad = None

    def flat(self, optimizer: Optimizer, parameters: Named) -> State:
        """Everything that an optimizer keeps.

        What it did not keep at first, or in another shape, is a ``StudyError``.
        """
        device, state = next(iter(parameters.values())).device, State()
        for name, parameter in parameters.items():
            for slot in optimizer.state.get(parameter, {}):
                if (slot, name) not in self.slots:
                    raise self._refusal(f"state of a name that its first steps did not have, {slot!r}")
        for (slot, name), like in self.slots.items():
            value = optimizer.state.get(parameters[name], {}).get(slot)
            state[f"has/{slot}/{name}"] = torch.tensor(value is not None, device=device)
            empty = torch.zeros(like.shape, dtype=like.dtype) if isinstance(like, Tensor) else 0
            state[f"state/{slot}/{name}"] = self._tensor(like, empty if value is None else value, slot).to(device)
        for (place, key), like in self.numbers.items():
            state[f"group/{place}/{key}"] = self._tensor(like, optimizer.param_groups[place][key], key).to(device)
        return state

    def _check_names(self, values: Values) -> None:
        takes = f"it takes {', '.join(self.hyperparameters)}"
        for name in values:
            if name not in self.hyperparameters:
                raise StudyError(f"search.space.{name}: {self.name} takes no number called {name}; {takes}")
        for name, default in self.hyperparameters.items():
            if default is None and name not in values:
                raise StudyError(f"search.space: {name} is missing, which {self.name} must be given; {takes}")

    def _build(self, parameters: Named, values: Values) -> Optimizer:
        return built(self.cls, parameters.values(), {n: v for n, v in values.items() if n in self.hyperparameters})

    def _watch(self, parameters: Named, values: Values) -> None:
        """Note what there is after some steps, and go one further with a copy."""
        own = _copies(parameters)
        optimizer = self._build(own, values)
        before = _settings(optimizer)
        for group, settings in enumerate(optimizer.param_groups):
            for key, value in settings.items():
                if key not in ("params", "lr") and isinstance(value, Tensor | float | int):
                    self.numbers[group, key] = value
        for step in range(WATCHED_STEPS):
            self.step(optimizer, own, _gradients(own, step), values["learning_rate"])
        if optimizer.state.keys() - set(own.values()):
            raise self._refusal("state that belongs to no parameter")
        if _settings(optimizer) != before:
            raise self._refusal("something in its param_groups that is neither a tensor nor a number, and changes")
        for name, parameter in own.items():
            for slot, value in optimizer.state.get(parameter, {}).items():
                if not isinstance(value, Tensor | float | int):
                    raise self._refusal(f"{slot!r}, which is neither a tensor nor a number but {type(value).__name__}")
                # Of a tensor shape, dtype and device, without its memory.
                like = value.new_empty(()).expand(value.shape) if isinstance(value, Tensor) else value
                self.slots.setdefault((slot, name), like)
        other = _copies(own)
        copy = self.resumed(other, values, self.flat(optimizer, own))
        for moving, going_on in ((own, optimizer), (other, copy)):
            with seeded(1):
                self.step(going_on, moving, _gradients(moving, WATCHED_STEPS), values["learning_rate"])
        self.flat(optimizer, own)
        if not all(torch.allclose(own[name], other[name], rtol=0, atol=0, equal_nan=True) for name in own):
            raise self._refusal("more than its state and its param_groups: from a copy of these its next step differs")

    def _tensor(self, like: Any, value: Any, name: str) -> Tensor:
        """A number or tensor as the tensor that is kept; zeros stand for what is not there yet."""
        if isinstance(like, Tensor) and isinstance(value, Tensor):
            if like.shape != value.shape or like.dtype != value.dtype:
                raise self._refusal(f"{name!r} first as {_kind(like)} and then as {_kind(value)}")
            return value.detach().clone(memory_format=torch.contiguous_format)
        if isinstance(like, Tensor) or not isinstance(value, float | int):
            raise self._refusal(f"{name!r} first as {type(like).__name__} and then as {type(value).__name__}")
        return torch.tensor(value, dtype=torch.float64)

    def _refusal(self, words: str) -> StudyError:
        return StudyError(
            f"algorithm.optimizer: {self.name} keeps {words}, which no checkpoint of a trial holds; keep tensors and "
            "numbers of fixed shape, in self.state[parameter]"
        )


def _as(like: Any, kept: Tensor) -> Any:
    """What was kept, as the kind of value that it was."""
    if isinstance(like, Tensor):
        return kept.detach().to(like.device).clone()
    number = float(kept)
    if isinstance(like, bool):
        return bool(number)
    return int(number) if isinstance(like, int) and number.is_integer() else number


def _settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What of the groups is not kept: it must stay."""
    numbers = (Tensor, float, int)
    return [
        {key: value for key, value in group.items() if key != "params" and not isinstance(value, numbers)}
        for group in optimizer.param_groups
    ]


def _copies(parameters: Named) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(parameter.detach().clone()) for name, parameter in parameters.items()}


def _gradients(parameters: Named, step: int) -> State:
    """Some that differ from step to step."""
    return {name: ((1 + step) * 0.1 * parameter + 0.01).detach() for name, parameter in parameters.items()}


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
