"""The claim of decoupled contrastive learning: small batches suffice once the positive is decoupled."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tacit.claims.base import Claim, Outcome, Parameters, Part, Setting, combined, verdict_on
from tacit.data.open import open_source
from tacit.data.source import Source
from tacit.encoders.zoo import build_encoder
from tacit.errors import UsageError
from tacit.evaluation.features import Embed, encoder_features, raw_features
from tacit.evaluation.statistics import compare_paired, mean_interval
from tacit.files import replacing
from tacit.tasks.probe import measure
from tacit.training.fit import fit
from tacit.training.run import Run

LOSSES = {"InfoNCE": "simclr", "DCL": "dcl", "DCLW": "dclw"}
_ENCODER = "tacit/convnet"
_RELEVANT = 1.0  # points of accuracy; a smaller gain would not be a reason to choose a loss
_LAST = 100  # steps over which q is averaged


@dataclass(frozen=True, slots=True)
class _Plan:
    """Sizes of the experiment. `seeds` are those of the final runs; the sweep has seed 0."""

    train: int
    validation: int
    test: int
    epochs: int
    batches: tuple[int, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]


_FULL = _Plan(3000, 2000, 10_000, 30, (16, 32, 128), (3e-4, 1e-3, 3e-3), (1, 2, 3, 4, 5))
_QUICK = _Plan(1000, 300, 400, 3, (16, 128), (1e-3,), (1, 2))


def _experiment(setting: Setting) -> Outcome:
    plan = _QUICK if setting.quick else _FULL
    where = str(_data(setting, plan))
    shared = {"data": where, "epochs": plan.epochs}
    sweep = [
        {"loss": loss, "batch": batch, "lr": lr, "seed": 0, **shared}
        for loss, batch, lr in product(LOSSES, plan.batches, plan.rates)
    ]
    chosen = _best_rates(sweep, setting.cells(_validate, sweep))
    arms = list(product(LOSSES, plan.batches, plan.seeds))
    final = [
        {"loss": loss, "batch": batch, "lr": chosen[loss, batch], "seed": seed, **shared}
        for loss, batch, seed in arms
    ]
    runs = dict(zip(arms, setting.cells(_test, final), strict=True))
    baselines = setting.cells(_baseline, [{"data": where, "seed": seed} for seed in plan.seeds])
    return _judge(plan, runs, baselines, chosen)


def _validate(parameters: Parameters) -> dict[str, Any]:
    """One run, scored on validation images; the test part is not opened."""
    with tempfile.TemporaryDirectory() as folder:
        run = _learn(parameters, Path(folder))
        source = _open(parameters)
        fit_part, strength_part = _every_fifth(source)
        split = {"train": fit_part, "validation": strength_part, "test": source.splits["val"]}
        return _scores({"learned": encoder_features(run.encoder(), "cpu")}, source, split)["learned"]


def _test(parameters: Parameters) -> dict[str, Any]:
    """One run at the chosen learning rate, scored on the test images."""
    with tempfile.TemporaryDirectory() as folder:
        run = _learn(parameters, Path(folder))
        source = _open(parameters)
        scores = _scores({"learned": encoder_features(run.encoder(), "cpu")}, source, _splits(source))
        return {**scores["learned"], "q": _last_q(run)}


def _baseline(parameters: Parameters) -> dict[str, Any]:
    """The untrained encoder and raw pixels on the same split."""
    source = _open(parameters)
    channels, size = source.spec.shape[0], source.spec.shape[1]
    twin = build_encoder(_ENCODER, channels=channels, size=size, seed=parameters["seed"])
    named = {"random": encoder_features(twin, "cpu"), "pixels": raw_features(source)}
    return _scores(named, source, _splits(source))


def _learn(parameters: Parameters, folder: Path) -> Run:
    return fit(
        LOSSES[parameters["loss"]],
        parameters["data"],
        out=folder / "run",
        encoder=_ENCODER,
        recipe="paper",  # its views, whatever the pictures are like
        options={"projection": 64, "temperature": 0.1, "augment": {"scale": [0.25, 1.0]}},
        epochs=parameters["epochs"],
        batch_size=parameters["batch"],
        optimizer="adam",
        lr=parameters["lr"],
        lr_scaling="none",
        weight_decay=1e-6,
        labels="none",
        cache=_cache(parameters),
        device="cpu",
        seed=parameters["seed"],
        quiet=True,
    )


def _open(parameters: Parameters) -> Source:
    return open_source(parameters["data"], cache=_cache(parameters))


def _cache(parameters: Parameters) -> str:
    return str(Path(parameters["data"]).parent / "cache")


def _splits(source: Source) -> dict[str, np.ndarray]:
    return {
        "train": source.splits["train"],
        "validation": source.splits["val"],
        "test": source.splits["test"],
    }


def _every_fifth(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """The training images in two parts; the second, a fifth of each class, chooses the probe's strength."""
    train = source.splits["train"]
    labels = source.labels[train]
    fifth = np.concatenate([np.flatnonzero(labels == c)[4::5] for c in np.unique(labels)])
    return np.delete(train, fifth), train[np.sort(fifth)]


