"""What to begin with instead of random weights, where a run has few labels."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from tacit.encoders.cached import cached_encoders
from tacit.encoders.card import card_of
from tacit.encoders.modes import evaluating
from tacit.evaluation.subject import pick_device
from tacit.methods.base import Method
from tacit.training.forecast import duration
from tacit.training.laptop import pretraining_epochs
from tacit.training.teaching import Teaching

_FEW = 1000  # labels in all; with more, random weights are no poor start
_TRIED = 32  # images by which the time of a pretraining is forecast
_TRIES = 4
_BATCH = 128
_WORTH = 200  # images; fewer teach little without labels
_PASSES = 6  # two views, forward and backward, in forward passes


def propose(arguments: Mapping[str, Any], method: Method, teaching: Teaching | None) -> list[str]:
    """Lines that name a better start than random weights; empty where there is nothing to say."""
    if teaching is None or method.modality != "image" or card_of(method.encoder).learned:
        return []
    if len(teaching.learned) > _FEW or arguments["pretrain"] is not None:
        return []
    if cached := cached_encoders():
        others = f" ({len(cached) - 1} more are)" if len(cached) > 1 else ""
        return [
            f"note: {len(teaching.learned)} labels and random weights: {cached[0]} is in the cache{others}; "
            f"--encoder {cached[0]} begins with what it has learned"
        ]
    images = len(teaching.pool)
    if images < _WORTH:
        return []
    batch = min(_BATCH, images)
    epochs = pretraining_epochs(images, batch)
    each = _PASSES * epochs * _seconds_per_image(method, teaching, arguments["device"])
    return [
        f"note: {len(teaching.learned)} labels and random weights: --pretrain dcl --pretrain-epochs {epochs} "
        f"--pretrain-batch-size {batch} learns the encoder from all {images:,} images first (about "
        f"{duration(each * images)} more), and --encoder takes one that has learned (run:DIR, or "
        "timm/NAME?weights=FILE)"
    ]


@torch.no_grad()
def _seconds_per_image(method: Method, teaching: Teaching, device: str) -> float:
    """Of one forward pass, on the device of the run; nothing of the method changes."""
    where, encoder = pick_device(device), method.encoder
    home = next(encoder.parameters()).device
    first = teaching.pool.batch(range(min(_TRIED, len(teaching.pool))))
    batch = card_of(encoder).form.still(first.to(where))
    passed = []
    with evaluating(encoder.to(where)):
        for _ in range(_TRIES):  # the shortest: the first warms up, and others may use the machine
            began = time.monotonic()
            encoder(batch)
            passed.append(time.monotonic() - began)
    encoder.to(home)
    return min(passed) / len(batch)
