"""YAML read as data: no tags, no aliases, no duplicate keys, bounded in size and depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from batchscope.amounts import number
from batchscope.errors import StudyError

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 100_000
MAX_DIGITS = 500


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses what YAML would silently merge or multiply."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed; write the value out", mark)
        self.depth += 1
        self.nodes += 1
        if self.depth > MAX_DEPTH or self.nodes > MAX_NODES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            what = f"at most {MAX_DEPTH} levels and {MAX_NODES} values are allowed"
            raise yaml.composer.ComposerError(None, None, what, mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            name = self.construct_object(key_node, deep=True)
            if not isinstance(name, str):
                message = f"keys must be text, got {name!r}; quote it"
                raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
            if name in seen:
                message = f"the key {name!r} is given twice; remove one"
                raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _short_number(kind: str, construct: Callable[[_Loader, yaml.ScalarNode], Any]) -> None:
    """Refuse numbers that take quadratic time, also those in base 60 (``1:59:59``)."""

    def checked(loader: _Loader, node: yaml.ScalarNode) -> Any:
        if len(node.value) > MAX_DIGITS:
            message = f"a number may have {MAX_DIGITS} characters, this one has {len(node.value)}"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return construct(loader, node)

    _Loader.add_constructor(f"tag:yaml.org,2002:{kind}", checked)


_short_number("int", _Loader.construct_yaml_int)
_short_number("float", _Loader.construct_yaml_float)


def load(text: str, source: str) -> dict[str, Any]:
    """Read one YAML mapping.

    Args:
        text: The YAML text.
        source: What to call it in errors.

    Raises:
        StudyError: If the text is no YAML mapping within the bounds; with line and column.
    """
    if len(text) > MAX_CHARACTERS:
        raise StudyError(f"{source} has {number(len(text))} characters; at most {number(MAX_CHARACTERS)} are read")
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise StudyError(f"{source}{place}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        # The last ones come from values that are not of the kind that they are tagged as, such as !!bool maybe.
        raise StudyError(f"{source} is not YAML: {type(error).__name__}: {error}") from None
    if not isinstance(document, dict):
        kind = {"NoneType": "nothing", "list": "a list", "str": "text"}.get(type(document).__name__, repr(document))
        raise StudyError(f"{source} must hold keys with values, such as 'workload: digits/softmax'; it holds {kind}")
    return document


def override(document: dict[str, Any], text: str) -> None:
    """Apply ``key.key=value`` to a document in place; the value is read as YAML.

    Raises:
        StudyError: If the text has no ``=``, or its path leads through a value that has no keys.
    """
    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise StudyError(f"an override is KEY=VALUE, for example search.trials=8, got {text!r}")
    inner = load(f"value: {value}", f"the override {text!r}")["value"]
    here: Any = document
    for depth, name in enumerate(keys[:-1]):
        if not isinstance(here.setdefault(name, {}), dict):
            place = ".".join(keys[: depth + 1])
            raise StudyError(
                f"the override {text!r} leads into {place}, which is the value {here[name]!r} and has no keys; "
                f"write {place}=..."
            )
        here = here[name]
    here[keys[-1]] = inner
