"""A second network of one architecture, with weights of its own: what co-training begins with."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from tacit.encoders.card import EncoderCard, with_card
from tacit.encoders.zoo import build_encoder
from tacit.errors import UsageError
from tacit.rng import Rng, seeded

_DRAW = ("initialise", "reset_parameters", "_reset_parameters")


def fresh_copy(encoder: nn.Module, rng: Rng) -> nn.Module:
    """An encoder of the same architecture whose weights were drawn again; the encoder stays as it is.

    An encoder with a spec is built from it once more. A module of the user's own is copied, and every
    submodule with `reset_parameters`, as torch's layers have (its attention `_reset_parameters`), draws its
    weights again; a module whose weights begin otherwise has a method `initialise()`, which is
    called after its submodules' were drawn. What none of them draws, such as a class token, is kept.

    rng: equal ones give equal weights, on any device.

    Returns the copy, with the encoder's card (but that it is not learned), device, dtype and mode.

    Raises:
        UsageError: a module of the user's own of which no weight was drawn again.
    """
    card = getattr(encoder, "card", None)
    twin = _rebuilt(encoder, card, rng) if isinstance(card, EncoderCard) and card.spec else None
    if twin is None:
        twin = _redrawn(encoder, rng)
    if isinstance(card, EncoderCard):
        with_card(twin, replace(card, learned=False))
    if (like := next(encoder.parameters(), None)) is not None:
        twin.to(like.device, like.dtype)
    return twin.train(encoder.training)


def _rebuilt(encoder: nn.Module, card: EncoderCard, rng: Rng) -> nn.Module | None:
    """The encoder that the card describes, if that is still what the encoder is."""
    twin = build_encoder("random:" + card.spec, **card.architecture, seed=rng.seed)
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (twin, encoder)]
    return twin if shapes[0] == shapes[1] else None


def _redrawn(encoder: nn.Module, rng: Rng) -> nn.Module:
    # on the CPU, so that a device's own generator does not decide
    twin = copy.deepcopy(encoder).cpu()
    before = [parameter.detach().clone() for parameter in twin.parameters()]
    with seeded(rng):
        for module in reversed(list(twin.modules())):  # submodules before what holds them
            draw = next((getattr(module, name) for name in _DRAW if hasattr(module, name)), None)
            if callable(draw):
                draw()
    if before and all(torch.equal(old, new) for old, new in zip(before, twin.parameters(), strict=True)):
        raise UsageError(
            f"no weight of {type(encoder).__name__} can be drawn again: give it an initialise() that does"
        )
    return twin
