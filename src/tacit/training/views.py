"""Which views a run takes: those of the kind of picture, or those of the method's paper."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tacit.data.image.statistics import colourful
from tacit.data.source import Source
from tacit.errors import UsageError
from tacit.methods.base import Method
from tacit.training.options import Viewing
from tacit.training.settings import complete_options
from tacit.views.image import Augment
from tacit.views.presets import PRESETS, Choice, choose
from tacit.views.warp import Warp


def check_views(slug: str, viewing: Viewing, learns: type[Method]) -> None:
    """Refuse views that no such method takes, before any data are opened.

    Raises:
        UsageError: an unknown preset, one for volumes, or one beside the views of the paper.
    """
    asked = viewing.views
    if asked is None:
        return
    choose(asked, channels=3)
    if not takes_views(learns):
        raise UsageError(f"{slug} makes views of its own, so --views means nothing to it: leave it out")
    if viewing.recipe == "paper":
        raise UsageError("--recipe paper has the views of the paper: leave --views out, or --recipe paper")


def takes_views(learns: type[Method]) -> bool:
    """Whether the presets say how it views images: one of its options is a way to view them."""
    options = inspect.signature(learns).parameters.values()
    return any(isinstance(option.default, Warp | Augment) for option in options)


def own_options(
    learns: type[Method],
    slug: str,
    viewing: Viewing,
    given: Mapping[str, Any],
    source: Source | None = None,
    size: int = 224,
) -> tuple[dict[str, Any], Choice | None]:
    """All options of the method, and the preset of views in them, if it takes one.

    given: the options that the user named; they come before all others. source: None before data are opened.
    size: side in pixels of what the encoder sees.

    Raises:
        UsageError: an unknown option or value, or views for a method that takes none.
    """
    if not takes_views(learns) or viewing.recipe == "paper":
        paper = learns.published if viewing.recipe == "paper" else {}
        return complete_options(learns, slug, given, lambda name, own: paper.get(name, own)), None
    asked = viewing.views
    choice = Choice(asked or "greys", "") if source is None else views_of(source, asked)
    options = complete_options(learns, slug, given, lambda name, own: choice.preset.of(name, own, size))
    return options, choice


def views_of(source: Source, asked: str | None) -> Choice:
    """The preset that was asked for, or the one that is safe for what the pictures are like."""
    channels = source.spec.shape[0] if colourful(source) else 1
    return choose(asked, channels=channels, classes=source.spec.classes)


def say(choice: Choice, *, resumed: bool = False) -> list[str]:
    """The choice in words, and what to check."""
    if resumed:
        return [f"views: {choice.name}, as before"]
    others = ", ".join(name for name in PRESETS if name != choice.name)
    return [
        f"views: {choice.name}, {choice.why} ({choice.preset.weakly}); others: --views {others}",
        *(f"warning: {text}" for text in choice.warnings),
    ]
