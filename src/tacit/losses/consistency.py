"""Consistency: what two views, or a mix and its ends, are answered should agree.

All distances are means over samples *and* classes: a mean over samples alone would make a published weight
(2 and 4 in Semixup, 10 to 100 in others) C times too strong.

Shared by all functions: half precision is computed in float32, also under autocast; float64 stays float64.
Nothing here is averaged over processes: a mean over samples is, where every process has as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError, unknown


def squared_difference(a: Tensor, b: Tensor, *, detach_target: bool = False) -> Tensor:
    """D(a, b) = mean over samples and classes of (softmax a - softmax b)^2.

    The distance of the Pi-model (Laine and Aila, 2017, arXiv 1610.02242), Mean Teacher (Tarvainen and
    Valpola, 2017, arXiv 1703.01780) and Semixup (Nguyen et al., 2020, arXiv 2003.01944; from its code).

    a, b: (B, C) logits. Gradient into both; with `detach_target` none into b.
    Returns a scalar in [0, 2 / C].

    Raises:
        UsageError: shapes differ, are not (B, C), or there is no sample.
    """
    check_rows(a, b)
    return probability_mse(wide(a).softmax(1), wide(b.detach() if detach_target else b).softmax(1))


def probability_mse(p: Tensor, q: Tensor) -> Tensor:
    """Mean over samples and classes of (p - q)^2: `squared_difference` of what are probabilities already.

    p, q: (B, C). Gradient into both: detach what is a target.
    Returns a scalar, in [0, 2 / C] for probabilities.

    Raises:
        UsageError: shapes differ, are not (B, C), or there is no sample.
    """
    check_rows(p, q)
    return F.mse_loss(wide(p), wide(q))


def kl_consistency(a: Tensor, b: Tensor, *, detach_target: bool = False) -> Tensor:
    """Mean over samples of KL(softmax b || softmax a) / C: the variant 'kl' in the code of Semixup.

    Nguyen et al., 2020, arXiv 2003.01944.

    a, b: (B, C) logits, finite. Gradient into both; with `detach_target` none into b.
    Returns a scalar of at least 0, in nats per class. Not symmetric.

    Raises:
        UsageError: shapes differ, are not (B, C), or there is no sample.
    """
    check_rows(a, b)
    log_p, log_q = wide(a).log_softmax(1), wide(b.detach() if detach_target else b).log_softmax(1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) / a.shape[1]


_DISTANCES = {"l2": squared_difference, "kl": kl_consistency}


def semixup_consistency(
    transformed: Sequence[Tensor],
    mixed: Sequence[Tensor],
    mixed_targets: Sequence[Tensor],
    *,
    in_weight: float = 2.0,
    in_out_weight: float = 2.0,
    interpolation_weight: float = 4.0,
    target_space: Literal["logits", "prob"] = "logits",
    distance: Literal["l2", "kl"] = "l2",
    detach_target: bool = False,
) -> dict[str, Tensor]:
    """The unlabelled terms of Semixup (Nguyen et al., 2020, arXiv 2003.01944), weighted.

    For two views with logits z and zt, one mixed copy with zm, and zmix = l z + (1 - l) z':

        in              in_weight D(zt, z)
        in_out          in_out_weight (D(z, zm) + D(zm, zt))
        interpolation   interpolation_weight D(zm, zmix)

    That is the authors' code, also in the order of arguments, which matters to `kl` and `detach_target`.
    Their figure has any number of copies, with a term for each pair; here pairs of views are `in`, pairs of
    which one or both are mixed are `in_out` (that pairs of mixed copies belong there is our choice, because
    neither lies on the manifold), and each pair counts once. Terms are sums over pairs, so that more copies
    weigh more. Of two views or of two mixed copies the later comes first; the first view comes before a
    mixed copy, and a mixed copy before any other view.

    transformed: at least one (B, C), logits of views of the same samples. mixed: any number of the same,
        of mixed copies. mixed_targets: one (B, C) for each mixed copy, the mix of the outputs at both ends.
    target_space: whether the targets are logits or probabilities.
    distance: D is `squared_difference` or `kl_consistency`; D(a, b) of the latter is
        KL(softmax b || softmax a) / C.
    detach_target: whether the second argument of each D gets no gradient (the code detaches nothing).
    Returns three scalars. A term without pairs, or of weight 0, is 0; the latter is not computed.

    Raises:
        UsageError: no view, not one target per mixed copy, shapes differ, or an unknown word.
    """
    if not transformed or len(mixed) != len(mixed_targets):
        raise UsageError(
            "semixup consistency needs at least one view and one target per mixed copy, got "
            f"{len(transformed)} views, {len(mixed)} mixed copies and {len(mixed_targets)} targets"
        )
    if distance not in _DISTANCES:
        raise unknown("distance", distance, _DISTANCES)
    if target_space not in ("logits", "prob"):
        raise unknown("target space", target_space, ("logits", "prob"))
    between = partial(_DISTANCES[distance], detach_target=detach_target)
    targets = [_logarithm(t) for t in mixed_targets] if target_space == "prob" else mixed_targets
    terms = {
        "in": (in_weight, _pairs(transformed)),
        "in_out": (in_out_weight, _across(transformed, mixed) + _pairs(mixed)),
        "interpolation": (interpolation_weight, list(zip(mixed, targets, strict=True))),
    }
    nothing = wide(transformed[0]).new_zeros(())
    return {
        name: weight * sum((between(a, b) for a, b in pairs), nothing) if weight else nothing
        for name, (weight, pairs) in terms.items()
    }


def mixup_cross_entropy(logits: Tensor, y: Tensor, y_partner: Tensor, lam: Tensor | float) -> Tensor:
    """Mean of lam CE(logits, y) + (1 - lam) CE(logits, y_partner) (Zhang et al., 2018, arXiv 1710.09412).

    logits: (B, C) of mixed samples. y, y_partner: (B,) int64 classes of the two that were mixed.
    lam: weight of the first, one number or (B,).
    Returns a scalar of at least 0, in nats.

    Raises:
        UsageError: shapes do not fit, or there is no sample.
    """
    check_rows(logits, logits)
    check_one_per_row(logits, y=y, y_partner=y_partner)
    log_p = wide(logits).log_softmax(1)
    lam = torch.as_tensor(lam, dtype=log_p.dtype, device=log_p.device)
    if lam.ndim:
        check_one_per_row(logits, lam=lam)
    first, second = (F.nll_loss(log_p, label, reduction="none") for label in (y, y_partner))
    return (lam * first + (1 - lam) * second).mean()


def wide(x: Tensor) -> Tensor:
    """In a type that losses are safe in: float32, or float64 if it is that."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_rows(a: Tensor, b: Tensor) -> None:
    """Raise UsageError unless both are (B, C) of one shape with at least one sample."""
    if a.ndim != 2 or a.shape != b.shape or len(a) == 0:
        raise UsageError(
            f"logits or probabilities must have one shape (B, C) with B at least 1, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}; pass one row per sample"
        )


def check_one_per_row(logits: Tensor, **values: Tensor) -> None:
    """Raise UsageError unless each of the values is (B,) for (B, C) logits."""
    for name, value in values.items():
        if value.shape != logits.shape[:1]:
            raise UsageError(
                f"{name} must have one value per sample, ({len(logits)},), got {tuple(value.shape)}"
            )


def _pairs(outputs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each unordered pair once, the later output first, as in D(zt, z)."""
    return [(later, earlier) for earlier, later in combinations(outputs, 2)]


def _across(transformed: Sequence[Tensor], mixed: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each view with each mixed copy, in the order of D(z, zm) and D(zm, zt)."""
    first, *others = transformed
    return [pair for zm in mixed for pair in [(first, zm), *((zm, other) for other in others)]]


def _logarithm(q: Tensor) -> Tensor:
    """Logits with softmax q. Zeros become the least number: log 0 has no useful gradient."""
    q = wide(q)
    return q.clamp_min(torch.finfo(q.dtype).tiny).log()
