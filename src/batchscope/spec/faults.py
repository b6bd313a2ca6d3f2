"""What is wrong with a study file, in words: every fault with its place, the rule, the value got, and what to type."""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

# Names that pydantic puts into an error's place for the members of a union; no keys of the file.
TAGS = frozenset({"range", "choice", "span", "list", "named", "function-before", "function-after"})
_MEMBER = re.compile(r"constrained-|literal\[")
_LISTS_OF_WORDS = ("goals", "metrics")
Keys = tuple[int | str, ...]


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """All faults of one validation, a line each."""
    # A list whose entries are at fault counts as empty too; the entries' own faults say it better.
    real = [fault for fault in error.errors() if fault["type"] != "too_short" or not fault["input"]]
    words = _words_instead(real)
    faults = list(dict.fromkeys(_line(fault, model, words) for fault in real if not _is_word(fault)))
    count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
    return "\n".join([f"{source} has {count}:", *(f"  {fault}" for fault in faults)])


def _line(fault: ErrorDetails, model: type[BaseModel], words: Mapping[Keys, str]) -> str:
    keys = _keys(fault)
    place, rule = _place(keys), _rule(fault, model, keys)
    rule += f"; or write {words[keys]}" if keys in words else ""
    return f"{place}: {rule}" if place else rule


def _keys(fault: ErrorDetails) -> Keys:
    """The keys of the file that lead to a fault."""
    return tuple(part for part in fault["loc"] if part not in TAGS and not _MEMBER.match(str(part)))


def _is_word(fault: ErrorDetails) -> bool:
    """Whether a value is none of the words that a key may have in place of a number."""
    return str(fault["loc"][-1:]).startswith('("literal[')


def _words_instead(faults: Iterable[ErrorDetails]) -> dict[Keys, str]:
    return {_keys(fault): str(fault["ctx"]["expected"]).replace("'", "") for fault in faults if _is_word(fault)}


def _place(keys: Keys) -> str:
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def _rule(fault: ErrorDetails, model: type[BaseModel], keys: Keys) -> str:
    context = fault.get("ctx", {})
    if fault["input"] is None:
        return "has no value; give one, or remove the key"
    got = f", got {_short(fault['input'])}"
    match fault["type"]:
        case "extra_forbidden":
            known = sorted(_known_keys(model, keys[:-1]))
            close = difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=0.5)
            advice = f"did you mean {close[0]}?" if close else f"the keys here are {', '.join(known)}"
            return f"unknown key; {advice}"
        case "missing":
            return "is missing; it has no default, so give a value"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            expected = str(context["expected"]).replace("'", "")
            close = difflib.get_close_matches(str(fault["input"]), expected.replace(" or ", ", ").split(", "), n=1)
            return f"must be {expected}{got}" + (f"; did you mean {close[0]}?" if close else "")
        case "greater_than":
            return f"must be above {context['gt']}{got}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}{got}"
        case "less_than":
            return f"must be below {context['lt']}{got}"
        case "less_than_equal":
            return f"must be at most {context['le']}{got}"
        case "too_short":
            return f"needs at least {context['min_length']} entry{got}"
        case "finite_number":
            return f"must be a finite number{got}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a block of keys with values{got}"
        case "tuple_type" | "list_type":
            return f"must be a list such as {_as_list(fault['input'], keys)}{got}"
        case "int_parsing" | "int_type" | "int_from_float":
            return f"must be a whole number{got}"
        case "float_parsing" | "float_type":
            return f"must be a number{got}"
        case "string_type":
            return f"must be text{got}; quote it"
    return f"{fault['msg'][:1].lower()}{fault['msg'][1:]}{got}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type annotation mentions, unions and containers looked through."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)


def _as_list(value: Any, keys: Keys) -> str:
    """A list as one would type it: what was probably meant by a value that is none."""
    if re.fullmatch(r"[\d,\s]*\d[\d,\s]*", str(value)):
        return f"[{value}]"
    return json.dumps([value]) if isinstance(value, str) and keys[0] in _LISTS_OF_WORDS else "[16, 32, 64]"


def _known_keys(model: type[BaseModel], keys: Keys) -> set[str]:
    here: set[type[BaseModel]] = {model}
    for key in keys:
        fields = [inner.model_fields[key] for inner in here if isinstance(key, str) and key in inner.model_fields]
        here = {found for field in fields for found in (*_models(field.annotation), *_models(field.metadata))} or here
    return {field.alias or name for inner in here for name, field in inner.model_fields.items()}
