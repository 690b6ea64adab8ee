"""Mixed samples: lam x + (1 - lam) x', with weights from a Beta distribution.

Mixup: Zhang et al., 2018, arXiv 1710.09412. Folding, lam = max(lam, 1 - lam), so that the first sample
dominates, is MixMatch's (Berthelot et al., 2019, arXiv 1905.02249) and Semixup's (Nguyen et al., 2020,
arXiv 2003.01944), whose code also has the floors.
"""

from __future__ import annotations

import math

import torch
from scipy.special import betaincinv
from torch import Tensor

from tacit.errors import UsageError
from tacit.rng import Rng


def draw_lambda(
    rng: Rng, *, alpha: float, fold: bool = True, floor: float = 0.0, device: torch.device | str = "cpu"
) -> Tensor:
    """One weight for a whole batch, a float32 scalar on `device`: `draw_lambdas` of one sample.

    Raises:
        UsageError: as `draw_lambdas`.
    """
    return draw_lambdas(torch.zeros(1, dtype=torch.int64), rng, alpha=alpha, fold=fold, floor=floor)[0].to(
        device
    )


def draw_lambdas(index: Tensor, rng: Rng, *, alpha: float, fold: bool = True, floor: float = 0.0) -> Tensor:
    """One weight per sample, max(floor, l) with l ~ Beta(alpha, alpha), folded to max(l, 1 - l) if asked for.

    index: (B,) int64 sample numbers; a weight depends on its own number only.
    alpha: at least 0. 1 is uniform; 0 is the limit in which nothing is mixed: 0 or 1, folded 1.
    floor: least weight, from 0 to 1.
    Returns (B,) float32 in [0, 1] on the index's device.

    The distribution is inverted in float64 on the CPU, because torch has no inverse of the incomplete beta
    function, and a sampler that rejects takes a number of draws that depends on what it drew.

    Raises:
        UsageError: alpha or floor is out of its range.
    """
    if not 0 <= alpha < math.inf:
        raise UsageError(f"alpha of the Beta distribution must be at least 0 and finite, not {alpha}")
    if not 0 <= floor <= 1:
        raise UsageError(f"floor of the mixing weight must be from 0 to 1, not {floor}")
    # the middles of the 2^24 cells that `uniform` numbers: never 0 or 1, and symmetric
    uniform = rng.uniform(index.cpu(), 1)[:, 0].double() + 2.0**-25
    drawn = torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy())) if alpha else (uniform > 0.5).double()
    if fold:
        drawn = torch.maximum(drawn, 1 - drawn)
    return drawn.clamp_min(floor).float().to(index.device)


def partners(count: int, rng: Rng) -> Tensor:
    """(count,) int64 on the CPU: the row that each row is mixed with, a random order.

    A row may be its own partner.
    """
    return rng.permutation(count)


def mix(x: Tensor, partner_x: Tensor, lam: Tensor | float) -> Tensor:
    """lam x + (1 - lam) partner_x, exactly x at 1 and exactly partner_x at 0.

    x, partner_x: (B, ...) of one shape: samples, one-hot or soft targets, logits, probabilities.
    lam: one number or (B,).
    Returns (B, ...), float32, or float64 if x is that. With gradient.

    Raises:
        UsageError: shapes do not fit.
    """
    if x.shape != partner_x.shape:
        raise UsageError(
            "mix: samples and partners must have one shape, got "
            f"{tuple(x.shape)} and {tuple(partner_x.shape)}"
        )
    dtype = torch.promote_types(x.dtype, torch.float32)
    lam = torch.as_tensor(lam, dtype=dtype, device=x.device)
    if lam.ndim and lam.shape != x.shape[:1]:
        raise UsageError(
            f"mix: lam must be one number or one per sample, ({len(x)},), got {tuple(lam.shape)}"
        )
    if lam.ndim:
        lam = lam.view(-1, *[1] * (x.ndim - 1))
    return torch.lerp(partner_x.to(dtype), x.to(dtype), lam)
