"""How well classes are predicted that have an order, such as grades of a disease, and how sure that is.

Every measure but the expected calibration error is a function of the confusion matrix, and that error is
one of its bins' sums. So what a resample scores follows from how often it holds each sample: all resamples
are products of counts and one sparse table, see `bootstrap_grades`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, recall_score
from torch import Tensor

from tacit.errors import UsageError
from tacit.evaluation.statistics import group_numbers, percentile_interval
from tacit.rng import Rng

BINS = 15  # of the calibration error, as Guo et al. have it
_ROUNDING = 0.01  # how far a row of probabilities may sum from 1: bfloat16 has 8 bits
_ROOM = 2**22  # numbers of a block of resamples: 32 MiB


@dataclass(frozen=True, slots=True)
class Grades:
    """How predictions agree with the truth; see `grade` for what each number is, and when it is NaN."""

    accuracy: float
    balanced_accuracy: float
    kappa: float
    mae: float
    ece: float
    n: int

    def __str__(self) -> str:
        grades = (
            "" if np.isnan(self.mae) else f"quadratic kappa {self.kappa:.3f}, MAE {self.mae:.3f} grades, "
        )
        return (
            f"balanced accuracy {100 * self.balanced_accuracy:.1f} %, accuracy {100 * self.accuracy:.1f} %, "
            f"{grades}calibration error {self.ece:.3f} ({self.n:,} labels)"
        )


class Estimate(NamedTuple):
    """A value and its interval."""

    value: float
    low: float
    high: float


def are_grades(classes: Sequence[str]) -> bool:
    """Whether classes have an order: three or more that are called by whole numbers (our choice)."""
    return len(classes) > 2 and all(re.fullmatch(r"[+-]?\d+", name) for name in classes)


def grade_classes(
    truth: Tensor | np.ndarray, probability: Tensor | np.ndarray, classes: Sequence[str]
) -> Grades:
    """`grade` for classes of these names; kappa and MAE compare grades, and are NaN where there is no order.

    Raises:
        UsageError: as `grade`.
    """
    ordinal = are_grades(classes)
    found = grade(truth, probability, ordinal=ordinal)
    return found if ordinal else replace(found, kappa=float("nan"))


def grade(truth: Tensor | np.ndarray, probability: Tensor | np.ndarray, *, ordinal: bool = True) -> Grades:
    """Agreement of predicted classes with the true ones; the class of largest probability is predicted.

    truth: (N,) whole numbers, 0 .. C-1. probability: (N, C), each row from 0 to 1 with sum 1. Of equal
        probabilities the first class is predicted.
    ordinal: whether the classes are grades at equal distances, 0 < 1 < ... < C-1.

    Returns:
        accuracy: share of right predictions.
        balanced_accuracy: mean over the classes that occur in `truth` of the share found of each.
        kappa: Cohen's (1968), weighted with the squared distance of the grades, or unweighted if not
            `ordinal`. 1: all agree; 0: no more than chance, and wherever truth or prediction is one class
            only; NaN where both are the same single class.
        mae: mean distance of predicted and true grade; NaN if not `ordinal`.
        ece: expected calibration error (Guo et al., 2017, arXiv 1706.04599), 0 to 1: over 15 equal bins
            (a, b] of the largest probability, the mean, weighted with the bins' samples, of
            |accuracy - mean probability|. By hand, because torchmetrics 1.9 puts probabilities of exactly
            1 into a sixteenth bin, and softmax in float32 rounds to 1 often.
        n: number of samples.

    Raises:
        UsageError: no samples, shapes that do not fit, classes out of range (-1, unlabelled, among them),
            or rows that are no probabilities.
    """
    truth, probability = _checked(truth, probability)
    predicted = probability.argmax(1)
    return Grades(
        accuracy=float((truth == predicted).mean()),
        # balanced_accuracy_score is the same, and warns of classes that are predicted and do not occur
        balanced_accuracy=float(recall_score(truth, predicted, labels=np.unique(truth), average="macro")),
        kappa=_kappa(truth, predicted, probability.shape[1], ordinal),
        mae=float(mean_absolute_error(truth, predicted)) if ordinal else float("nan"),
        ece=float(np.abs(np.bincount(*_bin_gaps(truth, probability))).sum() / len(truth)),
        n=len(truth),
    )


def bootstrap_grades(
    truth: Tensor | np.ndarray,
    probability: Tensor | np.ndarray,
    *,
    ordinal: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    groups: Tensor | np.ndarray | None = None,
) -> dict[str, Estimate]:
    """The measures of `grade`, each with its bootstrap percentile interval (Efron, 1979).

    Samples are drawn with replacement within each true class, so that every resample has the classes'
    counts (stratified, 1000 resamples: the published evaluation of Semixup, Nguyen et al., 2020, arXiv
    2003.01944). The interval tells what other images of these classes would give, not other networks.

    truth, probability, ordinal: as `grade` takes them.
    groups: (N,) of samples that belong together, such as a patient's. Then whole groups are drawn, from
        all groups alike: images of one patient are no independent samples, and intervals that forget it
        are too narrow.
    confidence: share of the resamples between low and high.
    seed: of the draws; they do not depend on the resamples' number.

    Returns:
        By name (accuracy, balanced_accuracy, kappa, mae, ece) value, low, high. Resamples in which kappa
        is not defined are left out of its interval, which is NaN where none is left. The calibration
        error of resamples is larger than that of the data, so that its interval may lie above the value.

    Measures by hand, from the confusion matrices of all resamples at once, because one after another
    scikit-learn took 3.1 s for 1000 resamples of 1000 samples in 5 classes, and these 0.05 s.

    Raises:
        UsageError: as `grade`, fewer than 2 resamples, a confidence not between 0 and 1, or groups of
            another number than samples.
    """
    truth, probability = _checked(truth, probability)
    if resamples < 2:
        raise UsageError(f"resamples must be at least 2, not {resamples}")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, not {confidence}")
    classes, table, strata = probability.shape[1], _table(truth, probability), truth
    if groups is not None:
        number = group_numbers(groups, len(truth))
        table = csr_array((np.ones(len(truth)), (number, np.arange(len(truth))))) @ table
        strata = np.zeros(table.shape[0], np.int64)
    room = max(1, _ROOM // max(table.shape))
    draws = _counts(strata, resamples, room, Rng.of(seed)("bootstrap").numpy())
    scores = np.concatenate([_scores(counts @ table, classes, ordinal) for counts in draws])
    value = grade(truth, probability, ordinal=ordinal)
    return {
        field.name: Estimate(getattr(value, field.name), *percentile_interval(scores[:, k], confidence))
        for k, field in enumerate(fields(Grades)[:-1])
    }


def _kappa(truth: np.ndarray, predicted: np.ndarray, classes: int, ordinal: bool) -> float:
    if (truth == truth[0]).all() and (predicted == truth[0]).all():
        return float("nan")  # here, because scikit-learn would warn
    # all classes, because without those that do not occur the distances would shrink
    weights = "quadratic" if ordinal else None
    return float(cohen_kappa_score(truth, predicted, labels=np.arange(classes), weights=weights))


def _bin_gaps(truth: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each sample's bin, (N,) int64, and what it adds to the bin's gap: 1 if right, minus its confidence.

    A bin's |accuracy - mean confidence|, weighted with its share of samples, is |sum of gaps| / N.
    """
    confidence = probability.max(1)
    bins = np.ceil(confidence * BINS).clip(1, BINS).astype(np.int64) - 1
    return bins, (probability.argmax(1) == truth) - confidence


