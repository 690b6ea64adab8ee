"""From the arguments of `fit` to what a run is made of: recipe, data, method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from timm.optim import list_optimizers
from torch import nn

from tacit.data.form import form_class
from tacit.data.image.form import LARGEST_VIEW, store_limit
from tacit.data.open import open_source
from tacit.data.source import Source
from tacit.encoders.card import EncoderCard, card_of, with_card
from tacit.encoders.saved import load_card
from tacit.encoders.zoo import build_encoder, fixed_size, is_pretrained
from tacit.errors import UsageError, unknown
from tacit.evaluation.subject import pick_device
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.methods.registry import all_methods
from tacit.tasks.registry import task_of
from tacit.training.loader import Beside, Stream
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
    encoder, size = arguments["encoder"], arguments["size"]
    card = _given_card(encoder)
    if card is not None:
        if arguments["small_input"] not in (None, card.small_input):
            raise UsageError("--small-input cannot be changed for an encoder that exists")
        opening = card.form.opening_with(arguments)
        size = card.form.sides.get("size")
    else:
        size = fixed_size(encoder) if size is None else size
        opening = {name: arguments[name] for name in ("channels", "window", "spacing", "patch")}
        opening["max_size"] = store_limit(size or LARGEST_VIEW)
    source = _open(arguments, **opening)
    form_class(source.spec.modality).refuse(arguments)
    return source, encoder_side(encoder, size, source)


def encoder_side(encoder: str | nn.Module, size: int | None, source: Source) -> int:
    """The side in pixels that the encoder sees: as asked for, its own where it is fixed, or the images'.

    0 for other kinds of data.
    """
    own = None if isinstance(encoder, nn.Module) else fixed_size(encoder)
    sides: dict[str, Any] = form_class(source.spec.modality).sides_of(source.spec, size or own)
    return int(sides.get("size", 0))


def open_images(arguments: Mapping[str, Any], learns: type[Method], beside: Source) -> Source | None:
    """The images that are learned from beside volumes, with as many channels; None if there are none.

    Raises:
        UsageError: the method takes none, or they are no images.
    """
    where = arguments["images"]
    if where is None:
        return None
    if not learns.beside:
        raise UsageError(f"{arguments['method']} learns from one source; --images is for joint-image-volume")
    images = open_source(
        where,
        labels="none",
        channels=beside.spec.shape[0],
        max_size=store_limit(min(max(beside.spec.shape[1:]), LARGEST_VIEW)),
        on_bad_file=arguments["on_bad_file"],
        cache=arguments["cache"],
        progress=not arguments["quiet"],
    )
    if images.spec.modality != "image":
        raise UsageError(
            f"--images names {images.spec.modality}s: name images, or their --data volumes alone"
        )
    return images


def images_of(method: Method, beside: Source | None, recipe: Recipe) -> Beside | None:
    """How many of the images beside volumes a step takes: as many as slices."""
    if beside is None:
        return None
    count = recipe.batch_size * method.beside_each
    return Beside(beside, Stream(np.arange(len(beside)), count, name="images"))


def _open(arguments: Mapping[str, Any], **form: Any) -> Source:
    return open_source(
        arguments["data"],
        labels=arguments["labels"],
        masks=arguments["masks"],
        groups=arguments["groups"],
        on_bad_file=arguments["on_bad_file"],
        cache=arguments["cache"],
        progress=not arguments["quiet"],
        **form,
    )


def _given_card(encoder: str | nn.Module) -> EncoderCard | None:
    """The card of an encoder that exists already: a module, or that of a run."""
    if isinstance(encoder, nn.Module):
        return card_of(encoder)
    inner = encoder.removeprefix("random:")
    return load_card(Path(inner.removeprefix("run:"))) if inner.startswith("run:") else None


def build_method(learns: type[Method], arguments: Mapping[str, Any], source: Source, side: int) -> Method:
    """The method on its encoder, before `prepare`."""
    return learns(start_encoder(arguments, source, side), **arguments["options"])


def start_encoder(arguments: Mapping[str, Any], source: Source, side: int) -> nn.Module:
    """The encoder that a run begins with, its card filled with how it sees the data.

    arguments: encoder, small_input and seed, as `fit` takes them. side: in pixels of what it sees.
    """
    encoder = arguments["encoder"]
    channels, kind = source.spec.shape[0], form_class(source.spec.modality)
    if not isinstance(encoder, nn.Module):
        # a pretrained encoder brings the statistics that it was learned with
        statistics = {} if is_pretrained(encoder) else kind.measured(source)
        encoder = build_encoder(
            encoder,
            channels=channels,
            **kind.sides_of(source.spec, side or None),
            **statistics,
            small_input=arguments["small_input"],
            seed=arguments["seed"],
        )
    card = card_of(encoder)
    if card.channels != channels:
        raise UsageError(
            f"the encoder takes {card.channels} channel(s), the data have {channels}: pass --channels "
            f"{card.channels}"
        )
    form = card.form.settled(source)
    form.fits(getattr(encoder, "divisor", 1))
    return with_card(encoder, replace(card, form=form))


def check_fit(learns: type[Method], slug: str, source: Source) -> None:
    """Refuse data of another kind than the method's, or without the masks that it learns.

    Raises:
        UsageError: names a method for the data, if there is one like this.
    """
    kind = source.spec.modality
    if learns.modality == kind:
        if learns.learns is not None:
            task_of(learns.learns).check(source, slug)
        return
    others = [name for name, entry in all_methods().items() if entry.modality == kind]
    near = [name for name in others if name.startswith(slug)]
    hint = f"; did you mean {near[0]}?" if near else f": choose one of {', '.join(others)}"
    if not near and (instead := form_class(kind).instead):
        hint += f", {instead}"
    raise UsageError(f"{slug} learns from {learns.modality}s, and the data are {kind}s{hint}")
