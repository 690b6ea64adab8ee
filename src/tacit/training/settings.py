"""A run's settings as data: complete, plain enough for YAML, comparable with those of an earlier start."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from tacit.checks import shortly
from tacit.data.memory import Held
from tacit.data.source import Source
from tacit.errors import TacitError, UsageError, unknown
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.training.hints import named, suits
from tacit.training.options import CONCERNS, Options
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
        "values",
        "save_every",
        "on_collapse",
        "views",  # the method's options say what they are
    }
)


_LONGEST = 300  # characters of a value in a message


def describe(options: Options) -> dict[str, Any]:
    """The arguments as plain YAML types, in the form that `tacit fit --config` takes back."""
    words = {name: plain(value) for name, value in options.words().items() if name != "resume"}
    if words.get("recipe") == "default":
        words["recipe"] = None
    words["method"] = {"name": options.method, **plain(options.own)}
    return {name: value for name, value in words.items() if value is not None}


def plain(value: Any) -> Any:
    """A value as YAML's own types; sources and modules, which no file can repeat, as their names."""
    if isinstance(value, Source):
        return f"<{type(value).__name__} {value.fingerprint[:12]}>"
    if isinstance(value, Held):
        return f"<{value.described()}>"
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
            f"cannot resume '{run}' with other settings: {key} was {_said(before.get(key))}, now "
            f"{_said(now.get(key))}" + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")
        )


def _said(value: Any) -> str:
    """A value in one line that is not too long."""
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def resumed_options(run: Run, learns: type[Method], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run that is resumed, with those that are given in their places.

    Raises:
        TacitError: an option in `run.yaml` is of another type than the method takes.
    """
    before = {name: value for name, value in run.settings().get("method", {}).items() if name != "name"}
    kinds = option_types(learns)
    for name, value in before.items():
        if name in kinds and name not in given:
            _check_type(run, f"method.{name}", value, kinds[name])
    return before | {
        name: {**before[name], **value}
        if isinstance(value, Mapping) and isinstance(before.get(name), Mapping)
        else value
        for name, value in given.items()
    }


def resumed_choices(run: Run, options: Options) -> dict[str, Any]:
    """What the run that is resumed chose by itself, where it is not given again: a preset's values, views.

    Raises:
        UsageError: other views than it had.
        TacitError: a value in `run.yaml` is of another type than `fit` takes.
    """
    settings, names, words = run.settings(), ["views"], options.words()
    if words["views"] not in (None, settings.get("views")):
        raise UsageError(
            f"cannot resume '{run}' with other settings: views was {settings.get('views')}, now "
            f"{words['views']}"
        )
    if words["preset"] is not None:
        names += ["encoder", *(f.name for f in fields(Recipe) if f.name != "source")]
    chosen = {n: settings[n] for n in names if words[n] is None and settings.get(n) is not None}
    kinds = word_types()
    for name, value in chosen.items():
        _check_type(run, name, value, kinds[name])
    return chosen


def word_types() -> dict[str, Any]:
    """The types of the words of `fit`, by name."""
    return {name: hint for kind in CONCERNS.values() for name, hint in get_type_hints(kind).items()}


def option_types(learns: type[object]) -> dict[str, Any]:
    """The types of the options of a method, by name; {} of one that names types that are not imported."""
    try:
        hints = get_type_hints(learns.__init__)
    except NameError:  # a module of the user's own may
        return {}
    return {name: hint for name, hint in hints.items() if name not in ("encoder", "return")}


def _check_type(run: Run, name: str, value: Any, hint: Any) -> None:
    if not suits(value, hint):
        wanted = f"and must be {named(hint)}"
        raise TacitError(f"{run.settings_file} is damaged: its {name} is {shortly(value)}, {wanted}")


def complete_options(
    learns: type[Method],
    slug: str,
    given: Mapping[str, Any],
    usual: Callable[[str, Any], Any] = lambda name, own: own,
) -> dict[str, Any]:
    """All options of the method; those not given have their defaults, mappings become dataclasses.

    usual: from an option's name and the constructor's default to the default of this run.
    """
    parameters = {n: p for n, p in inspect.signature(learns).parameters.items() if n != "encoder"}
    for name in given:
        if name not in parameters:
            raise unknown(f"option of {slug}", name, parameters)
    usually = {name: usual(name, parameter.default) for name, parameter in parameters.items()}
    options = {**usually, **given}
    words = _allowed_words(learns)
    for name, value in options.items():
        default = usually[name]
        if name in words and value not in words[name]:
            raise unknown(f"{slug}.{name}", str(value), [str(word) for word in words[name]])
        if value is inspect.Parameter.empty:
            raise UsageError(f"{slug} needs the option {name}")
        if is_dataclass(default) and not isinstance(default, type):
            options[name] = _changed(f"{slug}.{name}", default, value)
    return options


def _allowed_words(learns: type[Method]) -> dict[str, tuple[Any, ...]]:
    """The options that take one of some words, and these."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, hint in option_types(learns).items():
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
