"""Whether a plain value, of a file, is what an argument is annotated with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tacit.checks import is_whole

_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
}


def suits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of this type; a mapping of some of its fields is of a dataclass.

    A type that no plain value is of, such as a class or a function, suits nothing.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(suits(value, part) for part in parts)
    if origin is Literal:
        return any(value == word and type(value) is type(word) for word in parts)
    if hint in _NAMES or origin is os.PathLike or hint is os.PathLike:
        return _is(value, hint)
    if is_dataclass(hint):
        kinds = get_type_hints(hint)
        return isinstance(value, Mapping) and all(
            name in kinds and suits(inner, kinds[name]) for name, inner in value.items()
        )
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in hint.__members__
    return _holds(value, origin or hint, parts)


def _is(value: Any, hint: Any) -> bool:
    if hint is int:
        return is_whole(value)
    if hint is float:
        return is_whole(value) or (isinstance(value, float) and value == value)
    return isinstance(value, hint if hint in (bool, NoneType) else str)


def _holds(value: Any, kind: Any, parts: tuple[Any, ...]) -> bool:
    """Whether it is a list or a mapping of what it must be of."""
    if not isinstance(kind, type):
        return False
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping) and (not parts or all(suits(v, parts[1]) for v in value.values()))
    if not issubclass(kind, Sequence) or not isinstance(value, list | tuple):
        return False
    if kind is tuple and parts and parts[-1] is not Ellipsis:
        return len(value) == len(parts) and all(map(suits, value, parts))
    return not parts or all(suits(each, parts[0]) for each in value)


def named(hint: Any) -> str:
    """The type in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(named(part) for part in parts))
    if origin is Literal:
        return "one of " + ", ".join(map(str, parts))
    if hint in _NAMES:
        return _NAMES[hint]
    if is_dataclass(hint):
        return f"names and values, of {', '.join(f.name for f in fields(hint))}"
    return "a text" if os.PathLike in (origin, hint) else "another kind of value"


def is_scalar(hint: Any) -> bool:
    """Whether it is a number, a text, a truth value, a word of some, or none."""
    if get_origin(hint) in (Union, UnionType):
        return all(is_scalar(part) for part in get_args(hint))
    return hint in _NAMES or get_origin(hint) in (Literal, os.PathLike)
