"""Elementwise arithmetic, recorded once and run in place on many tensors.

A rule is written for a tensor. Called with an ``Expression`` for each of its arguments it computes nothing, but
says what it would compute, and ``Program`` turns that into the calls that a hand-written in-place optimizer would
make: a factor travels along with a sum, a weighted mean is one call, ``a + f * b * c`` and ``a + f * b / c`` are one
call each, an intermediate value that nothing else needs is overwritten, and so is the state that a result replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from batchscope.optim.rule import accumulation_dtype


class _Node:
    """A value of the recorded arithmetic: a leaf, or a call of an elementwise function."""

    def __init__(self, name: str, operands: tuple[_Node, ...] = (), constants: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.operands = operands
        self.constants = constants
        self.readers = 0
        for operand in operands:
            operand.readers += 1

    @property
    def is_leaf(self) -> bool:
        return not self.operands

    @property
    def is_spare(self) -> bool:
        """Whether the only reader of this value may overwrite it."""
        return not self.is_leaf and self.readers <= 1


class _Sum(_Node):
    """``a * first + b * second``."""

    def __init__(self, first: _Node, a: float, second: _Node, b: float) -> None:
        super().__init__("sum", (first, second))
        self.factors = (a, b)


class Expression:
    """A factor times a value that is yet to be computed."""

    __slots__ = ("factor", "node")

    def __init__(self, node: _Node, factor: float = 1.0) -> None:
        self.node = node
        self.factor = factor

    @staticmethod
    def leaf(name: str) -> Expression:
        """What will be found under a name when the program runs."""
        return Expression(_Node(name))

    def plain(self) -> _Node:
        """The value with its factor multiplied out."""
        if self.factor != 1.0:
            self.node, self.factor = _Node("mul", (self.node,), (self.factor,)), 1.0
        return self.node

    def __add__(self, other: Operand) -> Expression:
        if not isinstance(other, Expression):
            return Expression(_Node("add", (self.plain(),), (other,)))
        if self.factor == 0.0 or other.factor == 0.0:
            return self if other.factor == 0.0 else other
        if self.node is other.node:
            return Expression(self.node, self.factor + other.factor)
        return Expression(_Sum(self.node, self.factor, other.node, other.factor))

    def __neg__(self) -> Expression:
        return Expression(self.node, -self.factor)

    def __sub__(self, other: Operand) -> Expression:
        return self + (-other)

    def __rsub__(self, other: Tensor | float) -> Expression:
        return (-self) + other

    def __mul__(self, other: Operand) -> Expression:
        if isinstance(other, Expression):
            first, second = (other, self) if self.node.is_leaf else (self, other)
            return Expression(_Node("mul", (first.node, second.node)), self.factor * other.factor)
        if isinstance(other, Tensor):
            return Expression(_Node("mul", (self.node,), (other,)), self.factor)
        return Expression(self.node, self.factor * other)

    def __truediv__(self, other: Operand) -> Expression:
        if isinstance(other, Expression):
            return Expression(_Node("div", (self.node, other.node)), self.factor / other.factor)
        return self * (1 / other)

    def __rtruediv__(self, other: Tensor | float) -> Expression:
        return Expression(_Node("reciprocal", (self.node,)), 1 / self.factor) * other

    def __pow__(self, exponent: float) -> Expression:
        if exponent == 0.5:
            return Expression(_Node("sqrt", (self.plain(),)))
        return Expression(_Node("pow", (self.plain(),), (exponent,)))

    def __abs__(self) -> Expression:
        return Expression(_Node("abs", (self.node,)), abs(self.factor))

    def clamp(self, minimum: float, maximum: float) -> Expression:
        """Every value within the bounds."""
        raised = _Node("clamp_min", (self.plain(),), (minimum,))
        return Expression(_Node("clamp_max", (raised,), (maximum,)))

    __radd__ = __add__
    __rmul__ = __mul__


Operand = Expression | Tensor | float


class Program:
    """Calls of torch on tensors found by name."""

    def __init__(self, stored: Mapping[str, Any], returned: Any = None) -> None:
        """Record what is to be computed.

        Args:
            stored: Expressions by the name of the tensors that they overwrite, in the order in which they do;
                what comes later must not need the old values.
            returned: An expression whose value ``run`` gives; none by default.
        """
        nodes = {name: expression.plain() for name, expression in stored.items()}
        result = None if returned is None else returned.plain()
        for node in (*nodes.values(), *([] if result is None else [result])):
            node.readers += 1  # so that nothing overwrites it
        recorder = _Recorder()
        for name, node in nodes.items():
            recorder.store(name, node)
        self._stored = tuple(stored)
        self._returned = "" if result is None else recorder.place(result)
        self.calls = [str(call) for call in recorder.calls]
        self._on_one = [call.bound(Tensor, "{}") for call in recorder.calls]
        self._on_many = [call.bound(torch, "_foreach_{}") for call in recorder.calls]

    def run(self, columns: Mapping[str, list[Tensor]]) -> list[Tensor]:
        """Overwrite what is to be stored, and give what is to be returned.

        Args:
            columns: Tensors by name, in lists of one length. A 0-dim tensor is the scalar of its place. What
                is not of the accumulation type of the first is converted to it, and rounded when stored.
        """
        first = next(iter(columns.values()))
        dtype, alone = accumulation_dtype(first[0].dtype), len(first) == 1
        values: dict[str, Any] = {}
        rounded = []
        for name, tensors in columns.items():
            if tensors[0].dtype != dtype:
                tensors = [tensor.to(dtype) for tensor in tensors]
                rounded.append(name)
            values[name] = tensors[0] if alone else tensors
        for function, arguments, target in self._on_one if alone else self._on_many:
            value = function(*[values[name] for name in arguments])
            if target:
                values[target] = value
        for name in self._stored:
            if name in rounded:
                torch._foreach_copy_(columns[name], [values[name]] if alone else values[name])
        if not self._returned:
            return []
        return [values[self._returned]] if alone else list(values[self._returned])


@dataclass(frozen=True)
class _Call:
    """A function of named values, whose result takes the place of the first or is a new value."""

    name: str
    arguments: tuple[str, ...]
    constants: tuple[Any, ...]
    options: Mapping[str, float]
    target: str

    @property
    def in_place(self) -> bool:
        return self.target == self.arguments[0]

    def __str__(self) -> str:
        return self.name + "_" * self.in_place

    def bound(self, library: Any, pattern: str) -> tuple[Any, ...]:
        """The function in a library, what to call it with, and the name of the value if it makes a new one."""
        function = getattr(library, pattern.format(self))
        if self.constants or self.options:
            function = _with(function, self.constants, self.options)
        return function, self.arguments, "" if self.in_place else self.target


def _with(function: Callable[..., Any], constants: tuple[Any, ...], options: Mapping[str, float]) -> Any:
    return lambda *arguments: function(*arguments, *constants, **options)


class _Recorder:
    """Puts nodes in an order of calls, each value under a name of its own or that of a value no longer needed."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.places: dict[_Node, str] = {}
        self.spent: set[str] = set()

    def store(self, name: str, node: _Node) -> None:
        place = self.place(node, into=name)
        if place != name:
            self.calls.append(_Call("copy", (name, place), (), {}, name))
        self.places[node] = name
        self.spent.add(name)

    def place(self, node: _Node, into: str = "") -> str:
        """The name under which a node's value will be; preferably ``into``, if the node can overwrite it."""
        if node not in self.places:
            if isinstance(node, _Sum):
                self.places[node] = self.sum(node, into)
            elif node.operands:
                names = [self.place(operand) for operand in node.operands]
                self.places[node] = self.call(node.name, names, node.constants, node.operands[0].is_spare)
            else:
                assert node.name not in self.spent, f"{node.name} is needed after it was overwritten"
                return node.name
        return self.places[node]

    def sum(self, node: _Sum, into: str) -> str:
        def fitness_as_base(term: tuple[_Node, float]) -> tuple[bool, bool, bool]:
            return term[0].is_leaf and term[0].name == into, not self.fuses(term[0]), term[1] == 1.0

        terms = zip(node.operands, node.factors, strict=True)
        (added, b), (base, a) = sorted(terms, key=fitness_as_base)
        fused = self.fuses(added)
        names = [self.place(operand) for operand in (added.operands if fused else (added,))]
        place = self.place(base)
        mine = base.is_spare or (place == into and into not in names)
        if a + b == 1.0 and not fused:
            return self.call("lerp", [place, *names], (b,), mine)
        if a != 1.0:
            place, mine = self.call("mul", [place], (a,), mine), True
        name, factor = (f"addc{added.name}", "value") if fused else ("add", "alpha")
        return self.call(name, [place, *names], (), mine, {factor: b})

    def fuses(self, node: _Node) -> bool:
        """Whether a sum can take this call along."""
        return node.name in {"mul", "div"} and not node.constants and node.is_spare and node not in self.places

    def call(
        self,
        name: str,
        arguments: list[str],
        constants: tuple[Any, ...],
        in_place: bool,
        options: Mapping[str, float] | None = None,
    ) -> str:
        target = arguments[0] if in_place else f"#{len(self.calls)}"
        self.calls.append(_Call(name, tuple(arguments), constants, options or {}, target))
        return target
