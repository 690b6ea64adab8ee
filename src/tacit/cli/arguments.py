"""Options from signatures and docstrings: the function is the one truth, the command line follows it."""

from __future__ import annotations

import inspect
import re
import types
import typing
from argparse import Action
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

import docstring_parser
from jsonargparse import SUPPRESS, ActionYesNo, ArgumentParser, DefaultHelpFormatter, Namespace

from tacit.errors import UsageError, did_you_mean

Function = Callable[..., Any]
Options = Any
"""A parser, or a group of its options under a heading."""


class Help(DefaultHelpFormatter):
    """Help in a person's words: values as N, X or the words there are, and defaults that say something."""

    def _get_help_string(self, action: Action) -> str:
        text, default = action.help or "", action.default
        known = text and "default" not in text and default not in (None, "", (), SUPPRESS)
        if not known or isinstance(default, dict | Namespace | type(None)) or not action.option_strings:
            return text
        said = {True: "yes", False: "no"}.get(default, default) if isinstance(default, bool) else default
        return f"{text.rstrip('.')} (default: {said})"

    def _expand_help(self, action: Action) -> str:
        return super()._expand_help(action).replace("%%", "%")  # argparse would, jsonargparse does not

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        kind: Any = getattr(action, "_typehint", None) or action.type
        parts = [part for part in typing.get_args(kind) if part is not type(None)]
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
            kind = parts[0] if len(parts) == 1 else kind
        if typing.get_origin(kind) is typing.Literal:
            return "|".join(str(part) for part in typing.get_args(kind))
        return {int: "N", float: "X"}.get(kind) or super()._get_default_metavar_for_optional(action)


class Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, verb: str, function: Function, usage: str) -> None:
        summary = docstring_parser.parse(inspect.getdoc(function) or "")
        text = "\n\n".join(filter(None, (summary.short_description, summary.long_description)))
        super().__init__(
            prog=f"tacit {verb}",
            usage=f"tacit {verb} {usage}",
            description=text,
            formatter_class=Help,
            exit_on_error=False,
            default_env=False,
            allow_abbrev=False,
        )

    def parse(self, argv: Sequence[str]) -> Namespace:
        """Parse, or say in one line what is wrong.

        Raises:
            UsageError: an unknown option, or a value of the wrong type.
        """
        try:
            return self.parse_args(spell(argv))
        except SystemExit:
            raise
        except Exception as error:
            # argparse, jsonargparse and its YAML reader raise types of their own
            raise UsageError(self._one_line(str(error))) from None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Called by argparse; nothing but the message is kept."""
        raise UsageError(self._one_line(message))

    def _one_line(self, message: str) -> str:
        if found := re.search(r"unrecognized arguments: (\S+)", message):
            return self._unknown_option(found[1])
        if found := re.search(r"required: (.*)", message):
            return f"missing: {found[1]} (tacit {self._verb} --help shows how)"
        if found := re.search(r'[Pp]arser key "([\w.-]+)"', message):
            return self._wrong_value(found[1], message)
        return " ".join(message.split())

    @property
    def _verb(self) -> str:
        return self.prog.removeprefix("tacit ")

    def _unknown_option(self, word: str) -> str:
        option = word.partition("=")[0]
        if not option.startswith("-"):
            return f"unexpected argument '{word}' (tacit {self._verb} --help shows what is taken)"
        known = [name for action in self._actions for name in action.option_strings]
        hint = did_you_mean(option, known) or f"; tacit {self._verb} --help lists the options"
        return f"unknown option '{option}'{hint}"

    def _wrong_value(self, key: str, message: str) -> str:
        given = re.search(r"(?:Given value|Got value|got value): ?(.*)", message)
        action = next((a for a in self._actions if a.dest == key), None)
        wanted = _type_name(getattr(action, "_typehint", None) or getattr(action, "type", None))
        option = f"--{key if '.' in key else key.replace('_', '-')}"
        if given is None:
            said = message.split(":", 1)[-1] if message.startswith(("Parser key", "parser key")) else message
            return f"option {option}: {' '.join(said.split())}"
        value = given[1].strip().strip("'\"")
        return f"option {option} takes {wanted}, not '{value}'"


def add_options(
    parser: Parser,
    function: Function,
    skip: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
    *,
    hidden: Collection[str] = (),
    place: Callable[[str], Options] | None = None,
) -> None:
    """An option per parameter; `notes` are added to the help of some.

    hidden: those that are taken, but not shown. place: where an option belongs in the help, by its name.
    """
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if name in skip or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        required = parameter.default is parameter.empty
        text = help_of(function, name) + (notes or {}).get(name, "")
        add_option(
            place(name) if place else parser,
            name,
            _from_words(hints[name]),
            SUPPRESS if name in hidden else text,
            required=required,
            default=None if required else parameter.default,
        )


def add_option(
    parser: Options, name: str, kind: Any, text: str, *, required: bool = False, default: Any = None
) -> None:
    """One option; booleans become a pair of flags."""
    option = f"--{name.replace('_', '-')}"
    if kind in (bool, bool | None):
        parser.add_argument(
            option, action=ActionYesNo(yes_prefix="", no_prefix="no-"), default=default, help=text
        )
    elif required:
        parser.add_argument(option, type=kind, required=True, help=text)
    else:
        parser.add_argument(option, type=kind, default=default, help=text)


def help_of(function: Function, name: str) -> str:
    """What a docstring says about a parameter, on one line."""
    for parameter in docstring_parser.parse(inspect.getdoc(function) or "").params:
        if parameter.arg_name == name:
            return " ".join((parameter.description or "").split()).replace("%", "%%")
    return ""


def require_out(words: Mapping[str, Any], verb: str) -> None:
    """Refuse a command that names no file to write, which a call from Python need not.

    Raises:
        UsageError: says how.
    """
    if words["out"] is None:
        raise UsageError(f"missing: --out (tacit {verb} --help shows how)")


def spell(argv: Sequence[str]) -> list[str]:
    """Options may be written with hyphens or underscores; ours have hyphens, those of classes underscores."""
    return [_spell_one(word) for word in argv]


def _spell_one(word: str) -> str:
    if not word.startswith("--") or word.startswith("--print_config"):
        return word
    name, equals, value = word[2:].partition("=")
    if name == "print-config":
        return "--print_config" + equals + value
    name = name.replace("-", "_") if "." in name else name.replace("_", "-")
    return "--" + name + equals + value


def _from_words(kind: Any) -> Any:
    """What a word on the command line can be, of all that the function takes: `str | Source` is a str."""
    parts = typing.get_args(kind)
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        if str in parts:
            return str | None if type(None) in parts else str
        return kind
    return kind


def _type_name(kind: Any) -> str:
    if kind is None:
        return "another kind of value"
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(str(part) for part in parts)
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " or ".join(_type_name(part) for part in parts)
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
    return names.get(kind, str(kind).replace("typing.", ""))
