"""The probes against scikit-learn: time at equal accuracy, and growth with the number of samples.

    python benchmarks/probe.py [--quick]

Linear: eight strengths of regularisation from strong to weak, each starting at the last solution, chosen
on validation, then fitted on both parts: the protocol of `tacit probe`. scikit-learn's LogisticRegression
(L-BFGS, warm start) gets the same standardised float32 features, the same objective, stops at the same
gradient (1e-5) and after as many iterations (200); a second row gives it its own defaults (1e-4, 100).
kNN: cosine, k = 20, votes exp(cosine / 0.1); KNeighborsClassifier as one writes it, with metric="cosine",
and in the faster form that its Euclidean distance of normalised features allows, both brute force with the
same weights. `product_share`: the time of the one matrix product that kNN cannot do without, over ours.
Both race with two threads, on real digits: raw pixels (D = 784) and features of an untrained ResNet-18
(D = 512). Growth: Gaussian classes, D = 512, ten of them.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional as F

from race import machine, race, save
from tacit.data.open import open_source
from tacit.encoders.zoo import build_encoder
from tacit.evaluation.features import encoder_features, extract, raw_features
from tacit.evaluation.knn import knn_predict
from tacit.evaluation.linear import STRENGTHS, sweep_linear

CLASSES, K, TEMPERATURE, THREADS = 10, 20, 0.1, 2
WANTED = {"linear": 5, "knn": 3}
"""Smallest ratio of scikit-learn's time to ours."""
Part = tuple[Tensor, Tensor]
Split = tuple[Part, Part, Part]


def digits() -> dict[str, Split]:
    """Train, validation and test part of two representations of real digits."""
    source = open_source("mnist5k")
    encoder = build_encoder("timm/resnet18", channels=1, size=28, small_input=True, seed=0)
    train, test = source.splits["train"], source.splits["test"]
    parts = np.delete(train, np.s_[::5]), train[::5], test
    labels = torch.from_numpy(source.labels)
    found = {}
    for name, embed in (("pixels", raw_features(source)), ("resnet18", encoder_features(encoder, "cpu"))):
        x = torch.from_numpy(extract(embed, source))
        found[name] = tuple((x[part], labels[part]) for part in parts)
    return found


def classes(n: int, d: int = 512) -> Split:
    """n training, n / 4 validation and 1,000 test samples of Gaussian classes that overlap."""
    draw = torch.Generator().manual_seed(n)
    centre = 0.12 * torch.randn(CLASSES, d, generator=draw)

    def part(size: int) -> Part:
        y = torch.randint(0, CLASSES, (size,), generator=draw)
        return centre[y] + torch.randn(size, d, generator=draw), y

    return part(n), part(n // 4), part(1000)


def our_linear(split: Split) -> float:
    """Test accuracy."""
    train, validation, (x, y) = split
    sweep = sweep_linear(train, validation, CLASSES)
    return _share(sweep.classifier.logits(x).argmax(1) == y)


def their_linear(split: Split, tolerance: float, iterations: int) -> float:
    (x, y), (vx, vy), (tx, ty) = split
    mean, std = _standard(x)
    found: dict[float, float] = {}
    model = LogisticRegression(tol=tolerance, max_iter=iterations, warm_start=True)
    for strength in STRENGTHS:
        model.set_params(C=1 / (strength * len(x)))
        model.fit(((x - mean) / std).numpy(), y.numpy())
        found[strength] = model.score(((vx - mean) / std).numpy(), vy.numpy())
    best = max(STRENGTHS, key=lambda s: (found[s], s))
    both, labels = torch.cat([x, vx]), torch.cat([y, vy])
    mean, std = _standard(both)
    model = LogisticRegression(tol=tolerance, max_iter=iterations, C=1 / (best * len(both)))
    model.fit(((both - mean) / std).numpy(), labels.numpy())
    return float(model.score(((tx - mean) / std).numpy(), ty.numpy()))


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    std = x.std(0, correction=0)
    return x.mean(0), torch.where(std > 1e-6, std, torch.ones_like(std))


def our_knn(split: Split) -> float:
    (x, y), _, (tx, ty) = split
    votes = knn_predict(x, y, tx, classes=CLASSES, k=K, temperature=TEMPERATURE)
    return _share(votes.argmax(1) == ty)


def their_knn(split: Split) -> float:
    (x, y), _, (tx, ty) = split

    def votes(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance) / TEMPERATURE)

    model = KNeighborsClassifier(K, weights=votes, algorithm="brute", metric="cosine", n_jobs=THREADS)
    return float(model.fit(x.numpy(), y.numpy()).score(tx.numpy(), ty.numpy()))


