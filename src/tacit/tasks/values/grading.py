"""How well numbers are predicted, and how sure that is.

Every measure follows from a few sums over samples, so that all resamples of the bootstrap are one
product of counts and the groups' sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from tacit.errors import UsageError
from tacit.evaluation.statistics import group_numbers, percentile_interval
from tacit.files import without_nan
from tacit.rng import Rng

RESAMPLES = 2000
_ROOM = 2**22  # numbers of a block of resamples: 32 MiB
_CONSTANT = 1e-12  # of the variance of all samples: what a resample has below it is rounding


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval, NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ValueGrades:
    """How predicted values agree with the true ones; see `grade_values` for what each number is.

    count: number of samples. groups: number of groups, None where samples are independent.
    """

    count: int
    groups: int | None
    mae: Estimate
    r2: Estimate
    pearson: Estimate
    rmse: float

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, with None for NaN; each measure is a dict of value, low and high."""
        found: dict[str, Any] = without_nan(asdict(self))
        return found

    def __str__(self) -> str:
        """A table with one row per measure."""
        rows = [("", "value", "95 % interval")]
        for name, e in (("R2", self.r2), ("Pearson", self.pearson), ("MAE", self.mae)):
            rows.append((name, f"{e.value:.4g}", f"{e.low:.4g} .. {e.high:.4g}"))
        rows.append(("RMSE", f"{self.rmse:.4g}", ""))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        of = "" if self.groups is None else f" of {self.groups:,} groups"
        return "\n".join([*lines, f"({self.count:,} values{of})"])


def grade_values(
    truth: Tensor | np.ndarray,
    predicted: Tensor | np.ndarray,
    *,
    groups: Tensor | np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ValueGrades:
    """Agreement of predicted values with the true ones, with bootstrap percentile intervals (Efron, 1979).

    truth, predicted: (N,) finite, in the same unit.
    groups: (N,) of samples that belong together, such as a patient's. Then whole groups are drawn: samples of
        one patient are not independent, and intervals that forget it are too narrow.
    resamples: at least 2. seed: of the draws.

    Returns:
        mae, rmse: mean absolute error, and the root of the mean squared error, in the unit of the values.
        r2: 1 - sum of squared errors / sum of squares of the truth around its mean; 1 is perfect, 0 is what
            the mean of `truth` would score, and worse predictions are below 0. NaN where `truth` is constant.
        pearson: correlation, -1 to 1; NaN where `truth` or `predicted` is constant.
        Intervals leave out resamples in which a measure is not defined; of one sample or group they are NaN.
        With fewer than about 20 groups they are too narrow, as bootstrap intervals are.

    Raises:
        UsageError: no samples, shapes that do not fit, NaN or infinite numbers, or fewer than 2 resamples.
    """
    t, p = _checked(truth, predicted)
    if resamples < 2:
        raise UsageError(f"resamples must be at least 2, not {resamples}")
    table = _table(t, p)
    units = len(t)
    if groups is not None:
        which = group_numbers(groups, len(t))
        units = int(which.max()) + 1
        table = np.stack([np.bincount(which, column, units) for column in table.T], 1)
    spreads = np.array([np.std(x) if np.ptp(x) > 0 else np.inf for x in (t, p)])
    value = _measures(table.sum(0, keepdims=True), spreads)[:, 0]
    low, high = np.full((2, 3), np.nan)
    if units > 1:
        draws = _counts(units, resamples, Rng.of(seed)("bootstrap").numpy())
        drawn = np.concatenate([_measures(counts @ table, spreads) for counts in draws], 1)
        low, high = np.transpose([percentile_interval(scores) for scores in drawn])
    mae, r2, pearson = (Estimate(*map(float, e)) for e in zip(value, low, high, strict=True))
    rmse = float(np.sqrt(np.square(t - p).mean()))
    return ValueGrades(len(t), None if groups is None else units, mae, r2, pearson, rmse)


def r_squared(truth: np.ndarray, predicted: np.ndarray) -> float:
    """R2 as `grade_values` has it, of (N,) float64; NaN for a constant truth or predictions not all finite.

    scikit-learn's `r2_score` refuses such predictions, and gives 0 or 1 for a constant truth.
    """
    if len(truth) < 2 or np.ptp(truth) == 0 or not np.isfinite(predicted).all():
        return float("nan")
    return float(1 - np.square(truth - predicted).sum() / np.square(truth - truth.mean()).sum())


def _table(t: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(N, 8): what each sample adds to the sums. Values are centred: neither R2 nor Pearson sees it."""
    error = t - p
    t, p = t - t.mean(), p - p.mean()
    return np.stack([np.ones(len(t)), np.abs(error), error**2, t, p, t * t, p * p, t * p], 1)


def _counts(units: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each resample has each unit, (R, U) float64, a block of resamples at a time.

    By hand, because `scipy.stats.bootstrap` warns wherever a measure is undefined, as Pearson's
    correlation is for constant predictions.
    """
    room = max(1, _ROOM // units)
    for start in range(0, resamples, room):
        draw = rng.integers(0, units, (min(room, resamples - start), units))
        draw += np.arange(len(draw))[:, None] * units
        yield np.bincount(draw.ravel(), minlength=draw.size).reshape(draw.shape).astype(float)


def _measures(sums: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """(R, 8) sums -> (3, R): MAE, R2 and Pearson's correlation.

    spreads: standard deviations of truth and prediction, infinite where they are constant.
    """
    n, distance, squared, t, p, tt, pp, tp = sums.T
    nothing = np.full(len(n), np.nan)
    around, predicted = tt - t * t / n, pp - p * p / n
    varies = around > _CONSTANT * n * spreads[0] ** 2
    both = varies & (predicted > _CONSTANT * n * spreads[1] ** 2)
    r2 = 1 - np.divide(squared, around, out=nothing.copy(), where=varies)
    scale = np.sqrt(np.where(both, around * predicted, 1.0))
    pearson = np.where(both, ((tp - t * p / n) / scale).clip(-1, 1), np.nan)
    return np.stack([distance / n, r2, pearson])


def _checked(truth: Tensor | np.ndarray, predicted: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    t, p = _array(truth).astype(np.float64), _array(predicted).astype(np.float64)
    if not t.size and not p.size:
        raise UsageError("there is nothing to grade: no samples were given")
    if t.ndim != 1 or t.shape != p.shape:
        raise UsageError(f"grading needs truth (N,) and predictions (N,), not {t.shape} and {p.shape}")
    if not np.isfinite(t).all():
        raise UsageError("truth has NaN or infinite values: leave out unlabelled samples")
    if not np.isfinite(p).all():
        raise UsageError("predictions have NaN or infinite values: the network diverged")
    return t, p


def _array(x: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x.double() if x.is_floating_point() else x).numpy()
    return np.asarray(x)
