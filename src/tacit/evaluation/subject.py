"""What a probe or an embedding looks at: a run folder or a spec string, and the data opened to fit it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from tacit.data.form import form_class
from tacit.data.options import store_limit
from tacit.data.source import Source
from tacit.encoders.card import card_of
from tacit.encoders.saved import load_card
from tacit.encoders.zoo import FAMILIES, Spec, build_encoder, fixed_size
from tacit.errors import UsageError

OnBadFile = Literal["stop", "skip"]
_DEVICES = ("cpu", "cuda", "mps")


def is_spec(what: str) -> bool:
    """Whether a word is an encoder's spec string rather than the path of a run."""
    prefixes = ("run:", "random:", *(f"{family}/" for family in FAMILIES))
    return what.startswith(prefixes) and not Path(what).is_dir()


def encoder_for(
    what: str | os.PathLike[str] | nn.Module, open_data: Callable[..., Source]
) -> tuple[nn.Module, Source, str]:
    """The encoder, the data opened with the channels and resolution that it wants, and its spec string.

    what: a run folder, a spec string, or a module with a card.
    open_data: `open_source` with all filled in but what the encoder decides.

    Raises:
        UsageError: no run, no such encoder, no data, or a number of channels that does not fit.
    """
    if isinstance(what, nn.Module):
        return what.eval(), open_for(what, open_data), type(what).__name__
    text = os.fspath(what)
    if not text.strip():
        raise UsageError("which encoder? name a run folder, or a spec such as timm/resnet18")
    if not is_spec(text) and not Path(text).exists() and "/" not in text:
        Spec.parse(text)  # says which family is meant, if the word is a model's name
    spec = text if is_spec(text) else f"run:{text}"
    inner = spec.removeprefix("random:")
    if inner.startswith("run:"):
        load_card(Path(inner.removeprefix("run:")))  # says what is missing before the data are opened
        encoder = build_encoder(spec)
        return encoder, open_for(encoder, open_data), spec
    size = fixed_size(inner)
    opened = open_data(max_size=store_limit(size)) if size else open_data()
    sides = form_class(opened.spec.modality).sides_of(opened.spec, size)
    encoder = build_encoder(spec, channels=opened.spec.shape[0], **sides)
    return encoder.eval(), opened, spec


def open_for(encoder: nn.Module, open_data: Callable[..., Source]) -> Source:
    """The data with the channels and resolution that an encoder with a card wants.

    Raises:
        UsageError: no data, or a number of channels that does not fit.
    """
    form = card_of(encoder).form
    opened = open_data(**form.opening)
    form.check(opened.spec)
    return opened


def pick_device(device: str) -> torch.device:
    """`auto`: CUDA, else Apple's MPS, else the CPU.

    Raises:
        UsageError: no such device here.
    """
    if device == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        torch.empty(0, device=device)
        if (found := torch.device(device)).type in _DEVICES:
            return found
    except (RuntimeError, AssertionError):
        pass
    raise UsageError(f"no device '{device}' here; 'auto' or 'cpu' always works")
