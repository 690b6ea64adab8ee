"""What frozen features know of classes: kNN and linear accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score

from tacit.data.budget import group_split
from tacit.data.source import Source
from tacit.errors import UsageError
from tacit.evaluation.knn import knn_predict
from tacit.evaluation.linear import STRENGTHS, sweep_linear
from tacit.rng import Rng
from tacit.tasks.classes.grading import bootstrap_grades
from tacit.tasks.probing import FRACTIONS, Named, ProbeReport, Probing, Split, features_of, own_parts

_TEMPERATURE = 0.1


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy on the test part with its 95 % interval, and the mean over classes.

    The interval is Wilson's; of samples in groups that of a bootstrap over groups, because those of one group
    are not independent.
    """

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


class ClassReport(ProbeReport):
    """A report whose results are `Result`s."""

    def __str__(self) -> str:
        p = self.protocol
        groups = "" if p["groups"] is None else f" of {p['groups']['test']} groups"
        return (
            f"{table(self.results)}\n"
            f"test accuracy in % [95 % interval]; {p['train']} train, {p['validation']} validation, "
            f"{p['test']} test samples{groups}, {len(p['classes'])} classes\n"
            f"split: {p['split']}" + "".join(f"\n{line}" for line in self.warnings)
        )

    def worse(self, learned: Result, other: Result) -> list[str]:
        """Accuracies in %, kNN and linear."""
        return [
            f"{name} {100 * theirs.accuracy:.1f} against {100 * own.accuracy:.1f} %"
            for name, own, theirs in (
                ("kNN", learned.knn, other.knn),
                ("linear", learned.linear, other.linear),
            )
            if theirs.accuracy > own.accuracy
        ]


def table(results: Sequence[Result]) -> str:
    """One line per representation: accuracy in % with its 95 % interval, kNN and linear."""
    rows = [f"{'':16}{'kNN':>24}{'linear':>24}"]
    for result in results:
        cells = "".join(f"{_percent(score):>24}" for score in (result.knn, result.linear))
        rows.append(f"{result.representation:16}{cells}")
    return "\n".join(rows)


def measure(
    named: Named, source: Source, split: Split, *, k: int = 20, batch_size: int = 256
) -> list[Result]:
    """kNN and linear probe of several representations on the same split."""
    labels = torch.from_numpy(source.labels)
    classes = int(labels.max()) + 1
    groups = None if source.groups is None else source.groups[split["test"]]
    return [
        _measure_one(
            name, {p: (torch.from_numpy(x), labels[split[p]]) for p, x in parts.items()}, classes, k, groups
        )
        for name, parts in features_of(named, source, split, batch_size)
    ]


def _measure_one(
    name: str,
    parts: dict[str, tuple[torch.Tensor, torch.Tensor]],
    classes: int,
    k: int,
    groups: np.ndarray | None,
) -> Result:
    train, validation, (test, truth) = parts["train"], parts["validation"], parts["test"]
    bank, bank_labels = (torch.cat(pair) for pair in zip(train, validation, strict=True))
    votes = knn_predict(bank, bank_labels, test, classes=classes, k=k, temperature=_TEMPERATURE)
    sweep = sweep_linear(train, validation, classes)
    return Result(
        representation=name,
        features=test.shape[1],
        knn=_score(votes.argmax(1), truth, classes, groups),
        linear=_score(sweep.classifier.logits(test).argmax(1), truth, classes, groups),
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
    own = own_parts(source)
    whole = "" if source.groups is None else "whole groups, "
    pool = own["train"] if "train" in own and "test" in own else source.labelled
    counts = np.bincount(source.labels[pool], minlength=0)
    if (counts > 0).sum() < 2:
        raise UsageError("the data have one class only: a probe needs two at least")
    if "train" in own and "test" in own:
        if "val" in own:
            return {"train": own["train"], "validation": own["val"], "test": own["test"]}, "the data's own"
        train, validation = _stratified(source, own["train"], (0.8, 0.2), rng)
        how = f"the data's own test part, 80/20 stratified validation, {whole}seed {seed}"
        return {"train": train, "validation": validation, "test": own["test"]}, how
    train, validation, test = _stratified(source, source.labelled, FRACTIONS, rng)
    how = f"60/20/20 stratified, {whole}seed {seed}"
    return {"train": train, "validation": validation, "test": test}, how


def _stratified(
    source: Source, index: np.ndarray, fractions: tuple[float, ...], rng: Rng
) -> tuple[np.ndarray, ...]:
    counts = np.bincount(source.labels[index])
    few = [c for c in np.flatnonzero(counts) if counts[c] < len(fractions)]
    if few:
        raise UsageError(
            f"class '{_name(source, int(few[0]))}' has {counts[few[0]]} labelled sample(s); a probe needs "
            f"{len(fractions)} of each"
        )
    groups = None if source.groups is None else source.groups[index]
    parts = tuple(index[part] for part in group_split(source.labels[index], groups, fractions, rng))
    if groups is not None:
        _check_groups(source, parts, len(np.unique(groups)))
    return parts


def _check_groups(source: Source, parts: Sequence[np.ndarray], groups: int) -> None:
    """Refuse a training part that lacks a class because whole groups are kept together."""
    found, known = np.unique(source.labels[parts[0]]), np.unique(source.labels[np.concatenate(parts)])
    lacking = np.setdiff1d(known, found)
    if len(lacking) or not all(map(len, parts)):
        what = f"no group of class '{_name(source, lacking[0])}'" if len(lacking) else "an empty part"
        raise UsageError(
            f"the {groups} groups of the data leave {what} to the probe, which keeps groups together: label "
            "more groups"
        )


def _name(source: Source, label: int) -> str:
    return source.spec.classes[label] if source.spec.classes else str(label)


def _score(predicted: torch.Tensor, truth: torch.Tensor, classes: int, groups: np.ndarray | None) -> Score:
    right, count = int((predicted == truth).sum()), len(truth)
    balanced = float(balanced_accuracy_score(truth.numpy(), predicted.numpy()))
    if groups is None:
        interval = binomtest(right, count).proportion_ci(0.95, method="wilson")
        return Score(right / count, float(interval.low), float(interval.high), balanced)
    sure = torch.nn.functional.one_hot(predicted, classes).double()
    accuracy = bootstrap_grades(truth, sure, ordinal=False, groups=groups)["accuracy"]
    return Score(accuracy.value, accuracy.low, accuracy.high, balanced)


def _percent(score: Score) -> str:
    return f"{100 * score.accuracy:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def _how(k: int) -> dict[str, Any]:
    return {
        "knn": {"k": k, "temperature": _TEMPERATURE, "bank": "train and validation"},
        "linear": {
            "penalties": list(STRENGTHS),
            "chosen_on": "validation accuracy, the strongest of equals",
            "then_fitted_on": "train and validation",
        },
    }


PROBING = Probing(
    name="frozen features, kNN and linear probe, version 2",
    split=probe_split,
    measure=measure,
    labels=lambda source: {"classes": list(source.spec.classes)},
    how=_how,
    report=ClassReport,
)
