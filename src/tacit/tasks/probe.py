"""What a frozen representation knows: kNN and linear accuracy, beside its random twin and raw pixels."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from tacit import __version__
from tacit.data.labels import stratified_split
from tacit.data.open import open_source
from tacit.data.source import UNLABELLED, Source
from tacit.encoders.card import card_of
from tacit.encoders.zoo import build_encoder, is_pretrained
from tacit.errors import UsageError
from tacit.evaluation.features import Embed, encoder_features, extract, raw_features
from tacit.evaluation.knn import knn_predict
from tacit.evaluation.linear import STRENGTHS, sweep_linear
from tacit.evaluation.subject import OnBadFile, encoder_for, pick_device
from tacit.files import write_atomically
from tacit.rng import Rng

_FRACTIONS = (0.6, 0.2, 0.2)
_TEMPERATURE = 0.1
PIXELS = "raw pixels"
Split = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy on the test part with its 95 % Wilson interval, and the mean over classes."""

    accuracy: float
    low: float
    high: float
    balanced_accuracy: float


@dataclass(frozen=True, slots=True)
class Result:
    """How one representation did. `strength`: the linear probe's regularisation, chosen on validation."""

    representation: str
    features: int
    knn: Score
    linear: Score
    strength: float


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """Results in the order learned encoder, random twin, raw pixels; and how they were measured."""

    results: tuple[Result, ...]
    protocol: dict[str, Any]

    def __getitem__(self, representation: str) -> Result:
        return next(r for r in self.results if r.representation == representation)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"protocol": self.protocol, "results": [asdict(result) for result in self.results]}

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomically(path, json.dumps(self.as_json(), indent=2))

    def __str__(self) -> str:
        p = self.protocol
        return (
            f"{table(self.results)}\n"
            f"test accuracy in % [95 % interval]; {p['train']} train, {p['validation']} validation, "
            f"{p['test']} test samples, {len(p['classes'])} classes\n"
            f"split: {p['split']}" + "".join(f"\n{line}" for line in self.warnings)
        )

    @property
    def warnings(self) -> list[str]:
        """A line where raw pixels do better than what was learned."""
        found = {result.representation: result for result in self.results}
        if len(found) < 2 or PIXELS not in found:
            return []
        learned, pixels = self.results[0], found[PIXELS]
        worse = [
            f"{name} {100 * theirs.accuracy:.1f} against {100 * own.accuracy:.1f} %"
            for name, own, theirs in (
                ("kNN", learned.knn, pixels.knn),
                ("linear", learned.linear, pixels.linear),
            )
            if theirs.accuracy > own.accuracy
        ]
        if not worse:
            return []
        return [
            f"warning: raw pixels are better than what was learned ({', '.join(worse)}): train longer or "
            "with --preset laptop, choose other --views, or begin at a pretrained --encoder"
        ]


def table(results: Sequence[Result]) -> str:
    """One line per representation: accuracy in % with its 95 % interval, kNN and linear."""
    rows = [f"{'':16}{'kNN':>24}{'linear':>24}"]
    for result in results:
        cells = "".join(f"{_percent(score):>24}" for score in (result.knn, result.linear))
        rows.append(f"{result.representation:16}{cells}")
    return "\n".join(rows)


def probe(
    what: str | os.PathLike[str] | nn.Module,
    data: str | os.PathLike[str] | Source,
    *,
    labels: str | None = None,
    baselines: bool = True,
    k: int = 20,
    on_bad_file: OnBadFile = "stop",
    cache: str | None = None,
    batch_size: int = 256,
    device: str = "auto",
    out: str | None = None,
    seed: int = 0,
) -> ProbeReport:
    """Measure frozen features on labelled data: weighted kNN and a linear probe.

    The data's own train / val / test split is used where it has one; otherwise the labelled samples
    are split 60 / 20 / 20, stratified. The regularisation is chosen on validation data; the test
    part is looked at once.

    Args:
        what: a run folder, an encoder's spec string such as timm/resnet18, or a module with a card.
        data: labelled images: a folder with class folders, a MedMNIST-style .npz, hf:NAME, ...
        labels: a CSV of file names and labels, for a folder without class folders.
        baselines: also measure the random twin and raw pixels.
        k: neighbours of the kNN probe.
        on_bad_file: whether the first unusable file stops, or is skipped and counted.
        cache: where decoded images are kept.
        batch_size: images encoded at once.
        device: auto, cpu, cuda, cuda:1, mps.
        out: JSON file for the report; for a run the default is its folder probes/.
        seed: of the split and the random twin.

    Returns:
        The report; printing it gives a table.

    Raises:
        UsageError: no such run or data, or too few labels.
    """
    if k < 1 or batch_size < 1:
        raise UsageError(f"k and batch_size must be at least 1, not {k} and {batch_size}")
    open_data = partial(open_source, data, labels=labels, on_bad_file=on_bad_file, cache=cache)
    encoder, source, spec = encoder_for(what, open_data)
    split, how = probe_split(source, seed)
    place = pick_device(device)
    module = isinstance(what, nn.Module)
    learned = module or is_pretrained(spec)
    named: list[tuple[str, Embed]] = [("learned" if learned else "random", encoder_features(encoder, place))]
    if baselines and learned and not module:
        named.append(("random twin", encoder_features(_twin(encoder, spec, seed), place)))
    if baselines:
        named.append((PIXELS, raw_features(source)))
    results = measure(named, source, split, k=k, batch_size=batch_size)
    protocol = {
        "name": "frozen features, kNN and linear probe, version 1",
        "encoder": spec,
        "data": str(data) if not isinstance(data, Source) else type(data).__name__,
        "fingerprint": source.fingerprint,
        "skipped": len(source.skipped),
        "classes": list(source.spec.classes),
        "split": how,
        **{name: len(part) for name, part in split.items()},
        "knn": {"k": k, "temperature": _TEMPERATURE, "bank": "train and validation"},
        "linear": {
            "penalties": list(STRENGTHS),
            "chosen_on": "validation accuracy, the strongest of equals",
            "then_fitted_on": "train and validation",
        },
        "seed": seed,
        "version": __version__,
    }
    report = ProbeReport(tuple(results), protocol)
    target = _target(spec, protocol, out)
    if target is not None:
        report.save(target)
    return report


