"""What to begin with instead of random weights, where a run has few labels."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch

from tacit.batch import Batch, Samples, Step
from tacit.encoders.cached import cached_encoders
from tacit.encoders.card import card_of
from tacit.encoders.modes import evaluating
from tacit.evaluation.subject import pick_device
from tacit.methods.base import Method
from tacit.methods.registry import method_class
from tacit.rng import Rng, seeded
from tacit.tasks.registry import task_of
from tacit.training.forecast import duration
from tacit.training.laptop import pretraining_epochs
from tacit.training.options import Options, Viewing
from tacit.training.teaching import Teaching
from tacit.training.views import own_options

_FEW = 1000  # labels in all; with more, random weights are no poor start
_TRIED = 32  # images by which the time of a pretraining is forecast
_TRIES = 4
_BATCH = 128
_WORTH = 200  # images; fewer teach little without labels
_PASSES = 6  # two views, forward and backward, in forward passes


def pretraining_for(method: Method) -> str:
    """Slug of the method by which its encoder should learn first, "" where none is proposed."""
    dense = method.learns is not None and task_of(method.learns).dense
    return "" if dense else card_of(method.encoder).form.pretraining


def propose(options: Options, method: Method, teaching: Teaching | None) -> list[str]:
    """Lines that name a better start than random weights; empty where there is nothing to say."""
    first = pretraining_for(method)
    if teaching is None or not first or card_of(method.encoder).learned:
        return []
    if len(teaching.learned) > _FEW or options.start.pretrain is not None:
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
    seen = epochs * (images // batch) * batch  # the last, incomplete batch of an epoch is left out
    seconds = seen * _seconds_per_image(method, first, teaching, options)
    return [
        f"note: {len(teaching.learned)} labels and random weights: --pretrain {first} "
        f"--pretrain-epochs {epochs} --pretrain-batch-size {batch} learns the encoder from all {images:,} "
        f"images first (about {duration(seconds)} more), and --encoder takes one that has learned "
        "(run:DIR, or timm/NAME?weights=FILE)"
    ]


@torch.no_grad()
def _seconds_per_image(method: Method, first: str, teaching: Teaching, options: Options) -> float:
    """Of one image in one epoch of the pretraining, on the run's device; nothing of `method` changes."""
    device, encoder = pick_device(options.machine.device), method.encoder
    samples = teaching.pool.batch(range(min(_TRIED, len(teaching.pool)))).to(device)
    still = card_of(encoder).form.still(samples)
    home = next(encoder.parameters()).device
    with evaluating(encoder.to(device)):
        passing = _shortest(lambda: encoder(still))
    encoder.to(home)
    return (_PASSES * passing + _shortest(_views_of(encoder, first, teaching, options, samples))) / len(
        samples
    )


def _views_of(
    encoder: torch.nn.Module,
    slug: str,
    teaching: Teaching,
    options: Options,
    samples: Samples,
) -> Callable[[], object]:
    """Makes the views that the pretraining would make of these samples."""
    learns = method_class(slug)
    viewing, size = Viewing(views=options.viewing.views), card_of(encoder).form.sides["size"]
    own, _ = own_options(learns, slug, viewing, {}, teaching.pool, size)
    with seeded(Rng.of(0)("forecast")):
        first = learns(copy.deepcopy(encoder), **own).to(samples.data.device)
    return lambda: first.views(Batch(samples), Rng.of(0)("forecast views"), Step(0, 1, 0, 1))


def _shortest(call: Callable[[], object]) -> float:
    """Seconds: the first call warms up, and others may use the machine."""
    passed = []
    for _ in range(_TRIES):
        began = time.monotonic()
        call()
        passed.append(time.monotonic() - began)
    return min(passed)
