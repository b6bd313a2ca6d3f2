"""A rule in place on the parameters of a model, at multi-tensor speed.

Elementwise stages do not care how tensors are cut or joined. So large layers are cut and small ones joined, until a
block is large enough that calling torch costs little beside the work, and small enough that what one operation
writes is still near when the next one reads it: in the cache of each core on a CPU, in a bounded amount of
memory elsewhere. An update then passes over main memory about once, whatever the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from batchscope.optim.program import Expression, Program
from batchscope.optim.rule import Hyper, LayerRate, Rule

# What a rule works on, by name: "parameter", "gradient", its slots; place i of every list is of one layer,
# or of one part of a layer.
Columns = dict[str, list[Tensor]]

_CPU_BLOCK = 131_072  # elements for each thread; torch hands a thread no fewer than 32,768
_DEVICE_BLOCK = 2**26


class Layers(list[Tensor]):
    """Several layers, or parts of layers, given where a rule written for one layer takes its tensor."""


def update_in_place(rule: Rule, columns: Columns, step: int, hyper: Hyper, *, layer_wise: bool = True) -> None:
    """Change ``columns["parameter"]`` and the slots as ``rule.update`` would, layer by layer.

    Args:
        rule: What to apply.
        columns: "parameter", "gradient", a list for each slot, and "hessian_diagonal" where the rule needs
            it; all on one device, each list of one dtype.
        step: Updates counted from 1.
        hyper: A number for every hyperparameter of the rule.
        layer_wise: False to leave out the rule's layer rate.
    """
    direction, slots = _direction(rule, step, hyper)
    if rule.layer is None or not layer_wise:
        _run(_move(rule, direction, slots, 1.0, step, hyper), cut(columns))
    elif rule.direction is None:
        rates = _rates(rule.layer, columns["parameter"], columns["gradient"], hyper)
        move = _move(rule, direction, slots, Expression.leaf("rate"), step, hyper)
        _run(move, cut(columns | {"rate": rates}))
    else:
        turn = Program({**slots, "direction": direction})
        leaves = _leaves("direction", "rate", *rule.slots)
        slots = {name: leaves[name] for name in rule.slots}
        move = _move(rule, leaves["direction"], slots, leaves["rate"], step, hyper)
        largest = max(layer.numel() for layer in columns["parameter"])
        memory = columns[rule.slots[0]][0].new_empty(largest)  # one piece for all, so that it stays in cache
        for layers in joined(columns, largest):
            layers["direction"] = _scratch(layers[rule.slots[0]], memory)
            _run(turn, cut(layers))
            layers["rate"] = _rates(rule.layer, layers["parameter"], layers["direction"], hyper)
            _run(move, layers)  # a call or two, which nothing is gained by cutting for


def joined(columns: Columns, size: int = 0) -> Iterator[Columns]:
    """Runs of neighbours of ``size`` elements at most, by default a block; what is larger is a run of its own."""
    tensors = next(iter(columns.values()))
    size = size or _block_size(tensors[0])
    start = total = 0
    for end, tensor in enumerate(tensors):
        if end > start and total + tensor.numel() > size:
            yield {name: column[start:end] for name, column in columns.items()}
            start, total = end, 0
        total += tensor.numel()
    yield {name: column[start:] for name, column in columns.items()}


def cut(columns: Columns) -> Columns:
    """Layers in parts of a block at most, where their layouts allow; a 0-dim tensor goes with every part."""
    size = _block_size(next(iter(columns.values()))[0])
    parts: Columns = {name: [] for name in columns}
    for layer in zip(*columns.values(), strict=True):
        number = -(-layer[0].numel() // size)
        flat = _flat(layer) if number > 1 else None
        for column, tensor, whole in zip(parts.values(), flat or layer, layer, strict=True):
            if flat is None:
                column.append(whole)
            else:
                column += torch.split(tensor, size) if tensor.ndim else [tensor] * number
    return parts


def _flat(tensors: tuple[Tensor, ...]) -> list[Tensor] | None:
    """One-dimensional views that go through all tensors in the same order; None if their layouts differ."""
    if not all(tensor.is_contiguous() for tensor in tensors):
        strides = tensors[0].stride()
        order = sorted(range(len(strides)), key=lambda axis: strides[axis], reverse=True)
        tensors = tuple(tensor.permute(order) if tensor.ndim else tensor for tensor in tensors)
        if not all(tensor.is_contiguous() for tensor in tensors):
            return None
    return [tensor.view(-1) if tensor.ndim else tensor for tensor in tensors]


def _block_size(like: Tensor) -> int:
    return _CPU_BLOCK * torch.get_num_threads() if like.device.type == "cpu" else _DEVICE_BLOCK


def _run(program: Program, parts: Columns) -> None:
    for block in joined(parts):
        program.run(block)


def _leaves(*names: str) -> dict[str, Any]:
    return {name: Expression.leaf(name) for name in names}


def _direction(rule: Rule, step: int, hyper: Hyper) -> tuple[Any, dict[str, Any]]:
    slots = _leaves(*rule.slots)
    values = _leaves("parameter", "gradient", "hessian_diagonal")
    if rule.direction is None:
        return values["gradient"], slots
    curvature = [values["hessian_diagonal"]] if rule.needs_hessian_diagonal else []
    return rule.direction(values["parameter"], values["gradient"], slots, step, hyper, *curvature)


def _move(rule: Rule, direction: Any, slots: dict[str, Any], rate: Any, step: int, hyper: Hyper) -> Program:
    parameter: Any = Expression.leaf("parameter")
    moved, slots = rule.move(parameter, direction, slots, rate, step, hyper)
    return Program({**slots, "parameter": moved})


def _rates(layer: LayerRate, parameters: list[Tensor], along: list[Tensor], hyper: Hyper) -> list[Tensor]:
    weights: Any = Layers(parameters)
    directions: Any = Layers(along)
    measured: Any = layer.measure(weights, directions, hyper)
    return list(layer.rate(tuple(torch.stack(values) for values in measured), hyper).unbind())


def _scratch(like: list[Tensor], memory: Tensor) -> list[Tensor]:
    """Tensors of the same layouts, in that memory."""
    places, start = [], 0
    for tensor in like:
        dense = _flat((tensor,)) is not None
        place = memory.as_strided(tensor.shape, tensor.stride(), start) if dense else torch.empty_like(tensor)
        places.append(place)
        start += tensor.numel()
    return places
