"""The rule and the drop-in of every optimizer in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import MappingProxyType

from batchscope.optim.adapter import RuleOptimizer
from batchscope.optim.rule import Rule
from batchscope.optim.table import TABLE

_MODULES = {name: import_module(f"batchscope.optim.{row.module}") for name, row in TABLE.items()}

RULES: dict[str, Rule] = {name: getattr(module, name) for name, module in _MODULES.items()}

# Made from parameters and lr; everything else at its default.
OPTIMIZERS: Mapping[str, Callable[..., RuleOptimizer]] = MappingProxyType(
    {name: partial(getattr(module, TABLE[name].cls), **TABLE[name].options) for name, module in _MODULES.items()}
)
