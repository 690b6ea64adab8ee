"""The probes against scikit-learn: time at equal accuracy, and growth with the number of samples.

    python benchmarks/probe.py [--quick] [--threads 2]

Linear: eight strengths of regularisation from strong to weak, each starting at the last solution, chosen
on validation, then fitted on both parts: the protocol of `tacit probe`. scikit-learn's LogisticRegression
(warm start) gets the same standardised features and the same objective. In the row `linear` it is the
fastest of two solvers with two tolerances that reaches the optimum as well (1e-6 of the objective at every
strength, in float64; where none does, the one that comes nearest); a second row gives it its own defaults
(L-BFGS, 1e-4, 100 iterations, float32). `excess`: how far the objective lies above the lowest that anyone
found, relative to it, at the strength where that is most.
kNN: cosine, k = 20, votes exp(cosine / 0.1); KNeighborsClassifier as one writes it, with metric="cosine",
and in the faster form that its Euclidean distance of normalised features allows, both brute force with the
same weights. `product_share`: the time of the one matrix product that kNN cannot do without, over ours.
Both race with as many threads, on real digits: raw pixels (D = 784) and features of an untrained ResNet-18
(D = 512). Growth: Gaussian classes, D = 512, ten of them; scikit-learn's linear probe there with its
defaults.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from race import machine, race, save
from tacit.data.open import open_source
from tacit.encoders.zoo import build_encoder
from tacit.evaluation.features import encoder_features, extract, raw_features
from tacit.evaluation.knn import knn_predict
from tacit.evaluation.linear import STRENGTHS, fit_linear, sweep_linear

CLASSES, K, TEMPERATURE = 10, 20, 0.1
WANTED = {"linear": 5, "knn": 3}
"""Smallest ratio of scikit-learn's time to ours."""
CLOSE = 1e-6
"""Largest excess that counts as the optimum."""
Part = tuple[Tensor, Tensor]
Split = tuple[Part, Part, Part]


@dataclass(frozen=True)
class Peer:
    """How scikit-learn is asked to fit."""

    solver: str
    tolerance: float
    iterations: int
    precision: type

    def model(
        self, strength: float, count: int, model: LogisticRegression | None = None
    ) -> LogisticRegression:
        """For a mean over `count` samples. model: whose weights to begin with."""
        model = model or LogisticRegression(warm_start=True)
        return model.set_params(
            solver=self.solver, tol=self.tolerance, max_iter=self.iterations, C=1 / (strength * count)
        )

    def __str__(self) -> str:
        return f"{self.solver}, {self.tolerance:g}"


DEFAULTS = Peer("lbfgs", 1e-4, 100, np.float32)
PATIENT = [
    Peer(solver, tolerance, 50_000, np.float64)
    for solver in ("lbfgs", "newton-cg")
    for tolerance in (1e-7, 1e-8)
]


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


def their_linear(split: Split, peer: Peer) -> float:
    (x, y), (vx, vy), (tx, ty) = split
    mean, std = _standard(x)
    found: dict[float, float] = {}
    for strength, model in their_path(split, peer):
        found[strength] = model.score(_array((vx - mean) / std, peer), vy.numpy())
    best = max(STRENGTHS, key=lambda s: (found[s], s))
    both, labels = torch.cat([x, vx]), torch.cat([y, vy])
    mean, std = _standard(both)
    model = peer.model(best, len(both)).fit(_array((both - mean) / std, peer), labels.numpy())
    return float(model.score(_array((tx - mean) / std, peer), ty.numpy()))


def their_path(split: Split, peer: Peer) -> Iterator[tuple[float, LogisticRegression]]:
    """Each strength with the model for it, which the next one changes."""
    x, y = split[0]
    mean, std = _standard(x)
    features, model = _array((x - mean) / std, peer), None
    for strength in STRENGTHS:
        model = peer.model(strength, len(x), model).fit(features, y.numpy())
        yield strength, model


def _array(x: Tensor, peer: Peer) -> np.ndarray:
    return x.numpy().astype(peer.precision)