def _twin(encoder: nn.Module, spec: str, seed: int) -> nn.Module:
    """The same architecture on the same input, untrained."""
    card = card_of(encoder)
    return build_encoder(
        f"random:{spec}",
        **card.architecture,
        mean=card.form.mean,
        std=card.form.std,
        seed=seed,
    )


def measure(
    named: Sequence[tuple[str, Embed]], source: Source, split: Split, *, k: int = 20, batch_size: int = 256
) -> list[Result]:
    """kNN and linear probe of several representations on the same split."""
    labels = torch.from_numpy(source.labels)
    classes = int(labels.max()) + 1
    results = []
    for name, embed in named:
        parts = {
            part: (torch.from_numpy(extract(embed, source, index, batch_size=batch_size)), labels[index])
            for part, index in split.items()
        }
        results.append(_measure_one(name, parts, classes, k))
    return results


def _measure_one(
    name: str, parts: dict[str, tuple[torch.Tensor, torch.Tensor]], classes: int, k: int
) -> Result:
    train, validation, (test, truth) = parts["train"], parts["validation"], parts["test"]
    bank, bank_labels = (torch.cat(pair) for pair in zip(train, validation, strict=True))
    votes = knn_predict(bank, bank_labels, test, classes=classes, k=k, temperature=_TEMPERATURE)
    sweep = sweep_linear(train, validation, classes)
    return Result(
        representation=name,
        features=test.shape[1],
        knn=_score(votes.argmax(1), truth),
        linear=_score(sweep.classifier.logits(test).argmax(1), truth),
        strength=sweep.strength,
    )


def probe_split(source: Source, seed: int) -> tuple[Split, str]:
    """Positions of labelled train, validation and test samples, and in words where the split comes from.

    Raises:
        UsageError: fewer than two classes, or a class with fewer than three samples.
    """
    if len(source.labelled) == 0:
        raise UsageError(
            "the data have no labels to probe with: use one folder per class, or name a CSV with --labels"
        )
    rng = Rng.of(seed)("probe split")
    own = {name: part[source.labels[part] != UNLABELLED] for name, part in source.splits.items()}
    own = {name: part for name, part in own.items() if len(part)}
    pool = own["train"] if "train" in own and "test" in own else source.labelled
    counts = np.bincount(source.labels[pool], minlength=0)
    if (counts > 0).sum() < 2:
        raise UsageError("the data have one class only: a probe needs two at least")
    if "train" in own and "test" in own:
        if "val" in own:
            return {"train": own["train"], "validation": own["val"], "test": own["test"]}, "the data's own"
        train, validation = _stratified(source, own["train"], (0.8, 0.2), rng)
        how = f"the data's own test part, 80/20 stratified validation, seed {seed}"
        return {"train": train, "validation": validation, "test": own["test"]}, how
    train, validation, test = _stratified(source, source.labelled, _FRACTIONS, rng)
    how = f"60/20/20 stratified, seed {seed}"
    return {"train": train, "validation": validation, "test": test}, how


def _stratified(
    source: Source, index: np.ndarray, fractions: tuple[float, ...], rng: Rng
) -> tuple[np.ndarray, ...]:
    counts = np.bincount(source.labels[index])
    few = [c for c in np.flatnonzero(counts) if counts[c] < len(fractions)]
    if few:
        name = source.spec.classes[few[0]] if source.spec.classes else str(few[0])
        raise UsageError(
            f"class '{name}' has {counts[few[0]]} labelled sample(s); a probe needs {len(fractions)} of each"
        )
    return tuple(index[part] for part in stratified_split(source.labels[index], fractions, rng))


def _score(predicted: torch.Tensor, truth: torch.Tensor) -> Score:
    right, count = int((predicted == truth).sum()), len(truth)
    interval = binomtest(right, count).proportion_ci(0.95, method="wilson")
    balanced = balanced_accuracy_score(truth.numpy(), predicted.numpy())
    return Score(right / count, float(interval.low), float(interval.high), float(balanced))


def _percent(score: Score) -> str:
    return f"{100 * score.accuracy:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def _target(spec: str, protocol: Mapping[str, Any], out: str | None) -> Path | None:
    """Where the report goes. Its name tells data and protocol apart, so that none replaces another."""
    if out is not None:
        return Path(out)
    if not spec.startswith("run:"):
        return None
    digest = blake2b(json.dumps(protocol, sort_keys=True).encode(), digest_size=4).hexdigest()
    return Path(spec.removeprefix("run:")) / "probes" / f"{protocol['fingerprint'][:12]}-{digest}.json"
