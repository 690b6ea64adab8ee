"""The kinds of data there are: a folder beside this file for each of ours, an entry point for others'."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from tacit.data.form import Form
from tacit.data.memory import Held
from tacit.data.options import Options
from tacit.data.source import Source
from tacit.errors import UsageError

ENTRY_POINTS = "tacit.data"

Where = str | os.PathLike[str] | Held


class Wing(Protocol):
    """What a kind of data offers: a module `wing` in its folder, or an entry point named as its modality.

    FORM: how an encoder sees it. LAST: whether the others are asked first. NAMES: data that are no path. A
    wing may offer `take(where) -> Held | None` for data of its kind in memory, which `open` then gets.
    """

    FORM: type[Form]
    LAST: bool
    NAMES: tuple[str, ...]

    def kind(self, where: Where) -> str:
        """The modality of what would be opened."""
        ...

    def holds(self, where: Where, options: Options, words: Mapping[str, Any]) -> bool:
        """Whether there is data of this kind; nothing is decoded."""
        ...

    def open(self, where: Where, options: Options, words: Mapping[str, Any]) -> Source:
        """The data. words: what else was asked for, by the names of `open_source`'s arguments.

        Raises:
            UsageError: a word that means nothing to them. FileNotFoundError: names what is not there.
        """
        ...

    def adjusted(self, source: Source, words: Mapping[str, Any]) -> Source:
        """The same for a source that is open already."""
        ...

    def extensions(self) -> tuple[str, ...]:
        """Of the files of a folder that are read, with the dot."""
        ...


@cache
def own_wings() -> dict[str, Wing]:
    """Ours by modality, in the order in which they are asked."""
    places = sorted(path.parent.name for path in Path(__file__).parent.glob("*/wing.py"))
    found: dict[str, Any] = {name: import_module(f"tacit.data.{name}.wing") for name in places}
    return dict(sorted(found.items(), key=lambda item: item[1].LAST))


@cache
def all_wings() -> dict[str, Wing]:
    """Others' first, then ours, which none can replace; one that cannot be loaded is named and left out."""
    others: dict[str, Wing] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in own_wings():
            continue
        try:
            others[entry.name] = entry.load()
        except Exception as error:  # of whatever a package does when it is imported
            print(f"note: the kind of data '{entry.name}' ({entry.value}) cannot be loaded: {error}",
                  file=sys.stderr)  # fmt: skip
    return {**others, **own_wings()}


def wing_for(where: Where, options: Options, words: Mapping[str, Any]) -> Wing | None:
    """The first that has data of this name, which go before a folder of that name, or holds what is there."""
    if isinstance(where, Held):
        return all_wings()[where.modality]
    wings = all_wings().values()
    named = next((wing for wing in wings if where in wing.NAMES), None)
    return named or next((wing for wing in wings if wing.holds(where, options, words)), None)


def wing_of(source: Source) -> Wing:
    """That of an open source.

    Raises:
        UsageError: its kind is unknown.
    """
    found = all_wings().get(source.spec.modality)
    if found is None:
        raise UsageError(f"there is no kind of data '{source.spec.modality}'")
    return found
