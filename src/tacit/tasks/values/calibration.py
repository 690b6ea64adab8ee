"""Split-conformal prediction: how far from a predicted value the true one may lie."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from torch import Tensor

from tacit.errors import UsageError

COVERAGE = 0.9
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class HalfWidth:
    """Predictions plus and minus `width` have the true value in them with probability `coverage` or more.

    width: in the unit of the values; None where too little was held out for it, and `reason` says how little.
    count: held-out samples, or groups where there are some.
    """

    width: float | None
    coverage: float
    count: int
    reason: str = ""


def half_width(
    truth: Tensor | np.ndarray,
    predicted: Tensor | np.ndarray,
    *,
    groups: np.ndarray | None = None,
    coverage: float = COVERAGE,
) -> HalfWidth:
    """The half-width of an interval around predictions, from samples that were not learned from.

    Split-conformal prediction (Lei et al., 2018, "Distribution-Free Predictive Inference for Regression",
    arXiv 1604.04173): of n absolute residuals the ceil((n + 1) coverage)-th smallest. Whatever the
    distribution, a further sample like these lies inside with probability `coverage` or more, and at most
    1 / (n + 1) more where no two residuals are equal; on average over draws of the held-out samples. All
    samples get the same width: absolute residuals, our choice, because they need no second model. Of fewer
    than coverage / (1 - coverage) samples (9 for 90 %) no width is guaranteed.

    truth, predicted: (N,) finite. groups: (N,) of samples that belong together, such as a patient's: then the
        guarantee is for a sample of a further group, and groups count instead of samples (hierarchical
        conformal prediction: Lee et al., 2023, arXiv 2306.06342). Residuals of one group share the weight of
        one sample.
    coverage: above 0 and below 1.

    Raises:
        UsageError: shapes that do not fit, NaN or infinite numbers, or a coverage out of range.
    """
    residuals = _residuals(truth, predicted)
    if not 0 < coverage < 1:
        raise UsageError(f"coverage must lie between 0 and 1, not {coverage}")
    if groups is not None and np.shape(groups) != residuals.shape:
        raise UsageError(f"groups must be one per sample, {residuals.shape}, not {np.shape(groups)}")
    together = np.arange(len(residuals)) if groups is None else np.asarray(groups)
    _, which, sizes = np.unique(together, return_inverse=True, return_counts=True)
    count = len(sizes)
    needed = ceil(coverage / (1 - coverage) - _ROUNDING)
    if count < needed:
        what = "samples" if groups is None else "groups"
        reason = f"{count} held-out {what} are too few for {100 * coverage:g} %: {needed} are needed"
        return HalfWidth(None, coverage, count, reason)
    order = np.argsort(residuals, kind="stable")
    weight = np.cumsum(1 / ((count + 1) * sizes[which[order]]))
    place = int(np.searchsorted(weight, coverage - _ROUNDING))
    return HalfWidth(float(residuals[order[min(place, len(order) - 1)]]), coverage, count)


def _residuals(truth: Tensor | np.ndarray, predicted: Tensor | np.ndarray) -> np.ndarray:
    t, p = (
        x.detach().cpu().double().numpy() if isinstance(x, Tensor) else np.asarray(x, np.float64)
        for x in (truth, predicted)
    )
    if t.ndim != 1 or t.shape != p.shape:
        raise UsageError(f"an interval needs truth (N,) and predictions (N,), not {t.shape} and {p.shape}")
    residuals: np.ndarray = np.abs(t - p)
    if not np.isfinite(residuals).all():
        raise UsageError("truth or predictions have NaN or infinite values: leave out unlabelled samples")
    return residuals
