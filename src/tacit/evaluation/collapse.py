"""Health without labels: whether the representation has collapsed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli, 2007), of centred features.

    features: (N, D). Between 1, all features on one line, and min(N, D). 0 if all are equal,
    NaN if one is not finite.
    """
    if not torch.isfinite(features).all():
        return float("nan")
    centred = features.double() - features.double().mean(0)
    values = torch.linalg.svdvals(centred)
    if values[0] <= 1e-9 * features.double().abs().max().clamp_min(1e-30) * features.numel() ** 0.5:
        return 0.0
    share = values / values.sum()
    return torch.special.entr(share).sum().exp().item()


def feature_std(features: Tensor) -> float:
    """Mean over dimensions of the standard deviation of unit-length features, times sqrt(D).

    features: (N, D). Near 1 when they spread evenly over the sphere, 0 when all are equal
    (Chen and He, 2021, who plot it without the factor).
    """
    unit = F.normalize(features.double(), dim=1)
    return (unit.std(0, correction=0).mean() * features.shape[1] ** 0.5).item()
