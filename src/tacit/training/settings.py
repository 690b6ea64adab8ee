"""A run's settings as data: complete, plain enough for YAML, comparable with those of an earlier start."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from tacit.data.source import Source
from tacit.errors import UsageError, unknown
from tacit.methods.base import Method
from tacit.training.run import Run

# what may differ between a run and its resumption without changing what is learned; the data may lie
# elsewhere, for their content is compared by its fingerprint
_FREE = frozenset(
    {
        "resume",
        "out",
        "quiet",
        "workers",
        "cache",
        "device",
        "data",
        "labels",
        "save_every",
        "on_collapse",
    }
)


def describe(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as plain YAML types, in the form that `tacit fit --config` takes back."""
    words = {name: plain(value) for name, value in arguments.items() if name not in ("resume", "options")}
    words["method"] = {"name": arguments["method"], **plain(arguments["options"])}
    return {name: value for name, value in words.items() if value is not None}


def plain(value: Any) -> Any:
    """A value as YAML's own types; sources and modules, which no file can repeat, as their names."""
    if isinstance(value, Source):
        return f"<{type(value).__name__} {value.fingerprint[:12]}>"
    if isinstance(value, nn.Module):
        return f"<{type(value).__name__}>"
    if is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in fields(value)})
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def check_same_settings(run: Run, now: dict[str, Any]) -> None:
    """Refuse to go on with a run under settings that would change what it learns.

    Raises:
        UsageError: names the first setting that differs.
    """
    before = run.settings()
    keys = (before.keys() | now.keys()) - _FREE - {"record"}
    changed = sorted(key for key in keys if before.get(key) != now.get(key))
    if changed:
        key = changed[0]
        raise UsageError(
            f"cannot resume '{run}' with other settings: {key} was {before.get(key)}, now {now.get(key)}"
            + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")
        )


def complete_options(learns: type[Method], slug: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the method; those not given have their defaults, mappings become dataclasses."""
    parameters = {n: p for n, p in inspect.signature(learns).parameters.items() if n != "encoder"}
    for name in given:
        if name not in parameters:
            raise unknown(f"option of {slug}", name, parameters)
    options = {name: given.get(name, parameter.default) for name, parameter in parameters.items()}
    words = _allowed_words(learns)
    for name, value in options.items():
        default = parameters[name].default
        if name in words and value not in words[name]:
            raise unknown(f"{slug}.{name}", str(value), [str(word) for word in words[name]])
        if value is inspect.Parameter.empty:
            raise UsageError(f"{slug} needs the option {name}")
        if is_dataclass(default) and not isinstance(default, type):
            options[name] = _changed(f"{slug}.{name}", default, value)
    return options


def _allowed_words(learns: type[Method]) -> dict[str, tuple[Any, ...]]:
    """The options that take one of some words, and these."""
    try:
        hints = get_type_hints(learns.__init__)
    except NameError:  # a module of the user's own may name types that are not imported
        return {}
    found: dict[str, tuple[Any, ...]] = {}
    for name, hint in hints.items():
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if all(get_origin(part) is Literal or part is type(None) for part in parts) and parts:
            found[name] = tuple(
                w for p in parts for w in (get_args(p) if get_origin(p) is Literal else (None,))
            )
    return {name: allowed for name, allowed in found.items() if any(word is not None for word in allowed)}


def _changed(where: str, default: Any, value: Any) -> Any:
    """A dataclass option: as it is, or the default with the values of a mapping."""
    if isinstance(value, type(default)):
        return value
    if not isinstance(value, Mapping):
        raise UsageError(f"option {where} takes a {type(default).__name__} or a mapping, not {value!r}")
    known = [f.name for f in fields(default)]
    for key in value:
        if key not in known:
            raise unknown(f"option of {where}", key, known)
    return replace(default, **{key: _frozen(inner) for key, inner in value.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
