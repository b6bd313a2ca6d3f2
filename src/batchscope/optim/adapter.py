"""Every rule as a real ``torch.optim.Optimizer``: parameter groups, closures, state dicts, torch's schedulers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from batchscope.errors import StudyError
from batchscope.optim.rule import Numbers, Rule, accumulation_dtype, is_dense, laid_out_as
from batchscope.optim.table import TABLE, hyperparameter

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Group = Mapping[str, Any]
Columns = dict[str, list[Tensor]]

_WHOLE = (Tensor, torch.nn.Parameter)
_ACCUMULATING = (torch.float32, torch.float64)


class RuleOptimizer(Optimizer):
    """A rule applied in place, one parameter tensor at a time in effect, many at a time where that is faster.

    Parameters without gradient are passed over. State of parameters below float32 is kept in float32.
    Of a sharded parameter (FSDP) every process updates its shard, and the state is sharded likewise.
    """

    own: ClassVar[Rule]

    def rule(self, group: Group) -> Rule:
        """The rule that a parameter group is updated by."""
        return self.own

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
        work = [self._columns(self.rule(group), group["params"]) for group in self.param_groups]
        for group, together in zip(self.param_groups, work, strict=True):
            hyper = hyperparameters(self.rule(group), group)
            for (rule, step, *_), columns in together.values():
                for parameter in columns["parameter"]:
                    self.state[parameter]["step"] = step
                _update(rule, columns, step, hyper)
        return loss

    def _columns(self, rule: Rule, parameters: list[Tensor]) -> dict[tuple[Any, ...], tuple[tuple[Any, ...], Columns]]:
        """What may be updated together: one rule, one count of steps, one device, one dtype."""
        together: dict[tuple[Any, ...], tuple[tuple[Any, ...], Columns]] = {}
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
            own, step = rule.of(parameter), state["step"] + 1
            key = (id(own), step, parameter.device, parameter.dtype)
            if key not in together:
                together[key] = (own, step), defaultdict(list)
            columns = together[key][1]
            columns["parameter"].append(parameter)
            columns["gradient"].append(gradient)
            for name in own.slots:
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
            StudyError: If a hyperparameter is out of its range, or a parameter is not of a real floating type, or is
                sharded where the rule needs the whole of it.
        """
        group = {**self.defaults, **param_group}
        rule = self.rule(group)
        _check(rule, group)
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if not parameter.is_floating_point():
                raise StudyError(f"{type(self).__name__} updates real floating-point parameters, got {parameter.dtype}")
            if _is_sharded(parameter) and (rule.of(parameter).by_layer or rule.needs_hessian_diagonal):
                what = "second derivatives" if rule.needs_hessian_diagonal else "whole layers"
                raise StudyError(
                    f"{type(self).__name__} needs {what}, got a parameter of shape {tuple(parameter.shape)} that is "
                    "sharded (FSDP): use DistributedDataParallel, or an optimizer that treats every number by itself, "
                    "such as AdamW"
                )

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


def _update(rule: Rule, columns: Columns, step: int, hyper: Numbers) -> None:
    """Update in place what lies in memory as the arithmetic needs it, and copies of what does not."""
    if all(map(_as_it_is_needed, columns["parameter"], *(columns[name] for name in ("gradient", *rule.slots)))):
        slots = {name: columns[name] for name in rule.slots}
        rule.update_in_place(
            columns["parameter"], columns["gradient"], slots, step, hyper, columns.get("hessian_diagonal")
        )
        return
    given = {name: [_local(tensor) for tensor in tensors] for name, tensors in columns.items()}
    parameters = given.pop("parameter")
    weights = [_dense(parameter) for parameter in parameters]
    laid_out = {name: list(map(laid_out_as, weights, tensors)) for name, tensors in given.items()}
    slots = {name: laid_out[name] for name in rule.slots}
    rule.update_in_place(weights, laid_out["gradient"], slots, step, hyper, laid_out.get("hessian_diagonal"))
    for new, old in zip(
        chain(weights, *slots.values()), chain(parameters, *(given[name] for name in slots)), strict=True
    ):
        if new is not old:
            old.copy_(new)


def _as_it_is_needed(parameter: Tensor, *others: Tensor) -> bool:
    """Whether nothing need be copied, told at once for what is usual; a step of a small model is mostly such calls."""
    if type(parameter) not in _WHOLE or parameter.dtype not in _ACCUMULATING or not parameter.is_contiguous():
        return False
    for other in others:
        if other.dtype != parameter.dtype or not other.is_contiguous():
            return False
    return True


def _dense(parameter: Tensor) -> Tensor:
    """The parameter in float32 at least, without holes in its memory."""
    dtype = accumulation_dtype(parameter.dtype)
    if parameter.dtype == dtype and is_dense(parameter):
        return parameter
    return torch.empty_like(parameter, dtype=dtype).copy_(parameter)


def _local(tensor: Tensor) -> Tensor:
    """The shard that this process has of a sharded tensor."""
    shard: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return shard


def _is_sharded(parameter: Tensor) -> bool:
    mesh, placements = getattr(parameter, "device_mesh", None), getattr(parameter, "placements", ())
    return mesh is not None and mesh.size() > 1 and any(placement.is_shard() for placement in placements)


def hyperparameters(rule: Rule, group: Group) -> dict[str, float]:
    """A rule's hyperparameters by their names in a study, from a parameter group in torch's words."""
    return {name: float(hyperparameter(name, group)) for name in rule.hyperparameters}


def _check(rule: Rule, group: Group) -> None:
    hyper = hyperparameters(rule, group)
    for name, value in hyper.items():
        TABLE[rule.name].check(name, value)
    low, high = hyper.get("minimum_radius", 0.0), hyper.get("maximum_radius", float("inf"))
    if low > high:
        raise StudyError(f"minimum_radius must be at most maximum_radius, got {low} and {high}")
