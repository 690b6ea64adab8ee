"""The claim of Semixup: as good as full supervision with six times as many labels."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tacit.claims.base import Claim, Outcome, Parameters, Part, Setting, combined, verdict_on
from tacit.claims.graded import graded_run
from tacit.data.budget import group_split
from tacit.data.open import open_source
from tacit.data.source import Source
from tacit.errors import UsageError
from tacit.evaluation.statistics import Interval, compare_paired, mean_interval
from tacit.files import replacing
from tacit.rng import Rng

_MARGIN = 2.0  # points of balanced accuracy within which two classifiers count as equally good
_RELEVANT = 1.0  # points; a smaller gain would not be a reason to choose a method
_MANY = "supervised, 6 times the labels"
_ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised": ("supervised", {}),
    "supervised, mixup": ("supervised", {"mixup": True}),
    _MANY: ("supervised", {}),
    "semixup": ("semixup", {}),
    "pi-model": ("pi-model", {}),
    "ict": ("ict", {}),
    "mixmatch": ("mixmatch", {}),
    "fixmatch": ("fixmatch", {}),
}


_VIEWS = {"elpv_solar": "greys", "cifar10_jpeg": "photos", "digits": "digits"}


@dataclass(frozen=True, slots=True)
class _Plan:
    """Sizes of the experiment. sets: name, labels per class, encoder, side of the image."""

    sets: tuple[tuple[str, int, str, int], ...]
    arms: tuple[str, ...]
    steps: int
    seeds: tuple[int, ...]


_FULL = _Plan(
    (("elpv_solar", 10, "tacit/convnet?depth=4", 64), ("cifar10_jpeg", 25, "tacit/convnet", 32)),
    tuple(_ARMS),
    600,
    (5, 6, 7, 8, 9),
)
_QUICK = _Plan(
    (("digits", 2, "tacit/convnet", 8),), ("supervised", _MANY, "semixup", "pi-model"), 200, (0, 1, 2)
)


def _experiment(setting: Setting) -> Outcome:
    plan = _QUICK if setting.quick else _FULL
    grid = [
        {
            "data": str(_data(setting, name)),
            "set": name,
            "arm": arm,
            "labels": 6 * few if arm == _MANY else few,
            "encoder": encoder,
            "size": side,
            "steps": plan.steps,
            "seed": seed,
        }
        for name, few, encoder, side in plan.sets
        for seed in plan.seeds
        for arm in plan.arms
    ]
    results = setting.cells(_grades, grid)
    return _judge(plan, grid, results)


def _grades(parameters: Parameters) -> dict[str, Any]:
    """One run, graded on the test images."""
    method, options = _ARMS[parameters["arm"]]
    return graded_run(
        method,
        _open(Path(parameters["data"])),
        labels=parameters["labels"],
        seed=parameters["seed"],
        steps=parameters["steps"],
        batch_size=20,
        mu=1.0,
        encoder=parameters["encoder"],
        size=parameters["size"],
        options={"ema": 0.99, "dropout": 0.35, **options},
        views=_VIEWS[parameters["set"]],
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        schedule="cosine 7/16",
        held_out=0.0,
    )


def _judge(plan: _Plan, grid: Sequence[Parameters], results: Sequence[Mapping[str, Any]]) -> Outcome:
    found = {
        (p["set"], p["arm"], p["seed"]): 100 * r["balanced_accuracy"]
        for p, r in zip(grid, results, strict=True)
    }
    parts: list[Part] = []
    gains = []
    for name, few, _, _ in plan.sets:

        def values(arm: str, name: str = name) -> np.ndarray:
            return np.array([found[name, arm, seed] for seed in plan.seeds])

        semixup = values("semixup")
        level = mean_interval(semixup - values(_MANY))
        gain = mean_interval(semixup - values("supervised"))
        parts += [
            Part(
                f"{name}: Semixup with {few} labels per class minus supervised with {6 * few}",
                level,
                "points",
                _as_good(level),
            ),
            Part(
                f"{name}: Semixup minus supervised, both with {few} labels per class",
                gain,
                "points",
                verdict_on(gain, relevant=_RELEVANT),
            ),
        ]
        gains += [_gain_row(name, arm, values(arm), values("supervised"), semixup) for arm in plan.arms]
    verdict = combined([part.verdict for part in parts])
    return Outcome(
        verdict=verdict,
        because="; ".join(f"{part.question}: {part.effect} points ({part.verdict})" for part in parts),
        parts=tuple(parts),
        tables={"Balanced accuracy on test images in %, over label draws": gains},
        details={"runs": [{**dict(p), **r, "data": p["set"]} for p, r in zip(grid, results, strict=True)]},
    )


def _as_good(difference: Interval) -> Any:
    """Whether it is no more than the margin below 0."""
    if difference.low > -_MARGIN:
        return "holds"
    return "does not hold" if difference.high < -_MARGIN else "inconclusive"


def _gain_row(
    name: str, arm: str, values: np.ndarray, base: np.ndarray, semixup: np.ndarray
) -> dict[str, str]:
    row = {"data": name, "arm": arm, "balanced accuracy": f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"}
    if arm != "supervised":
        test = compare_paired(values, base, alternative="greater")
        row |= {"gain over supervised [95 %]": str(test.difference), "Wilcoxon p": f"{test.wilcoxon:.3f}"}
    if arm not in ("supervised", "semixup"):
        row["Semixup minus this [95 %]"] = str(mean_interval(semixup - values))
    return row


def _open(path: Path) -> Source:
    return open_source(path, cache=str(path.parent / "cache"), progress=False)


def _data(setting: Setting, name: str) -> Path:
    """A set as one `.npz` with splits, made once; its store is filled before the cells."""
    path = setting.folder / f"{name}.npz"
    if not path.is_file():
        arrays = _MAKERS[name](setting.data)
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
    _open(path)
    return path


def _folder(data: Path | None, name: str) -> Path:
    if data is None or not (data / name).is_dir():
        raise UsageError(
            f"the claim 'semixup' needs the data set {name}: name the folder that holds it with --data or "
            "TACIT_TEST_DATA, or pass --quick, which uses digits that come inside a package"
        )
    return data / name


def _solar(data: Path | None) -> dict[str, np.ndarray]:
    """Solar cells, 64 x 64, in four grades of defect; a quarter is the test part.

    Neighbouring rows can show one module, so blocks of 41 rows stay together.
    """
    with np.load(_folder(data, "elpv_solar") / "elpv_solar_128.npz", allow_pickle=False) as archive:
        images = _decode(archive["jpeg"], archive["offset"])
        grades = archive["grade"].astype(np.int64)
    small = np.stack([np.asarray(Image.fromarray(i).resize((64, 64), Image.Resampling.BOX)) for i in images])
    blocks = np.arange(len(grades)) // 41
    test, train = group_split(grades, blocks, (0.25, 0.75), Rng.of(0)("claim test"))
    return {
        "train_images": small[train],
        "train_labels": grades[train],
        "test_images": small[test],
        "test_labels": grades[test],
    }


def _decode(jpeg: np.ndarray, offset: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(jpeg[a:b].tobytes()))) for a, b in pairwise(offset)]


def _cifar(data: Path | None) -> dict[str, np.ndarray]:
    """CIFAR-10 (JPEG): class-balanced prefixes, 5,000 images to learn from and 2,000 to test."""
    folder = _folder(data, "cifar10_jpeg")
    arrays = {}
    for split, count in (("train", 5000), ("test", 2000)):
        with np.load(folder / f"{split}.npz", allow_pickle=False) as archive:
            arrays[f"{split}_images"] = np.stack(_decode(archive["jpeg"], archive["offset"][: count + 1]))
            arrays[f"{split}_labels"] = archive["label"][:count]
    return arrays


def _digits(data: Path | None) -> dict[str, np.ndarray]:
    """scikit-learn's digits; every third is the test part."""
    source = open_source("digits")
    images = source.batch(range(len(source))).data[:, 0].numpy()
    third = np.arange(len(source)) % 3 == 2
    return {
        "train_images": images[~third],
        "train_labels": source.labels[~third],
        "test_images": images[third],
        "test_labels": source.labels[third],
    }


