"""Checks of single fields in files that anybody can have written: types and ranges."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from reprlib import repr as abridged
from typing import Any, cast

_LONGEST = 160  # characters of a value in a message


def shortly(value: object) -> str:
    """A value in part of a line, however large it is."""
    text = " ".join(abridged(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def check_number(name: str, value: object, fits: Callable[[float], bool], must: str) -> None:
    """Refuse what is not a finite number, or one that does not fit. must: what it must be, in words.

    Raises:
        ValueError: says so.
    """
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    number = cast(float, value) if plain else math.nan
    # a whole number of any length compares with a float, and need not become one
    if not (abs(number) <= sys.float_info.max and fits(number)):
        raise wrong(name, value, must)


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number from `low` to `high`.

    Raises:
        ValueError: says so.
    """
    if not (is_whole(value) and low <= cast(int, value) <= high):
        raise wrong(name, value, f"a whole number from {low:,} to {high:,}")


def check_type(name: str, value: object, kind: type[Any], must: str) -> None:
    """Refuse a value of another type. must: what it must be, in words.

    Raises:
        ValueError: says so.
    """
    if not isinstance(value, kind):
        raise wrong(name, value, must)


def is_count(value: float) -> bool:
    """Whether it is a whole number of at least 0."""
    return isinstance(value, int) and value >= 0


def is_whole(value: object) -> bool:
    """Whether it is a whole number, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def needed(data: Mapping[str, Any], name: str) -> Any:
    """A value by its name.

    Raises:
        ValueError: it is missing.
    """
    if name not in data:
        raise ValueError(f"its {name} is missing")
    return data[name]


def wrong(name: str, value: object, must: str) -> ValueError:
    """The error for a field that is something else than it must be."""
    return ValueError(f"its {name} is {shortly(value)}, and must be {must}")
