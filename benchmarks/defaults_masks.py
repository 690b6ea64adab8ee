"""What is kept of methods for masks in short runs: the trained or the averaged network, beside the floors.

    python benchmarks/defaults_masks.py --data ../shared/data [--steps 300,1000] [--seeds 3]

Hippocampus volumes, 3 masks to learn from and 3 held out, as the claim `tracoco` sees them (patches of 16 x
24 x 16 voxels, a small U-Net). Each run chooses by the held-out volumes; what it keeps is graded on 60 test
volumes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import tacit
from race import machine, save
from tacit.claims.base import Setting
from tacit.claims.cells import Cells
from tacit.claims.hippocampus import COUNT, TEST, open_hippocampus, write_hippocampus
from tacit.claims.run import as_table
from tacit.evaluation.segmentation import grade_masks
from tacit.evaluation.segmenter import load_segmenter, predicted_pairs
from tacit.training.summary import Summary

METHODS = ("supervised-segmentation", "mean-teacher-segmentation", "tracoco")
PATCH = (16, 24, 16)


def run(cell: Mapping[str, Any]) -> dict[str, Any]:
    source = open_hippocampus(Path(cell["folder"]))
    with tempfile.TemporaryDirectory() as place:
        done = tacit.fit(
            cell["method"],
            source,
            out=Path(place) / "run",
            encoder="tacit/unet3d?width=8&depth=3&dropout=0",
            options={"turn": False},
            labelled=3,
            held_out=1.0,
            epochs=max(1, round(cell["steps"] / ((COUNT - TEST) // 2))),
            batch_size=2,
            mu=1.0,
            lr=0.05,
            schedule="poly",
            patch=PATCH,
            seed=cell["seed"],
            quiet=True,
            device="cpu",
        )
        segmenter, summary = load_segmenter(done.folder), Summary.load(done.folder)
    pairs = predicted_pairs(segmenter.predict, source, source.splits["test"], PATCH, "cpu")
    return {
        "test_dice": grade_masks(pairs, segmenter.card.classes).mean("dice"),
        "kept": summary.kept,
        "candidates": dict(summary.candidates),
        "floors": dict(summary.floors),
        "statistics": summary.statistics,
    }


def row(cell: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, str]:
    percent = {name: f"{100 * value:.1f}" for name, value in result["candidates"].items()}
    return {
        "method": cell["method"],
        "steps": str(cell["steps"]),
        "seed": str(cell["seed"]),
        "held-out Dice": ", ".join(f"{name} {value}" for name, value in percent.items()),
        "kept": result["kept"],
        "test Dice": f"{100 * result['test_dice']:.1f}",
        "mean mask": f"{100 * result['floors']['mean mask']:.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/defaults-masks"))
    parser.add_argument("--steps", default="300,1000")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    setting = Setting(folder=asked.work, data=asked.data, quick=False, cells=lambda cell, grid: [])
    folder = write_hippocampus(setting, "defaults", range(COUNT - TEST), range(COUNT - TEST, COUNT))
    cells = Cells(asked.work / "cells", "masks 1", jobs=asked.jobs, say=lambda line: print(line, flush=True))
    grid = [
        {"folder": str(folder), "steps": int(steps), "method": method, "seed": seed}
        for steps, seed, method in product(asked.steps.split(","), range(asked.seeds), METHODS)
    ]
    found = cells.run(run, grid)
    table = [row(cell, result) for cell, result in zip(grid, found, strict=True)]
    print(as_table(table))
    kept = [{**{k: v for k, v in c.items() if k != "folder"}, **r} for c, r in zip(grid, found, strict=True)]
    save("defaults_masks", {**machine(), "runs": kept}, table)


if __name__ == "__main__":
    main()
