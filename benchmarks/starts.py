"""What the start is worth to a classifier: random weights, `--pretrain dcl`, an encoder that has learned.

    python benchmarks/starts.py --data ../shared/data [--methods supervised,flexmatch] [--seeds 3]

CIFAR-10, 25 labels per class and 5,000 pictures, graded by balanced accuracy on 2,000 of the test file. All
rows have the same encoder, labels and recipe, that of `--preset laptop`. `--pretrain dcl` learns from the
same 5,000 pictures first. The last row stands for a pretrained file: an encoder that `dcl` taught once, by
the same preset, on 20,000 other pictures of the training file. Every run is kept in `--work`; the same
command goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import sittings
import tacit
from defaults import archive, decode, opened, run
from sittings import Pairs
from tacit.claims.graded import graded_floors
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
    found = graded_floors("class", opened(cell), labels=LABELS, seed=cell["seed"], encoder=cell["encoder"])
    return {name: 100 * floor["balanced_accuracy"] for name, floor in found.items()}


def rows(found: Pairs, below: Pairs) -> list[dict[str, str]]:
    values: dict[tuple[str, str], dict[int, float]] = {}
    for cell, result in found:
        values.setdefault((cell["method"], cell["start"]), {})[cell["seed"]] = (
            100 * result["balanced_accuracy"]
        )
    table = []
    for (method, start), own in values.items():
        row = {"method": method, "start": start, "balanced accuracy": f"{np.mean(list(own.values())):.1f}"}
        random = values.get((method, STARTS[0]), {})
        if start != STARTS[0] and len(own) > 1 and own.keys() <= random.keys():
            gain = compare_paired(list(own.values()), [random[seed] for seed in own])
            row["gain over random"] = str(gain.difference)
        same = [floor for cell, floor in below if (cell["method"], cell["start"]) == (method, start)]
        for title, name in (("the start, frozen", "start encoder"), ("pixels", "pixels")):
            row[title] = f"{np.mean([floor[name] for floor in same]):.1f}"
        table.append(row)
    return table


def main() -> None:
    options = sittings.parser(__doc__, "runs/starts", "starts")
    options.add_argument("--methods", default="supervised,flexmatch")
    asked = options.parse_args()
    asked.work = asked.work.resolve()
    sitting = sittings.Sitting(asked, "starts 1")
    path = str(archive("cifar10_jpeg", asked.data, asked.work, False))
    many = {"path": str(others(asked.data, asked.work)), "seed": 0, "out": str(asked.work / "others")}
    own = [
        {"path": path, "seed": seed, "out": str(asked.work / f"own-{seed}")} for seed in range(asked.seeds)
    ]
    file, *learned = (str(Run(cell["out"]).folder) for cell, _ in sitting.run(learn, [many, *own], "starts"))
    common = {"path": path, "labels": LABELS, "steps": STEPS, "options": {}}
    grid = [
        {**common, "seed": seed, "method": method, "start": start, "encoder": encoder}
        for seed, method in product(range(asked.seeds), asked.methods.split(","))
        for start, encoder in zip(STARTS, (ENCODER, f"run:{learned[seed]}", f"run:{file}"), strict=True)
    ]
    below = sitting.run(floors, grid, "floors")
    found = sitting.run(run, grid)
    sitting.save(rows(found, below), runs=found, floors=below)


if __name__ == "__main__":
    main()
