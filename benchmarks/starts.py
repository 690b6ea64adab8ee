"""What the start is worth to a classifier: random weights, `--pretrain dcl`, an encoder that has learned.

    python benchmarks/starts.py --data ../shared/data [--methods supervised,flexmatch] [--seeds 3]

CIFAR-10, 25 labels per class and 5,000 pictures, graded by balanced accuracy on 2,000 of the test file. All
rows have the same encoder, labels and recipe, that of `--preset laptop`. `--pretrain dcl` learns from the
same 5,000 pictures first. The last row stands for a pretrained file: an encoder that `dcl` taught once, by
the same preset, on 20,000 other pictures of the training file. Every run is kept in `--work`; the same
command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import tacit
from defaults import archive, decode, opened, run
from race import machine, save
from tacit.claims.cells import Cells
from tacit.claims.graded import graded_floors
from tacit.claims.run import as_table
from tacit.evaluation.statistics import compare_paired
from tacit.files import replacing
from tacit.training.run import Run

ENCODER = "tacit/convnet?width=64"
LABELS, STEPS = 25, 2400
STARTS = ("random", "--pretrain dcl", "learned on 20,000 others")


def others(data: Path, work: Path) -> Path:
    """Pictures 10,000 to 30,000 of the training file, without labels."""
    path = work / "others.npz"
    if not path.is_file():
        with np.load(data / "cifar10_jpeg" / "train.npz", allow_pickle=False) as stored:
            images = np.stack(decode(stored["jpeg"], stored["offset"][10_000:30_001]))
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, train_images=images)
    return path


def learn(cell: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder without labels; where it lies."""
    source = opened(cell)
    done = tacit.fit(
        "dcl",
        source.subset(source.splits["train"]),
        out=cell["out"],
        labels="none",
        preset="laptop",
        encoder=ENCODER,
        seed=cell["seed"],
        resume=Run(cell["out"]).begun,
        quiet=True,
        device="cpu",
    )
    return {"run": str(done.folder)}


def floors(cell: Mapping[str, Any]) -> dict[str, Any]:
    found = graded_floors(opened(cell), per_class=LABELS, seed=cell["seed"], encoder=cell["encoder"])
    return {name: 100 * floor["balanced_accuracy"] for name, floor in found.items()}


def rows(
    grid: list[dict[str, Any]], found: list[dict[str, Any]], below: list[dict[str, float]]
) -> list[dict[str, str]]:
    values: dict[tuple[str, str], list[float]] = {}
    for cell, result in zip(grid, found, strict=True):
        values.setdefault((cell["method"], cell["start"]), []).append(100 * result["balanced_accuracy"])
    table = []
    for (method, start), own in values.items():
        row = {"method": method, "start": start, "balanced accuracy": f"{np.mean(own):.1f}"}
        if start != STARTS[0] and len(own) > 1:
            row["gain over random"] = str(compare_paired(own, values[method, STARTS[0]]).difference)
        frozen = [floor["start encoder"] for c, floor in zip(grid, below, strict=True) if c["start"] == start]
        pixels = [floor["pixels"] for c, floor in zip(grid, below, strict=True) if c["start"] == start]
        row |= {"the start, frozen": f"{np.mean(frozen):.1f}", "pixels": f"{np.mean(pixels):.1f}"}
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/starts"))
    parser.add_argument("--methods", default="supervised,flexmatch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    path = str(archive("cifar10_jpeg", asked.data, work, False))
    cells = Cells(work / "cells", "starts 1", jobs=asked.jobs, say=lambda line: print(line, flush=True))
    many = {"path": str(others(asked.data, work)), "seed": 0, "out": str(work / "others")}
    own = [{"path": path, "seed": seed, "out": str(work / f"own-{seed}")} for seed in range(asked.seeds)]
    file, *learned = (result["run"] for result in cells.run(learn, [many, *own]))
    common = {"path": path, "labels": LABELS, "steps": STEPS, "options": {}}
    grid = [
        {**common, "seed": seed, "method": method, "start": start, "encoder": encoder}
        for seed, method in product(range(asked.seeds), asked.methods.split(","))
        for start, encoder in zip(STARTS, (ENCODER, f"run:{learned[seed]}", f"run:{file}"), strict=True)
    ]
    found, below = cells.run(run, grid), cells.run(floors, grid)
    table = rows(grid, found, below)
    print(as_table(table))
    shown = ("method", "start", "seed")
    kept = [
        {**{name: cell[name] for name in shown}, **result, "floors": floor}
        for cell, result, floor in zip(grid, found, below, strict=True)
    ]
    save("starts", {**machine(), "runs": kept}, table)


if __name__ == "__main__":
    main()
