"""How the weight of an unlabelled term rises while a run goes on."""

from __future__ import annotations

import math

from tacit.errors import UsageError


def linear_ramp(progress: float, share: float) -> float:
    """min(1, progress / share), as in the code of MixMatch (Berthelot et al., 2019, arXiv 1905.02249).

    progress: step / total, from 0 on. share: of the run in which the weight rises; 0 is no ramp.
    Returns a weight from 0 to 1; without a ramp 1 from the first step on.

    Raises:
        UsageError: progress or share is below 0 or no number.
    """
    return _risen(progress, share)


def gaussian_ramp(progress: float, share: float, *, zero_start: bool = False) -> float:
    """exp(-5 (1 - min(progress, share) / share)^2), the ramp of the Pi-model.

    Laine and Aila, 2017, arXiv 1610.02242.

    progress: step / total, from 0 on. share: of the run in which the weight rises; 0 is no ramp. Both may be
        counted in steps as well: only their ratio matters.
    zero_start: whether the weight at 0 is exactly 0, as in the released code of TraCoCo (Liu et al., 2022,
        arXiv 2203.14523), in place of exp(-5).
    Returns a weight from exp(-5) = 0.0067 to 1; without a ramp 1 from the first step on.

    Raises:
        UsageError: progress or share is below 0 or no number.
    """
    risen = _risen(progress, share)
    return 0.0 if zero_start and risen == 0 else math.exp(-5 * (1 - risen) ** 2)


def _risen(progress: float, share: float) -> float:
    """How much of the ramp lies behind, 0 to 1."""
    if not (progress >= 0 and share >= 0):
        raise UsageError(
            f"ramp: progress and share must be at least 0, got {progress} and {share}; pass step / total and "
            "the share of the steps in which the weight rises"
        )
    return min(1.0, progress / share) if share else 1.0
