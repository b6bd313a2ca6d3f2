"""Flat graphs of tensor operations, taken from Python functions, and what a compiler makes of them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx import Graph as FxGraph
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from batchscope.errors import WorkloadError

Graph = Callable[..., Any]


def traced(function: Graph, arguments: tuple[Any, ...]) -> GraphModule:
    """The flat graph of a function's tensor operations.

    Raises:
        WorkloadError: If the function draws from Python's or numpy's random numbers, which a graph would freeze.
    """
    before = random.getstate(), repr(np.random.get_state())
    graph = make_fx(lambda *given: function(*given))(*arguments)
    if (random.getstate(), repr(np.random.get_state())) != before:
        raise WorkloadError("the model draws from Python's or numpy's random numbers, which a pack would freeze")
    _keep_trials_apart(graph.graph)
    _multiply_columns_by_rows(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def compiled_in_place(graph: GraphModule, arguments: tuple[Any, ...], replaced: Sequence[int]) -> Graph:
    """A graph as machine code that overwrites its first arguments with its first results.

    The gradient of a layer goes straight into its update there, without ever being written to memory.

    Args:
        graph: Gives a tuple.
        arguments: Examples, whose shapes are the only ones that the code takes; they are not changed.
        replaced: Positions of the results, each of which overwrites the argument at the same position.

    Returns:
        A function of the ``tensors`` of the same arguments, which gives those of the results not in ``replaced``.

    Raises:
        WorkloadError: If there is no compiler here, or it cannot take this graph.
    """
    flat, structure = pytree.tree_flatten(arguments)

    def in_place(*flat: Tensor) -> list[Tensor]:
        given = pytree.tree_unflatten(list(flat), structure)
        results = graph(*given)
        for position in replaced:
            for old, new in zip(tensors(given[position]), tensors(results[position]), strict=True):
                old.copy_(new)
        return [leaf for position, result in enumerate(results) if position not in replaced for leaf in tensors(result)]

    # Random numbers must be those of torch's own generators, and no pool of compiler processes may stay behind.
    options = {"fallback_random": True, "compile_threads": 1}
    whole = make_fx(in_place)(*[tensor.clone() for tensor in flat])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler's own parts, which no user can change
            # In a context of its own the compiler finds again what it has compiled before, in any process.
            fake = FakeTensorMode(shape_env=ShapeEnv(assume_static_by_default=True))
            with tracing(TracingContext(fake)):
                machine = torch._inductor.compile(whole, flat, options=options)
    except Exception as error:  # it knows no common class for what it cannot do
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise WorkloadError(f"torch's compiler cannot take this step: {told[0]}; write engine.program: vmap") from error
    return machine  # type: ignore[no-any-return]


def tensors(tree: Any) -> list[Tensor]:
    """Those of nested arguments, in the order in which graphs in one piece take them."""
    return pytree.tree_leaves(tree)


def _keep_trials_apart(graph: FxGraph) -> None:
    """Turn products of all trials' rows with a shared matrix into one product for each trial.

    vmap folds (K, H, B) @ (B, D) to one product of K H rows, and how a library rounds a row can depend on how many
    rows there are: a trial's result would depend on its pack. A batched product treats every trial alike.
    """
    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.target is not aten.mm.default:
            continue
        left, right = node.args
        apart = left.args[0] if left.target in (aten.view.default, aten._unsafe_view.default) else None
        if apart is None or len(apart.meta["tensor_meta"].shape) != 3:
            continue
        trials, rows, inner = apart.meta["tensor_meta"].shape
        if tuple(left.meta["tensor_meta"].shape) != (trials * rows, inner):
            continue  # the rows are those of (B, H, W), flattened to (B, H W), which trials share
        columns = node.meta["tensor_meta"].shape[1]
        with graph.inserting_before(node):
            shared = graph.call_function(aten.unsqueeze.default, (right, 0))
            copies = graph.call_function(aten.expand.default, (shared, [trials, -1, -1]))
            multiply = aten.mul.Tensor if inner == 1 else aten.bmm.default
            product = graph.call_function(multiply, (apart, copies))
            flat = graph.call_function(aten.reshape.default, (product, [trials * rows, columns]))
        node.replace_all_uses_with(flat)


def _multiply_columns_by_rows(graph: FxGraph) -> None:
    """Take products (..., M, 1) @ (..., 1, N) elementwise: the same numbers; a library's product is 3 times slower."""
    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.target not in (aten.mm.default, aten.bmm.default):
            continue
        left, right = node.args
        if all("tensor_meta" in operand.meta for operand in node.args) and left.meta["tensor_meta"].shape[-1] == 1:
            with graph.inserting_before(node):
                product = graph.call_function(aten.mul.Tensor, (left, right))
            node.replace_all_uses_with(product)
