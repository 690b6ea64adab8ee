"""Killed and resumed is never stopped: SIGKILL at random moments against one uninterrupted run.

For each contrastive and clustering method one run goes to its end, and another is killed at seeded
moments, uniform over its length, and resumed each time. Both must leave the same `encoder.safetensors`,
byte for byte, and the same losses. Most attempts write a checkpoint after every step, so that kills also
land while one is being written; those that did are counted as `torn`.

A server imports everything once and forks an attempt after the other; it computes nothing itself, for
torch's thread pools do not survive a fork.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing as mp
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tacit.methods.registry import own_methods

METHODS: dict[str, dict[str, Any]] = {
    "simclr": {},
    "dcl": {},
    "dclw": {},
    "moco": {"queue": 256},
    "nnclr": {"queue": 256, "hidden": 128, "prediction_hidden": 128},
    "swav": {"queue": 256, "queue_from": 0.2, "hidden": 128, "small": 1, "small_size": 1.0},
    "deepcluster": {"hidden": 128, "small": 1, "small_size": 1.0},
}
SAVE_EVERY = (0.0, 0.0, 0.2)  # seconds; attempts take turns
BATCH = 64
DEADLINE = 300.0  # seconds for one attempt


def attempt(method: str, out: str, epochs: int, save_every: float) -> None:
    """Run, or go on with, one run: the digits of scikit-learn, a small network, one thread."""
    import torch

    import tacit

    torch.set_num_threads(1)
    tacit.fit(
        method,
        "digits",
        out=out,
        encoder="tacit/convnet?width=16",
        options=METHODS[method],
        batch_size=BATCH,
        epochs=epochs,
        labels="none",
        device="cpu",
        resume=True,
        save_every=save_every,
        quiet=True,
    )


def server() -> ForkServerContext:
    """A context whose processes start with everything imported."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = mp.get_context("forkserver")
    known = own_methods()
    context.set_forkserver_preload(
        ["tacit.training.fit", *(known[name].where.partition(":")[0] for name in METHODS)]
    )
    return context


def run_until(
    context: ForkServerContext, until: Callable[[BaseProcess], None], *arguments: Any
) -> tuple[bool, float]:
    """Start an attempt; kill it when `until` returns. Whether it was still alive, and its seconds."""
    process = context.Process(target=attempt, args=arguments)
    began = time.monotonic()
    process.start()
    until(process)
    alive = process.is_alive()
    process.kill()
    process.join()
    if not alive and process.exitcode:
        raise RuntimeError(f"an attempt failed with exit code {process.exitcode}")
    return alive, time.monotonic() - began


def steps_done(out: Path) -> int:
    """The step of the newest row of `metrics.csv`."""
    path = out / "metrics.csv"
    last = path.read_bytes().rstrip(b"\n").rpartition(b"\n")[2] if path.is_file() else b""
    number = last.partition(b",")[0]
    return int(number) if number.isdigit() else 0


def reaches(out: Path, step: int, delay: float) -> Callable[[BaseProcess], None]:
    """Waits until the run has taken the step, and some seconds more."""

    def wait(process: BaseProcess) -> None:
        deadline = time.monotonic() + DEADLINE
        while process.is_alive() and steps_done(out) < step and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)

    return wait


def step_seconds(out: Path) -> float:
    """Median time of a step of a run."""
    with (out / "metrics.csv").open(newline="") as file:
        return statistics.median(BATCH / float(row["samples_per_second"]) for row in csv.DictReader(file))


def losses(out: Path) -> list[tuple[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


def prove(
    context: ForkServerContext, method: str, folder: Path, *, kills: int, epochs: int, seed: int = 0
) -> dict[str, Any]:
    """One uninterrupted run and one that is killed: a row of the table."""
    whole, killed = folder / f"{method}-whole", folder / f"{method}-killed"
    _, seconds = run_until(context, lambda process: process.join(), method, str(whole), epochs, 300.0)
    total, each = steps_done(whole), step_seconds(whole)
    draw = random.Random(f"{seed} {method}")
    moments = sorted(draw.sample(range(1, total - 3), kills))
    count = torn = 0
    began = time.monotonic()
    for i, step in enumerate(moments):
        wait = reaches(killed, step, draw.uniform(0, 1.5 * each))
        alive, _ = run_until(context, wait, method, str(killed), epochs, SAVE_EVERY[i % len(SAVE_EVERY)])
        count += alive
        torn += any((killed / "checkpoints").glob(".*"))
    run_until(context, lambda process: process.join(), method, str(killed), epochs, 300.0)
    weights = [(out / "encoder.safetensors").read_bytes() for out in (whole, killed)]
    return {
        "method": method,
        "steps": total,
        "kills": count,
        "torn": torn,
        "encoder_equal": weights[0] == weights[1],
        "losses_equal": losses(whole) == losses(killed),
        "left_over": len(list(killed.rglob(".*"))),
        "seconds_whole": seconds,
        "seconds_killed": time.monotonic() - began,
    }


def main() -> int:
    from race import machine, save

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one method, three kills; writes no file")
    quick = parser.parse_args().quick
    description, context = machine(), server()
    with tempfile.TemporaryDirectory() as name:
        if quick:
            rows = [prove(context, "moco", Path(name), kills=3, epochs=2)]
            print(rows[0])
        else:
            rows = [prove(context, method, Path(name), kills=20, epochs=20) for method in METHODS]
            save("kills", description, rows)
    return 0 if all(row["encoder_equal"] and row["losses_equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
