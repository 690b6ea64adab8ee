"""What is kept of methods for masks in short runs: the trained or the averaged network, beside the floors.

    python benchmarks/defaults_masks.py --data ../shared/data [--steps 300,1000] [--seeds 3]

Hippocampus volumes, 3 masks to learn from and 3 held out, as the claim `tracoco` sees them (patches of 16 x
24 x 16 voxels, a small U-Net). Each run chooses by the held-out volumes; what it keeps is graded on 60 test
volumes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import sittings
import tacit
from tacit.claims.base import Setting
from tacit.claims.hippocampus import COUNT, TEST, open_hippocampus, write_hippocampus
from tacit.tasks.registry import load_predictor, task_of
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
        predictor, summary = load_predictor(done.folder), Summary.load(done.folder)
    return {
        "test_dice": task_of("mask").grade(predictor, source, source.splits["test"], "cpu")["dice"],
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
    options = sittings.parser(__doc__, "runs/defaults-masks", "defaults_masks")
    options.add_argument("--steps", default="300,1000")
    asked = options.parse_args()
    sitting = sittings.Sitting(asked, "masks 1")
    setting = Setting(folder=asked.work, data=asked.data, quick=False, cells=lambda cell, grid: [])
    folder = write_hippocampus(setting, "defaults", range(COUNT - TEST), range(COUNT - TEST, COUNT))
    grid = [
        {"folder": str(folder), "steps": int(steps), "method": method, "seed": seed}
        for steps, seed, method in product(asked.steps.split(","), range(asked.seeds), METHODS)
    ]
    found = sitting.run(run, grid)
    sitting.save([row(cell, result) for cell, result in found], runs=found)


if __name__ == "__main__":
    main()