def their_knn_of_unit_vectors(split: Split) -> float:
    (x, y), _, (tx, ty) = split

    def votes(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance**2 / 2) / TEMPERATURE)

    model = KNeighborsClassifier(K, weights=votes, algorithm="brute", n_jobs=THREADS)
    model.fit(F.normalize(x).numpy(), y.numpy())
    return float(model.score(F.normalize(tx).numpy(), ty.numpy()))


def _share(right: Tensor) -> float:
    return right.float().mean().item()


def compare(
    what: str, on: str, split: Split, ours: Callable[[Split], float], theirs: Callable[[Split], float]
) -> dict[str, Any]:
    """One row: seconds and test accuracy of both."""
    seconds = race({"tacit": lambda: ours(split), "scikit-learn": lambda: theirs(split)}, rounds=3)
    kind = what.split()[0]
    ratio = seconds["scikit-learn"] / seconds["tacit"]
    return {
        "what": what,
        "on": on,
        "n": len(split[0][0]),
        "d": split[0][0].shape[1],
        "seconds": seconds["tacit"],
        "seconds_scikit-learn": seconds["scikit-learn"],
        "accuracy": ours(split),
        "accuracy_scikit-learn": theirs(split),
        "ratio": ratio,
        "wanted": WANTED[kind],
        "reached": ratio >= WANTED[kind],
    }


def compare_knn(on: str, split: Split) -> list[dict[str, Any]]:
    """Both forms of the peer, and how much of our time is the product's."""
    product = race({"product": lambda: split[2][0] @ split[0][0].T}, rounds=5)["product"]
    rows = [
        compare("knn", on, split, our_knn, their_knn),
        compare("knn (normalised by hand)", on, split, our_knn, their_knn_of_unit_vectors),
    ]
    return [row | {"product_share": product / row["seconds"]} for row in rows]


def growth(n: int) -> list[dict[str, Any]]:
    """Seconds of both probes, once each after a small warm-up; kNN of scikit-learn beside ours."""
    split = classes(n)
    runs: dict[tuple[str, str], Callable[[Split], float]] = {
        ("linear", "tacit"): our_linear,
        ("knn", "tacit"): our_knn,
        ("knn", "scikit-learn"): their_knn_of_unit_vectors,
    }
    if n <= 10_000:
        runs["linear", "scikit-learn"] = lambda split: their_linear(split, 1e-5, 200)
    rows = []
    for (what, who), run in runs.items():
        start = time.perf_counter()
        accuracy = run(split)
        seconds = time.perf_counter() - start
        rows.append({"growth": what, "who": who, "n": n, "seconds": seconds, "accuracy": accuracy})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="raw pixels only, less growth")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore", ConvergenceWarning)  # 200 iterations are the protocol's limit
    torch.set_num_threads(THREADS)
    description = machine()
    rows = []
    for on, split in list(digits().items())[: 1 if quick else None]:
        rows.append(compare("linear", on, split, our_linear, lambda s: their_linear(s, 1e-5, 200)))
        rows.append(
            compare("linear (its defaults)", on, split, our_linear, lambda s: their_linear(s, 1e-4, 100))
        )
        rows += compare_knn(on, split)
    if not quick:
        rows += compare_knn("Gaussian classes", classes(20_000))
    growth(200)
    for n in (100, 1000) if quick else (100, 1000, 10_000, 100_000):
        rows += growth(n)
    save("probe", description, rows)


if __name__ == "__main__":
    main()
