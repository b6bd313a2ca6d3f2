"""Nested structures of tensors: a tensor, or a tuple, list or dict of them.

Shapes: K trials of a pack, B examples of a batch, N examples of a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

Tree = Tensor | tuple["Tree", ...] | list["Tree"] | dict[str, "Tree"]
Pair = tuple[Tree, Tree]


def _rule(found: object) -> str:
    rule = f"expected a tensor, or a tuple, list or dict of tensors, got {type(found).__name__}"
    return f"{rule}; write torch.as_tensor(...)" if hasattr(found, "__array__") else rule


def map_tree(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The same structure with ``function`` applied to every tensor.

    Raises:
        TypeError: If a leaf is not a tensor.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {name: map_tree(function, value) for name, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map_tree(function, value) for value in tree)
    if isinstance(tree, list):
        return [map_tree(function, value) for value in tree]
    raise TypeError(_rule(tree))


def map_pair(function: Callable[[Tensor], Tensor], pair: Pair) -> Pair:
    """Inputs and targets with ``function`` applied to every tensor of both."""
    return map_tree(function, pair[0]), map_tree(function, pair[1])


def leaves(tree: Tree) -> Iterator[Tensor]:
    """Every tensor of a structure, in order.

    Raises:
        TypeError: If a leaf is not a tensor.
    """
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, tuple | list):
        for value in tree:
            yield from leaves(value)
    else:
        raise TypeError(_rule(tree))


def with_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``{"weight": w}`` to ``{"prefix/weight": w}``."""
    return {f"{prefix}/{name}": value for name, value in state.items()}


def under_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a flat state under ``prefix/``, without the prefix."""
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def size_of(examples: Tree) -> int:
    """How many examples there are, along the first dimension."""
    return int(next(leaves(examples)).shape[0])