def _table(truth: np.ndarray, probability: np.ndarray) -> Any:
    """(N, C * C + BINS), sparse: what each sample adds to the confusion matrix and to the bins' gaps."""
    n, classes = probability.shape
    bins, gaps = _bin_gaps(truth, probability)
    columns = np.stack([truth * classes + probability.argmax(1), classes**2 + bins], 1)
    values = np.stack([np.ones(n), gaps], 1)
    rows = np.arange(0, 2 * n + 1, 2)
    return csr_array((values.ravel(), columns.ravel(), rows), shape=(n, classes**2 + BINS))


def _counts(strata: np.ndarray, resamples: int, room: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each resample holds each unit, (R, U) float64, at most `room` resamples at a time.

    Units are drawn in place of units of their own stratum. The draws do not depend on `room`.
    """
    order = np.argsort(strata, kind="stable")
    _, first, which, size = np.unique(
        strata[order], return_index=True, return_inverse=True, return_counts=True
    )
    units = len(strata)
    for start in range(0, resamples, room):
        draw = rng.random((min(room, resamples - start), units))
        drawn = order[first[which] + (draw * size[which]).astype(np.int64)]
        rows = np.arange(len(drawn))[:, None] * units
        yield np.bincount((drawn + rows).ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)


def _scores(sums: np.ndarray, classes: int, ordinal: bool) -> np.ndarray:
    """(R, C * C + BINS) sums of the table's rows -> (R, 5): the measures in the order of `Grades`."""
    confusion = sums[:, : classes**2].reshape(-1, classes, classes)  # true class, predicted class
    n, true, predicted = confusion.sum((1, 2)), confusion.sum(2), confusion.sum(1)
    hits = confusion.diagonal(axis1=1, axis2=2)
    occurs = true > 0
    recall = np.divide(hits, true, out=np.zeros_like(true), where=occurs)
    distance = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    weight = distance**2 if ordinal else np.sign(distance)
    apart = (confusion * weight).sum((1, 2))
    by_chance = ((true @ weight) * predicted).sum(1) / n
    nothing = np.full(len(n), np.nan)
    return np.stack(
        [
            hits.sum(1) / n,
            recall.sum(1) / occurs.sum(1),
            1 - np.divide(apart, by_chance, out=nothing.copy(), where=by_chance > 0),
            (confusion * distance).sum((1, 2)) / n if ordinal else nothing,
            np.abs(sums[:, classes**2 :]).sum(1) / n,
        ],
        axis=1,
    )


def _checked(truth: Tensor | np.ndarray, probability: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, int64 and float64."""
    truth, probability = _array(truth), _array(probability)
    if not probability.size or not truth.size:
        raise UsageError("there is nothing to grade: no samples were given")
    if probability.ndim != 2 or truth.shape != probability.shape[:1] or probability.shape[1] < 2:
        raise UsageError(
            "grading needs truth (N,) and probability (N, C) of two classes at least, "
            f"not {truth.shape} and {probability.shape}"
        )
    classes = probability.shape[1]
    if truth.dtype.kind not in "iu":
        raise UsageError(f"truth must be class numbers (int64), not {truth.dtype}")
    if truth.min() < 0 or truth.max() >= classes:
        raise UsageError(
            f"truth must lie in 0 .. {classes - 1}, it goes from {truth.min()} to {truth.max()}; "
            "leave out unlabelled samples (-1)"
        )
    probability = probability.astype(np.float64)
    inside = (probability >= 0) & (probability <= 1 + _ROUNDING)  # NaN is not
    if not inside.all() or not np.allclose(probability.sum(1), 1, rtol=0, atol=_ROUNDING):
        raise UsageError("probability must be from 0 to 1 with rows of sum 1; of logits take the softmax")
    return truth.astype(np.int64), probability


def _array(x: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x.double() if x.is_floating_point() else x).numpy()
    return np.asarray(x)
