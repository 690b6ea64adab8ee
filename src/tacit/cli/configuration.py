"""Configurations: files that `fit --config` reads, which anybody can have written.

A configuration has registered methods and plain values. jsonargparse would import the class that a
`class_path` names, and open files that values name. So a file is read and checked here, and what jsonargparse
gets is its values written out again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonargparse import ActionConfigFile

from tacit.checks import shortly
from tacit.errors import UsageError, unknown
from tacit.methods.registry import check_registered, method_class
from tacit.training.hints import is_scalar, named, suits
from tacit.training.settings import option_types, word_types
from tacit.untrusted import dump_yaml, first_line, mapping, read_yaml

_CLASSES = ("class_path", "init_args", "dict_kwargs")  # by which jsonargparse knows an object
_PLACES = ("data", "images", "labels", "masks", "values", "groups", "encoder", "cache", "out")
_WORD = re.compile(r"[\w-]*")
_NOT_A_FILE = "#" * 300 + "\n"  # jsonargparse looks for a file of this name first, and no name is so long


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration that was checked.

    path: as the user named it. method: its slug, if there is one. options: of the method. words: of `fit`.
    """

    path: str
    method: str | None
    options: Mapping[str, Any]
    words: Mapping[str, Any]

    def places(self, arguments: Mapping[str, Any]) -> str:
        """The places of data and results that come from the file, as options. arguments: what `fit` gets."""
        taken = [name for name in _PLACES if self.words.get(name) not in (None, "none")]
        return " ".join(f"--{n} {self.words[n]}" for n in taken if arguments.get(n) == self.words[n])

    def text(self) -> str:
        """Its values as YAML."""
        method = {} if self.method is None else {"method": {"name": self.method, **self.options}}
        return dump_yaml({**self.words, **method})


def read_configuration(path: str, slug: str | None = None) -> Configuration:
    """Read a YAML file of settings. slug: the method that the user names, if any.

    Raises:
        UsageError: it cannot be read, or has anything but registered methods and plain values.
    """
    where = f"--config {path}"
    try:
        settings = mapping(read_yaml(path), "it")
        settings.pop("record", None)  # what a run has seen, in its run.yaml
        method = mapping(settings.pop("method", None) or {}, "its method")
    except OSError as error:
        raise UsageError(f"cannot read {where}: {first_line(error)}") from None
    except ValueError as error:
        raise UsageError(f"{where} is no YAML of settings: {first_line(error)}") from None
    known = word_types()
    for name, value in settings.items():
        if name not in known:
            raise unknown(f"setting in {where}:", name, [*known, "method"])
        _refuse_objects(value, where)
    _refuse_objects(method, where)
    name = method.pop("name", None)
    for chosen in (name, settings.get("pretrain")):
        if chosen is not None and chosen != slug:
            check_registered(str(chosen), where)
    found = Configuration(path, None if name is None else str(name), method, settings)
    if (learns := slug or found.method) is not None:
        _check_options(found, learns)
    return found


def _refuse_objects(values: Any, where: str) -> None:
    """Refuse the ways in which jsonargparse writes objects, at any depth."""
    todo = [values]
    while todo:
        value = todo.pop()
        todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for name in value if isinstance(value, dict) else ():
            if not isinstance(name, str) or not _WORD.fullmatch(name) or name in _CLASSES:
                raise UsageError(
                    f"{where} has {shortly(name)}, where an option must be: files have plain values, code "
                    "is imported only where you name it on the command line"
                )


def _check_options(configuration: Configuration, slug: str) -> None:
    """Refuse values for options that are objects, where jsonargparse would look for code or files."""
    learns = method_class(slug)
    kinds = {name: hint for kind in reversed(learns.__mro__) for name, hint in option_types(kind).items()}
    for name, value in configuration.options.items():
        if name not in kinds:
            bad, must = isinstance(value, str) and not _WORD.fullmatch(value), "a number or a word"
        else:
            bad = not is_scalar(kinds[name]) and not suits(value, kinds[name])
            must = named(kinds[name])
        if bad:
            raise UsageError(
                f"--config {configuration.path}: method.{name} is {shortly(value)}, and must be {must}"
            )


def checked_config(slug: str) -> type[ActionConfigFile]:
    """jsonargparse's action for a configuration of this method, which opens no file by itself."""

    class Checked(ActionConfigFile):
        """See `checked_config`."""

        def __call__(self, parser: Any, cfg: Any, values: str, option_string: str | None = None) -> None:
            self.apply_config(parser, cfg, self.dest, _NOT_A_FILE + read_configuration(values, slug).text())

    return Checked
