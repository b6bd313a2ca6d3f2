"""Every rule as a real ``torch.optim.Optimizer``: parameter groups, closures, state dicts, torch's schedulers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from batchscope.errors import StudyError
from batchscope.optim.blocks import Columns, update_in_place
from batchscope.optim.rule import Hyper, Rule, accumulation_dtype

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Group = Mapping[str, Any]

_TORCH_NAMES = {"learning_rate": "lr", "epsilon": "eps", "smoothing": "alpha"}
_BELOW_ONE = {"momentum", "beta1", "beta2", "smoothing"}
_POSITIVE = {"trust", "minimum_radius", "maximum_radius"}


class RuleOptimizer(Optimizer):
    """A rule applied in place, one parameter tensor at a time in effect, many at a time in fact.

    Parameters without gradient are passed over. State of parameters below float32 is kept in float32.
    A sharded parameter (FSDP) is to a layer-wise rule the layer that its local shard is.
    """

    @abstractmethod
    def rule(self, group: Group) -> Rule:
        """The rule that a parameter group is updated by."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            closure: Clears the gradients, computes the loss and its gradients, and returns the loss.

        Returns:
            What the closure returned, or None without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rules = [self.rule(group) for group in self.param_groups]
        work = [self._columns(rule, group["params"]) for rule, group in zip(rules, self.param_groups, strict=True)]
        for rule, group, together in zip(rules, self.param_groups, work, strict=True):
            hyper = hyperparameters(rule, group)
            for (*_, step, excluded), columns in together.items():
                for parameter in columns["parameter"]:
                    self.state[parameter]["step"] = step
                if excluded:
                    update_in_place(rule, columns, step, {**hyper, "weight_decay": 0.0}, layer_wise=False)
                else:
                    update_in_place(rule, columns, step, hyper)
        return loss

    def _columns(self, rule: Rule, parameters: list[Tensor]) -> dict[tuple[Any, ...], Columns]:
        """What may be updated together: one device, one dtype, one count of steps."""
        together: dict[tuple[Any, ...], Columns] = defaultdict(lambda: defaultdict(list))
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None or parameter.numel() == 0:
                continue
            if gradient.is_sparse:
                raise StudyError(
                    f"{type(self).__name__} needs dense gradients, got a sparse one of shape "
                    f"{tuple(gradient.shape)}: build the embedding with sparse=False"
                )
            state = self.state[parameter]
            if "step" not in state:
                state.update(step=0, **rule.init(parameter))
            step = state["step"] + 1
            key = (parameter.device, parameter.dtype, gradient.dtype, step, rule.excludes(parameter))
            columns = together[key]
            columns["parameter"].append(parameter)
            columns["gradient"].append(gradient)
            for name in rule.slots:
                columns[name].append(state[name])
            if rule.needs_hessian_diagonal:
                columns["hessian_diagonal"].append(self.hessian_diagonal(parameter))
        return together

    def hessian_diagonal(self, parameter: Tensor) -> Tensor:
        """The diagonal of the Hessian at a parameter, for rules that need it."""
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with its own hyperparameters where it names any.

        Raises:
            StudyError: If a hyperparameter is out of its range, or a parameter is not of a real floating type.
        """
        group = {**self.defaults, **param_group}
        _check(hyperparameters(self.rule(group), group))
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if not parameter.is_floating_point():
                raise StudyError(f"{type(self).__name__} updates real floating-point parameters, got {parameter.dtype}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` gave; state kept in float32 for smaller parameters stays so."""
        super().load_state_dict(state_dict)
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        ours = chain.from_iterable(group["params"] for group in self.param_groups)
        for identifier, parameter in zip(saved, ours, strict=True):
            dtype = accumulation_dtype(parameter.dtype)
            for name, value in state_dict["state"].get(identifier, {}).items():
                if isinstance(value, Tensor):
                    self.state[parameter][name] = value.to(parameter.device, dtype)


def hyperparameters(rule: Rule, group: Group) -> Hyper:
    """A rule's hyperparameters by their full names, from a parameter group in torch's names."""
    flat = dict(group)
    if "betas" in group:
        flat["beta1"], flat["beta2"] = group["betas"]
    values = {name: flat[_TORCH_NAMES.get(name, name)] for name in rule.hyperparameters}
    return {name: value.item() if _on_cpu(value) else value for name, value in values.items()}


def _on_cpu(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu"


def _check(hyper: Hyper) -> None:
    for name, value in hyper.items():
        shown = _TORCH_NAMES.get(name, name)
        if name in _BELOW_ONE and not 0 <= value < 1:
            raise StudyError(f"{shown} must be in [0, 1), got {value}")
        if name in _POSITIVE and not value > 0:
            raise StudyError(f"{shown} must be above 0, got {value}")
        if not value >= 0:
            raise StudyError(f"{shown} must be at least 0, got {value}")
    low, high = hyper.get("minimum_radius", 0.0), hyper.get("maximum_radius", math.inf)
    if low > high:
        raise StudyError(f"minimum_radius must be at most maximum_radius, got {low} and {high}")