def _scores(
    named: Mapping[str, Embed], source: Source, split: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    results = measure(list(named.items()), source, split)
    return {
        r.representation: {"linear": 100 * r.linear.accuracy, "knn": 100 * r.knn.accuracy} for r in results
    }


def _last_q(run: Run) -> float:
    """Mean of q over the last steps; a row of metrics.csv is the mean since the row before."""
    rows = run.metrics()
    steps = np.array([0, *(int(row["step"]) for row in rows)])
    weight = np.clip(steps[1:] - np.maximum(steps[:-1], steps[-1] - _LAST), 0, None)
    return float(np.average([float(row["npc"]) for row in rows], weights=weight))


def _best_rates(
    sweep: Sequence[Parameters], results: Sequence[Mapping[str, float]]
) -> dict[tuple[str, int], float]:
    """The learning rate with the best linear accuracy on validation images, for each loss and batch."""
    best: dict[tuple[str, int], tuple[float, float]] = {}
    for parameters, result in zip(sweep, results, strict=True):
        arm = parameters["loss"], parameters["batch"]
        best[arm] = max(best.get(arm, (-1.0, 0.0)), (result["linear"], parameters["lr"]))
    return {arm: lr for arm, (_, lr) in best.items()}


def _judge(
    plan: _Plan,
    runs: Mapping[tuple[str, int, int], Mapping[str, float]],
    baselines: Sequence[Mapping[str, Mapping[str, float]]],
    chosen: Mapping[tuple[str, int], float],
) -> Outcome:
    def gap(loss: str, batch: int, metric: str = "linear") -> np.ndarray:
        """Accuracy of a loss minus that of InfoNCE, one value per seed, in points."""
        return np.array(
            [runs[loss, batch, s][metric] - runs["InfoNCE", batch, s][metric] for s in plan.seeds]
        )

    *small, large = plan.batches
    at_small = np.mean([gap("DCL", batch) for batch in small], axis=0)
    shrinks = at_small - gap("DCL", large)
    names = " and ".join(map(str, small))
    parts = tuple(
        Part(question, interval, "points", verdict_on(interval, relevant=_RELEVANT))
        for question, interval in (
            (f"DCL minus InfoNCE at batch {names}, linear probe", mean_interval(at_small)),
            (f"the same minus the difference at batch {large}", mean_interval(shrinks)),
        )
    )
    verdict = combined([part.verdict for part in parts])
    first, second = parts
    return Outcome(
        verdict=verdict,
        because=f"DCL gains {first.effect} points over InfoNCE at batch {names} ({first.verdict}), and "
        f"{second.effect} more than at batch {large} ({second.verdict})",
        parts=parts,
        tables={
            "Accuracy on test images in %, mean over seeds, and q at the end": _accuracies(
                plan, runs, baselines, chosen
            ),
            "Difference from InfoNCE in points, paired by seed": _differences(plan, gap),
        },
        details={
            "runs": [{"loss": k[0], "batch": k[1], "seed": k[2], **values} for k, values in runs.items()],
            "baselines": list(baselines),
            "learning_rates": [{"loss": k[0], "batch": k[1], "lr": lr} for k, lr in chosen.items()],
        },
    )


def _accuracies(plan: _Plan, runs: Any, baselines: Any, chosen: Any) -> list[dict[str, str]]:
    rows = []
    for loss, batch in product(LOSSES, plan.batches):
        values = [runs[loss, batch, seed] for seed in plan.seeds]
        linear, knn, q = ([v[key] for v in values] for key in ("linear", "knn", "q"))
        rows.append(
            {
                "loss": loss,
                "batch": str(batch),
                "linear": f"{np.mean(linear):.1f} ± {np.std(linear, ddof=1):.1f}",
                "kNN": f"{np.mean(knn):.1f} ± {np.std(knn, ddof=1):.1f}",
                "q": f"{np.mean(q):.3f}",
                "learning rate": f"{chosen[loss, batch]:g}",
            }
        )
    for name, key in (("untrained encoder", "random"), ("raw pixels", "pixels")):
        linear, knn = (np.mean([b[key][metric] for b in baselines]) for metric in ("linear", "knn"))
        rows.append({"loss": name, "linear": f"{linear:.1f}", "kNN": f"{knn:.1f}"})
    return rows


def _differences(plan: _Plan, gap: Any) -> list[dict[str, str]]:
    rows = []
    for loss, batch, metric in product(("DCL", "DCLW"), plan.batches, ("linear", "knn")):
        test = compare_paired(gap(loss, batch, metric), np.zeros(len(plan.seeds)))
        rows.append(
            {
                "loss": loss,
                "batch": str(batch),
                "probe": {"linear": "linear", "knn": "kNN"}[metric],
                "difference [95 % interval]": str(test.difference),
                "permutation p": f"{test.permutation:.3f}",
                "Wilcoxon p": f"{test.wilcoxon:.3f}",
            }
        )
    return rows


def _data(setting: Setting, plan: _Plan) -> Path:
    """The experiment's images as one `.npz` with splits, made once; its store is filled before the cells."""
    path = setting.folder / "images.npz"
    if not path.is_file():
        arrays = _digits(plan) if setting.quick else _cifar(setting.data, plan)
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
    _open({"data": path})
    return path


def _cifar(folder: Path | None, plan: _Plan) -> dict[str, np.ndarray]:
    """CIFAR-10 (JPEG): class-balanced prefixes of the training and test files."""
    if folder is None or not (folder / "cifar10_jpeg").is_dir():
        raise UsageError(
            "the claim 'dcl' needs the data set cifar10_jpeg: name the folder that holds it with --data or "
            "TACIT_TEST_DATA, or pass --quick, which uses digits that come inside a package"
        )
    train, train_labels = _decode(folder / "cifar10_jpeg" / "train.npz", plan.train + plan.validation)
    test, test_labels = _decode(folder / "cifar10_jpeg" / "test.npz", plan.test)
    return _arrays(plan, train, train_labels, test, test_labels)


def _decode(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` images; every prefix of 10 k rows holds k of each class."""
    with np.load(path, allow_pickle=False) as archive:
        jpeg, offset, label = archive["jpeg"], archive["offset"], archive["label"]
    images = [
        np.asarray(Image.open(io.BytesIO(jpeg[start:end].tobytes())))
        for start, end in pairwise(offset[: count + 1])
    ]
    return np.stack(images), label[:count]


def _digits(plan: _Plan) -> dict[str, np.ndarray]:
    """scikit-learn's digits, 8 x 8, in the order in which they come."""
    source = open_source("digits")
    images = source.batch(range(len(source))).data[:, 0].numpy()
    known = plan.train + plan.validation
    return _arrays(plan, images[:known], source.labels[:known], images[known:], source.labels[known:])


def _arrays(
    plan: _Plan, known: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        "train_images": known[: plan.train],
        "train_labels": labels[: plan.train],
        "val_images": known[plan.train :],
        "val_labels": labels[plan.train :],
        "test_images": test[: plan.test],
        "test_labels": test_labels[: plan.test],
    }


CLAIM = Claim(
    name="dcl",
    statement="At small batches decoupled contrastive learning gives better frozen features than InfoNCE "
    "after the same number of epochs, and the gap shrinks as the batch grows.",
    source="Yeh et al., Decoupled Contrastive Learning, ECCV 2022, arXiv 2110.06848",
    design=f"InfoNCE, DCL and DCLW at batch 16, 32 and 128; {_FULL.epochs} epochs of {_FULL.train:,} "
    "unlabelled CIFAR-10 (JPEG) images; a convolutional network 32-64-128, projector 128-64, temperature "
    "0.1, Adam, weight decay 1e-6, cosine; crops of 0.25 to 1 of the area, flip, colour. For each loss and "
    f"batch the learning rate is the best of {', '.join(f'{lr:g}' for lr in _FULL.rates)} by linear accuracy "
    f"on {_FULL.validation:,} validation images (seed 0); then seeds {_FULL.seeds[0]} to {_FULL.seeds[-1]}, "
    f"last epoch, {_FULL.test:,} test images. Decision: 95 % intervals (Student's t over seeds) of DCL minus "
    "InfoNCE in linear accuracy, mean of batch 16 and 32, and of that minus the difference at 128. A part "
    f"holds if its interval lies above 0, does not hold if it lies below {_RELEVANT:g} point, and is "
    "inconclusive otherwise; both must hold. DCLW, kNN and q are shown and decide nothing.",
    experiment=_experiment,
)
