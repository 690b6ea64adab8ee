"""From the arguments of `fit` to what a run is made of: recipe, data, method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from timm.optim import list_optimizers
from torch import nn

from tacit.data.form import form_class
from tacit.data.open import kind_of, open_source
from tacit.data.options import LARGEST_VIEW, store_limit
from tacit.data.source import Source
from tacit.encoders.card import EncoderCard, card_of, with_card
from tacit.encoders.saved import load_card
from tacit.encoders.zoo import build_encoder, fixed_size, is_pretrained
from tacit.errors import UsageError, unknown
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.methods.registry import all_methods
from tacit.tasks.registry import task_of
from tacit.training.loader import Beside, Stream
from tacit.training.options import Changes, Options, Start


def kind_for(learns: type[Method], data: Any) -> str:
    """The kind of data that a run learns from: the method's, or the data's where it takes several."""
    kinds = learns.kinds()
    found = kind_of(data) if len(kinds) > 1 else kinds[0]
    return found if found is not None and found in kinds else kinds[0]


def recipe_for(learns: type[Method], kind: str, changes: Changes) -> Recipe:
    """The method's recipe for a kind of data, with what is asked for."""
    recipe = replace(learns.recipe_for(kind), **changes.given())
    if recipe.optimizer not in list_optimizers():
        raise unknown("optimizer", recipe.optimizer, list_optimizers())
    return recipe


def open_data(options: Options) -> tuple[Source, int]:
    """The data, and the side in pixels that the encoder will see."""
    encoder, size, seeing = options.start.spec, options.seeing.size, options.seeing.words()
    card = _given_card(encoder)
    if card is not None:
        if options.start.small_input not in (None, card.small_input):
            raise UsageError("--small-input cannot be changed for an encoder that exists")
        opening = card.form.opening_with(seeing)
        size = card.form.sides.get("size")
    else:
        size = fixed_size(str(encoder)) if size is None else size
        opening = {name: seeing[name] for name in ("channels", "window", "spacing", "patch")}
        opening["max_size"] = store_limit(size or LARGEST_VIEW)
    source = _open(options, **opening)
    form_class(source.spec.modality).refuse(seeing)
    return source, encoder_side(encoder, size, source)


def encoder_side(encoder: str | nn.Module, size: int | None, source: Source) -> int:
    """The side in pixels that the encoder sees: as asked for, its own where it is fixed, or the images'.

    0 for other kinds of data.
    """
    own = None if isinstance(encoder, nn.Module) else fixed_size(encoder)
    sides: dict[str, Any] = form_class(source.spec.modality).sides_of(source.spec, size or own)
    return int(sides.get("size", 0))


def open_images(options: Options, learns: type[Method], beside: Source) -> Source | None:
    """The images that are learned from beside volumes, with as many channels; None if there are none.

    Raises:
        UsageError: the method takes none, or they are no images.
    """
    where, reading = options.reading.images, options.reading
    if where is None:
        return None
    if not learns.beside:
        raise UsageError(f"{options.method} learns from one source; --images is for joint-image-volume")
    images = open_source(
        where,
        labels="none",
        channels=beside.spec.shape[0],
        max_size=store_limit(min(max(beside.spec.shape[1:]), LARGEST_VIEW)),
        on_bad_file=reading.on_bad_file,
        cache=reading.cache,
        progress=not options.care.quiet,
    )
    if images.spec.modality != learns.beside:
        raise UsageError(
            f"--images names {images.spec.modality}s: name {learns.beside}s, or leave it out and learn from "
            "--data alone"
        )
    return images


def images_of(method: Method, beside: Source | None, recipe: Recipe) -> Beside | None:
    """How many of the images beside volumes a step takes: as many as slices."""
    if beside is None:
        return None
    count = recipe.batch_size * method.beside_each
    return Beside(beside, Stream(np.arange(len(beside)), count, name="images"))


def _open(options: Options, **form: Any) -> Source:
    reading = options.reading
    return open_source(
        reading.data,
        labels=reading.labels,
        label_column=reading.label_column,
        file_column=reading.file_column,
        masks=reading.masks,
        values=reading.values,
        column=reading.column,
        groups=reading.groups,
        folders=reading.folders,
        on_bad_file=reading.on_bad_file,
        cache=reading.cache,
        progress=not options.care.quiet,
        **form,
    )


def _given_card(encoder: str | nn.Module) -> EncoderCard | None:
    """The card of an encoder that exists already: a module, or that of a run."""
    if isinstance(encoder, nn.Module):
        return card_of(encoder)
    inner = encoder.removeprefix("random:")
    return load_card(Path(inner.removeprefix("run:"))) if inner.startswith("run:") else None


def build_method(learns: type[Method], options: Options, source: Source, side: int) -> Method:
    """The method on its encoder, before `prepare`."""
    return learns(start_encoder(options.start, options.machine.seed, source, side), **options.own)


def start_encoder(start: Start, seed: int, source: Source, side: int) -> nn.Module:
    """The encoder that a run begins with, its card filled with how it sees the data.

    seed: of random weights. side: in pixels of what it sees.
    """
    encoder = start.spec
    channels, kind = source.spec.shape[0], form_class(source.spec.modality)
    if not isinstance(encoder, nn.Module):
        # a pretrained encoder brings the statistics that it was learned with
        statistics = {} if is_pretrained(encoder) else kind.measured(source)
        encoder = build_encoder(
            encoder,
            channels=channels,
            **kind.sides_of(source.spec, side or None),
            **statistics,
            small_input=start.small_input,
            seed=seed,
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
    if kind in learns.kinds():
        if learns.learns is not None:
            task_of(learns.learns).check(source, slug)
        return
    others = [name for name, entry in all_methods().items() if kind in entry.modalities]
    near = [name for name in others if name.startswith(slug)]
    hint = f"; did you mean {near[0]}?" if near else f": choose one of {', '.join(others)}"
    if not near and (instead := form_class(kind).instead):
        hint += f", {instead}"
    kinds = " or ".join(f"{name}s" for name in learns.kinds())
    raise UsageError(f"{slug} learns from {kinds}, and the data are {kind}s{hint}")
