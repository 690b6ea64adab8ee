"""A small Alice for tests."""

from __future__ import annotations

from tacit.batch import Batch, Samples, Step
from tacit.data.source import Source, collate
from tacit.encoders.card import attach_card
from tacit.encoders.unet import UNet3d
from tacit.methods.distillation.alice.alice import Alice
from tacit.methods.distillation.alice.mining import AnatomyMiner
from tacit.rng import Rng, seeded

PATCH = (16, 16, 16)
SMALL = {
    "prototypes": 16,
    "hidden": 24,
    "bottleneck": 8,
    "mask_block": 4,
    "miner": "random",
    "miner_spacing": 0.0,
}
LATER = Step(40, 100, 2, 5)
RNG = Rng.of(0)("views", 0)


def make(**options) -> Alice:
    with seeded(Rng.of(0)("test")):
        encoder = attach_card(UNet3d(1, width=4, depth=2, dropout=0.0), channels=1, patch=PATCH)
        method = Alice(encoder, **{**SMALL, **options})
    if isinstance(method.miner, AnatomyMiner):
        method.miner.side = 16  # for speed
    return method


def batch_of(method: Alice, source: Source, count: int = 3, step: int = 0) -> Batch:
    rng = Rng.of(0)("cut", step)
    return Batch(collate([method.cut(source[i], rng(i).numpy()) for i in range(count)]))


def rows_of(batch: Batch, rows: slice) -> Batch:
    """A part of the batch, as accumulation makes one."""
    whole = batch.unlabelled
    extra = {name: value[rows] for name, value in whole.extra.items()}
    return Batch(Samples(whole.data[rows], whole.index[rows], extra=extra))