_MAKERS = {"elpv_solar": _solar, "cifar10_jpeg": _cifar, "digits": _digits}


CLAIM = Claim(
    name="semixup",
    statement="A Semixup classifier with n labels per class is as good as a supervised one with 6 n, and "
    "better than a supervised one with n.",
    source="Nguyen et al., Semixup, IEEE TMI 39(12), 2020, arXiv 2003.01944 (abstract: balanced accuracy"
    " 71.0 with 6 times fewer labels against 70.9 %, p = 0.368, on knee X-rays that need a "
    "data-use agreement)",
    design="elpv_solar (solar cells in 4 grades of defect, 64 px, blocks of 41 neighbouring images on "
    "one side of the split, a quarter for test) with n = 10, and cifar10_jpeg (5,000 images to "
    f"learn from, 2,000 for test) with n = 25; label draws {_FULL.seeds[0]} to {_FULL.seeds[-1]}, each the "
    "same for all arms. Arms: supervised with n (also with mixup) and with 6 n, Semixup, Pi-model, "
    "ICT, MixMatch and FixMatch with n, each with its method's own weights. All: a convolutional "
    "network of 4 (elpv_solar) or 3 layers from 32 channels, dropout 0.35 before the classifier, "
    "weak and strong views by kind of picture (greys, photos, digits), 20 labelled and 20 "
    f"unlabelled images a step, about {_FULL.steps} steps, Adam 1e-3, cosine 7/16, the moving "
    "average of the weights (0.99) after the last step, balanced accuracy on the test part. "
    "Nothing is selected. Decision: 95 % intervals (Student's t over draws). As good: the "
    f"interval of the difference lies above -{_MARGIN:g} points (does not hold below it). Better: "
    f"it lies above 0 (does not hold below {_RELEVANT:g} point). All four parts must hold. The "
    "other methods are shown and decide nothing.",
    experiment=_experiment,
    # 1 had MixMatch's ramp of 1/64; 2 noise in every weak view, averages with copied statistics that spanned
    # the whole run, and the published weights whatever the length
    version=3,
)
