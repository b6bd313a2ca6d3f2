"""Packages whose public names load their modules when they are first used (PEP 562).

So a study is read, and a run is analysed, without torch, whatever package the names come from. What a type checker
is to know of such a package stands in it under ``TYPE_CHECKING``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def exports(package: str, modules: Mapping[str, Iterable[str]]) -> tuple[list[str], Callable[[str], Any]]:
    """``__all__`` and ``__getattr__`` of a package.

    A name must not be that of one of the package's modules: importing a module sets it in its package.

    Args:
        package: Its ``__name__``.
        modules: The public names by the module of the package that has them; a name without a module, under ``""``, is
            a module or a package itself.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if not homes[name]:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return sorted(homes), load
