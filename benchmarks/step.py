"""A training step of `tacit.fit` over the forward and backward passes of its encoder alone.

    python benchmarks/step.py [--quick]

The whole step (reading the batch, views, encoder, head, loss, backward pass, optimiser, guard, rows of
metrics.csv, progress) is timed inside `tacit.fit`, step by step, after the first steps. The encoder alone
gets ready views of the same batch, in the memory format that `fit` uses, and a gradient of ones. Runs and
passes take turns. Images are 3 x 32 x 32; two threads. For DCL the encoder sees both views; what a
semi-supervised method passes through the encoder, with and without gradient, is in `PASSES`. What a step
adds does not depend on the encoder's depth, so the smaller the encoder, the larger its share.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tacit
from race import machine, save
from tacit.encoders.zoo import build_encoder
from tacit.rng import Rng
from tacit.training.watch import Watch

SIDE, THREADS, WARM_UP = 32, 2, 3
WANTED = 1.05
"""Largest ratio of a step's time to that of its encoder."""
CASES = [("timm/resnet18", 128, 12), ("timm/resnet18", 32, 20), ("tacit/convnet", 256, 40)]
"""Encoder, images of a batch, steps of a run."""
WANTED_TAUGHT = 1.1
PASSES: dict[str, tuple[list[float], list[float]]] = {
    "dcl": ([1, 1], []),
    "supervised": ([1], []),
    "pseudo-label": ([1, 1], []),
    "pi-model": ([1, 1], [1]),
    "mean-teacher": ([1, 1], [1]),
    "ict": ([1, 1], [1]),
    "mixmatch": ([1, 2], [1, 1]),
    "fixmatch": ([1, 1], [1]),
    "flexmatch": ([1, 1], [1]),
    "freematch": ([1, 1], [1]),
    "softmatch": ([1, 1], [1]),
    "semixup": ([1, 1, 1, 1], []),
}
"""Passes with gradient and without, in batches; as many labelled samples as unlabelled ones."""


@contextmanager
def clocked() -> Iterator[list[float]]:
    """The times at which steps of a run end."""
    ends: list[float] = []
    after_step = Watch.on_train_batch_end

    def note(self: Watch, *args: Any) -> None:
        after_step(self, *args)
        ends.append(time.perf_counter())

    Watch.on_train_batch_end = note  # type: ignore[method-assign]
    try:
        yield ends
    finally:
        Watch.on_train_batch_end = after_step  # type: ignore[method-assign]


def whole_steps(method: str, data: Path, encoder: str, batch: int, steps: int) -> list[float]:
    """Seconds of each step of one run after the first ones."""
    taught = {} if method == "dcl" else {"mu": 1.0, "held_out": 0.0, "optimizer": "sgd"}
    with tempfile.TemporaryDirectory() as folder, clocked() as ends:
        tacit.fit(
            method,
            data,
            encoder=encoder,
            batch_size=batch,
            epochs=1 + steps * batch // 2048,
            out=Path(folder) / "run",
            cache=str(data.parent / "cache"),
            labels="none" if method == "dcl" else None,
            device="cpu",
            quiet=True,
            **taught,
        )
    return np.diff(ends[WARM_UP : WARM_UP + steps]).tolist()


def encoder_alone(method: str, encoder: str, batch: int, steps: int) -> list[float]:
    """Seconds of each step's passes."""
    learning, looking = PASSES[method]
    network = build_encoder(encoder, channels=3, size=SIDE, seed=0)
    network.train().to(memory_format=torch.channels_last)
    views = torch.randn(2 * batch, 3, SIDE, SIDE, generator=Rng.of(0).torch())
    seconds = []
    for _ in range(WARM_UP + steps):
        network.zero_grad()
        start = time.perf_counter()
        with torch.no_grad():
            for share in looking:
                network(views[: round(share * batch)])
        torch.stack([network(views[: round(share * batch)]).sum() for share in learning]).sum().backward()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def row(method: str, data: Path, encoder: str, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    """Median seconds of both, and their ratio."""
    whole, alone = [], []
    for _ in range(rounds):
        whole += whole_steps(method, data, encoder, batch, steps)
        alone += encoder_alone(method, encoder, batch, steps)
    times = statistics.median(whole), statistics.median(alone)
    ratio = times[0] / times[1]
    wanted = WANTED if method == "dcl" else WANTED_TAUGHT
    return {
        "method": method,
        "encoder": encoder,
        "batch": batch,
        "step_s": times[0],
        "encoder_s": times[1],
        "ratio": ratio,
        "wanted": wanted,
        "reached": ratio <= wanted,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round instead of two")
    rounds = 1 if parser.parse_args().quick else 2
    torch.set_num_threads(THREADS)
    description = machine()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.npz"
        images = np.random.default_rng(0).integers(0, 256, (2048, SIDE, SIDE, 3), np.uint8)
        np.savez(data, train_images=images, train_labels=np.arange(2048) % 10)
        rows = [row("dcl", data, *case, rounds) for case in CASES]
        rows += [row(m, data, "timm/resnet18", 64, 6, 1) for m in PASSES if m != "dcl"]
    save("step", description, rows)


if __name__ == "__main__":
    main()