def values(split: Split) -> dict[Peer | None, list[float]]:
    """The objective at each strength in float64, by peer; None is ours."""
    x, y = split[0]
    mean, std = _standard(x)
    scaled = ((x - mean) / std).double()

    def value(weight: Tensor, bias: Tensor, strength: float) -> float:
        fit = F.cross_entropy(scaled @ weight.double().T + bias.double(), y)
        return (fit + strength / 2 * weight.double().square().sum()).item()

    found: dict[Peer | None, list[float]] = {}
    begin, ours = None, []
    for strength in STRENGTHS:
        begin = fit_linear(x, y, CLASSES, strength, start=begin)
        ours.append(value(begin.weight, begin.bias, strength))
    found[None] = ours
    for peer in (DEFAULTS, *PATIENT):
        found[peer] = [
            value(torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_), strength)
            for strength, model in their_path(split, peer)
        ]
    return found


def compare_linear(on: str, split: Split) -> list[dict[str, Any]]:
    """Against the fastest that reaches the optimum, and against the defaults."""
    found = values(split)
    least = [min(each) for each in zip(*found.values(), strict=True)]
    excess = {
        who: max(v / best - 1 for v, best in zip(each, least, strict=True)) for who, each in found.items()
    }
    there = [peer for peer in PATIENT if excess[peer] <= CLOSE]
    there = there or [min(PATIENT, key=lambda peer: excess[peer])]
    times: dict[Peer, float] = {}
    for peer in there:
        start = time.perf_counter()
        their_linear(split, peer)
        times[peer] = time.perf_counter() - start
    rows = []
    for what, peer in (("linear", min(there, key=lambda p: times[p])), ("linear (its defaults)", DEFAULTS)):
        row = compare(what, on, split, our_linear, lambda s, peer=peer: their_linear(s, peer))
        rows.append(row | {"excess": excess[None], "excess_scikit-learn": excess[peer], "peer": str(peer)})
    return rows


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = x.mean(0), x.std(0, correction=0)
    return mean, torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std))


def our_knn(split: Split) -> float:
    (x, y), _, (tx, ty) = split
    votes = knn_predict(x, y, tx, classes=CLASSES, k=K, temperature=TEMPERATURE)
    return _share(votes.argmax(1) == ty)


def their_knn(split: Split) -> float:
    (x, y), _, (tx, ty) = split

    def votes(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance) / TEMPERATURE)

    model = KNeighborsClassifier(
        K, weights=votes, algorithm="brute", metric="cosine", n_jobs=torch.get_num_threads()
    )
    return float(model.fit(x.numpy(), y.numpy()).score(tx.numpy(), ty.numpy()))


def their_knn_of_unit_vectors(split: Split) -> float:
    (x, y), _, (tx, ty) = split

    def votes(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance**2 / 2) / TEMPERATURE)

    model = KNeighborsClassifier(K, weights=votes, algorithm="brute", n_jobs=torch.get_num_threads())
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
    bank, queries = split[0][0].numpy(), split[2][0].numpy()
    product = race({"product": lambda: queries @ bank.T}, rounds=5)["product"]
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
        runs["linear", "scikit-learn"] = lambda split: their_linear(split, DEFAULTS)
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
    parser.add_argument("--threads", type=int, default=2, help="of all contestants")
    options = parser.parse_args()
    quick = options.quick
    warnings.simplefilter("ignore", ConvergenceWarning)  # 100 iterations are the defaults' limit
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)  # also of numpy's and scipy's BLAS
    description = machine()
    rows = []
    for on, split in list(digits().items())[: 1 if quick else None]:
        rows += compare_linear(on, split)
        rows += compare_knn(on, split)
    if not quick:
        rows += compare_knn("Gaussian classes", classes(20_000))
    growth(200)
    for n in (100, 1000) if quick else (100, 1000, 10_000, 100_000):
        rows += growth(n)
    save("probe", description, rows)


if __name__ == "__main__":
    main()
