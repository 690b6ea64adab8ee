"""`tacit methods [SLUG] [--family F] [--modality M]`."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from dataclasses import fields
from typing import NoReturn

from tacit.errors import UsageError, unknown
from tacit.methods.registry import all_methods, method_class
from tacit.methods.starting import STARTS


class _Parser(argparse.ArgumentParser):
    """argparse alone: listing needs no torch, and jsonargparse takes longer than the list."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def run(argv: Sequence[str]) -> None:
    """Print the list, or one method's idea, recipe and options."""
    parser = _Parser(prog="tacit methods", description="List the methods, or show one.")
    parser.add_argument("slug", nargs="?", help="show this method")
    parser.add_argument("--family", help="only this family, such as contrastive")
    parser.add_argument("--modality", help="only this modality, such as image")
    wanted = parser.parse_args(argv)
    if wanted.slug:
        _show(wanted.slug)
    else:
        _list(wanted.family, wanted.modality)


def _list(family: str | None, modality: str | None) -> None:
    methods = all_methods()
    for what, value in (("family", family), ("modality", modality)):
        known = {
            word for e in methods.values() for word in ((e.family,) if what == "family" else e.modalities)
        }
        if value is not None and value not in known:
            raise unknown(what, value, known)
    rows = [("method", "family", "modality", "learns from", "what it is", "paper")]
    rows += [
        (slug, e.family, ", ".join(e.modalities), e.learns_from, e.title, e.paper)
        for slug, e in methods.items()
        if family in (None, e.family) and modality in (None, *e.modalities)
    ]
    _print_table(rows)
    if family is None and modality is None:
        print("\nWhich to start with (compare on your own data: tacit curve):")
        _print_table([(s.situation, f"{s.method} {s.words}".strip(), s.why) for s in STARTS])


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _show(slug: str) -> None:
    found = method_class(slug)
    print(f"{slug} ({found.__module__}.{found.__qualname__})\n\n{inspect.getdoc(found)}\n\nRecipe:")
    for f in fields(found.recipe):
        print(f"  {f.name:14}{getattr(found.recipe, f.name)}")
    print("\nOptions (--method.NAME on the command line, options={...} in Python):")
    for name, parameter in inspect.signature(found).parameters.items():
        if name != "encoder":
            print(f"  {name:20}{parameter.default}")
