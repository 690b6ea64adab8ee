"""From the arguments of `fit` to what a run is made of: recipe, data, method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from timm.optim import list_optimizers
from torch import nn

from tacit.data.open import open_source
from tacit.data.source import Source
from tacit.data.statistics import channel_statistics
from tacit.encoders.card import EncoderCard, card_of
from tacit.encoders.saved import load_card
from tacit.encoders.zoo import build_encoder, fixed_size, is_pretrained
from tacit.errors import UsageError, unknown
from tacit.evaluation.subject import LARGEST_VIEW, pick_device, store_limit
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.training.watch import OnCollapse

Precision = Literal["auto", "32", "bf16"]


def recipe_for(learns: type[Method], arguments: Mapping[str, Any]) -> Recipe:
    """The method's recipe with what the arguments change."""
    names = {f.name for f in fields(Recipe)}
    changes = {name: value for name, value in arguments.items() if name in names and value is not None}
    recipe = replace(learns.recipe, **changes)
    if recipe.optimizer not in list_optimizers():
        raise unknown("optimizer", recipe.optimizer, list_optimizers())
    return recipe


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse values that would fail later, when a folder was already begun."""
    if arguments["data"] is None or not str(arguments["data"]).strip():
        raise UsageError("the data are not named: pass --data FOLDER (or a .npz, hf:NAME, digits, mnist5k)")
    if arguments["out"] is not None and not str(arguments["out"]).strip():
        raise UsageError("--out is empty: name a folder")
    for name, least in (("size", 4), ("accumulate", 1), ("devices", 1), ("workers", 0)):
        if arguments[name] is not None and arguments[name] < least:
            raise UsageError(f"{name} must be at least {least}, not {arguments[name]}")
    for name, known in (("precision", Precision), ("on_collapse", OnCollapse)):
        if arguments[name] not in get_args(known):
            raise unknown(name, str(arguments[name]), get_args(known))
    if not arguments["save_every"] >= 0:
        raise UsageError(f"save_every must be at least 0 seconds, not {arguments['save_every']}")
    pick_device(arguments["device"])


def open_data(arguments: Mapping[str, Any]) -> tuple[Source, int]:
    """The data, and the side in pixels that the encoder will see."""
    encoder, size, channels = arguments["encoder"], arguments["size"], arguments["channels"]
    card = _given_card(encoder)
    if card is not None:
        if size not in (None, card.size):
            raise UsageError(f"--size {size} does not fit the encoder, which sees {card.size} pixels")
        if arguments["small_input"] not in (None, card.small_input):
            raise UsageError("--small-input cannot be changed for an encoder that exists")
        size, channels = card.size, channels or card.channels
    elif size is None:
        size = fixed_size(encoder)
    source = open_source(
        arguments["data"],
        labels=arguments["labels"],
        groups=arguments["groups"],
        channels=channels,
        max_size=store_limit(size or LARGEST_VIEW),
        on_bad_file=arguments["on_bad_file"],
        cache=arguments["cache"],
        progress=not arguments["quiet"],
    )
    return source, size or min(source.spec.shape[-1], LARGEST_VIEW)


def _given_card(encoder: str | nn.Module) -> EncoderCard | None:
    """The card of an encoder that exists already: a module, or that of a run."""
    if isinstance(encoder, nn.Module):
        return card_of(encoder)
    inner = encoder.removeprefix("random:")
    return load_card(Path(inner.removeprefix("run:"))) if inner.startswith("run:") else None


def build_method(learns: type[Method], arguments: Mapping[str, Any], source: Source, side: int) -> Method:
    """The method on its encoder, before `prepare`."""
    encoder = arguments["encoder"]
    channels = source.spec.shape[0]
    if not isinstance(encoder, nn.Module):
        # a pretrained encoder brings the statistics that it was learned with
        mean, std = (None, None) if is_pretrained(encoder) else channel_statistics(source)
        encoder = build_encoder(
            encoder,
            channels=channels,
            size=side,
            mean=mean,
            std=std,
            small_input=arguments["small_input"],
            seed=arguments["seed"],
        )
    if card_of(encoder).channels != channels:
        raise UsageError(
            f"the encoder takes {card_of(encoder).channels} channel(s), the images have {channels}: "
            f"pass --channels {card_of(encoder).channels}"
        )
    return learns(encoder, **arguments["options"])
