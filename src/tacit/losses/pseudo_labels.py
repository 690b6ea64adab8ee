"""Pseudo-labels: what a network says of unlabelled samples becomes their target, where it is sure.

Shared by all functions: half precision is computed in float32, also under autocast; float64 stays float64.
Targets, masks and weights get no gradient.

What is said of FreeMatch and SoftMatch is from memory of the papers, compared with the authors' two codes
(`TorchSSL/TorchSSL` and `microsoft/Semi-supervised-learning`); no specification of these two was at hand.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses.consistency import check_one_per_row, check_rows, wide

_LEAST_SHARE = 1e-6
"""A class with a smaller running share is aligned as if it had this one (our choice, the size of the constant
that the authors' second code adds)."""


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """p^(1/T) / sum p^(1/T), MixMatch's sharpening (Berthelot et al., 2019, arXiv 1905.02249).

    p: (B, C), at least 0, not all 0 in a row. temperature: 1 leaves probabilities as they are, 0 is the
    limit: one-hot, shared equally by classes that are equally likely. With gradient, at 0 without.
    Returns (B, C); rows sum to 1.

    Raises:
        UsageError: the shape is not (B, C), there is no sample, or the temperature is below 0.
    """
    check_rows(p, p)
    if not temperature >= 0:
        raise UsageError(f"sharpen: temperature must be at least 0, got {temperature}")
    p = wide(p)
    largest = p.amax(1, keepdim=True)
    # relative to the largest, which stays 1 whatever the power
    raised = (p / largest) ** (1 / temperature) if temperature else (p == largest).to(p.dtype)
    return raised / raised.sum(1, keepdim=True)


def pseudo_label_cross_entropy(
    logits: Tensor,
    target_logits: Tensor,
    threshold: float | Tensor,
    *,
    temperature: float = 1.0,
    hard: bool = True,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy with one's own confident predictions: Pseudo-Label, FixMatch and its children.

        mean over all B of mask * CE(logits, target)
        mask = max q >= threshold,   q = softmax(target_logits)

    Pseudo-Label: Lee, 2013 (same logits twice). FixMatch: Sohn et al., 2020, arXiv 2001.07685 (logits of
    strong views, target_logits of weak ones). The mean divides by B, not by how many are kept.

    logits, target_logits: (B, C); the latter get no gradient.
    threshold: least confidence that counts, one number or (B,). It is compared with q without temperature.
    hard: the target is argmax q, whatever the temperature; otherwise softmax(target_logits / temperature).
    weight: (B,) that multiplies the mask; no gradient.
    Returns the loss, a scalar of at least 0 in nats, and the (B,) bool mask.

    Raises:
        UsageError: shapes do not fit, there is no sample, or a soft target has a temperature not above 0.
    """
    check_rows(logits, target_logits)
    if not hard and not temperature > 0:
        raise UsageError(f"soft pseudo-labels: temperature must be above 0, got {temperature}")
    target_logits = wide(target_logits.detach())
    confidence, found = target_logits.softmax(1).max(1)
    if isinstance(threshold, Tensor) and threshold.ndim:
        check_one_per_row(logits, threshold=threshold)
    mask = confidence >= threshold
    target = found if hard else (target_logits / temperature).softmax(1)
    each = F.cross_entropy(wide(logits), target, reduction="none")
    factor = mask.to(each.dtype)
    if weight is not None:
        check_one_per_row(logits, weight=weight)
        factor = factor * weight.detach()
    return (factor * each).mean(), mask


def flexmatch_thresholds(selected: Tensor, classes: int, threshold: float, *, warmup: bool = True) -> Tensor:
    """FlexMatch's thresholds (Zhang et al., 2021, arXiv 2110.08263): lower for classes that are learned less.

        sigma_c = number of samples whose class is c,   threshold_c = threshold * beta_c / (2 - beta_c)
        beta_c = sigma_c / max(max sigma, number of samples without a class)

    selected: (N,) int64, for each unlabelled sample the class that it last had with confidence, -1 for none.
    warmup: whether samples without a class count in the denominator.
    Returns (C,) float32 from 0 to `threshold`; 0 for all classes while no sample has one.

    Raises:
        UsageError: a class is not below `classes`.
    """
    counts = torch.bincount(selected + 1, minlength=classes + 1)
    if len(counts) > classes + 1:
        raise UsageError(
            f"flexmatch: class {len(counts) - 2} of {classes}; classes go from 0 to {classes - 1}"
        )
    without, sigma = counts[0], counts[1:]
    most = torch.maximum(sigma.max(), without) if warmup else sigma.max()
    beta = sigma / most.clamp_min(1)
    return threshold * beta / (2 - beta)


def freematch_thresholds(global_threshold: float | Tensor, local: Tensor) -> Tensor:
    """FreeMatch's self-adaptive thresholds (Wang et al., 2023, arXiv 2205.07246): t p_c / max p.

    From memory of the paper. Both arguments are moving averages over unlabelled batches that begin at 1 / C,
    as in the authors' code, with momentum 0.999:

        t <- m t + (1 - m) mean max q,     p <- m p + (1 - m) mean q

    global_threshold: t, one number. local: p, (C,), at least 0 and not all 0.
    Returns (C,) from 0 to t.
    """
    return global_threshold * local / local.max()


def freematch_fairness(strong_logits: Tensor, mask: Tensor, local: Tensor, histogram: Tensor) -> Tensor:
    """FreeMatch's self-adaptive fairness (Wang et al., 2023, arXiv 2205.07246, eq. 11): sum_c a_c log b_c.

    From memory of the paper.

        a = normalised(local / histogram),   b = normalised(mean of p / histogram of argmax p)

    where p = softmax(strong_logits), over the samples that the mask keeps, and normalised means: sums to 1.
    It is added to the loss with a weight of 0.01 to 0.05. It is minus a cross-entropy: below 0, and meant as
    an entropy to be maximised. Beware that a is a constant, so that in the equation as printed, and in the
    authors' code, a step down drives b away from a, and its gradient vanishes where b = a.

    strong_logits: (B, C). mask: (B,) bool. local, histogram: (C,), moving averages of the mean of q and of
        the share of each class among argmax q; no gradient.
    Returns a scalar of at most 0; 0 if nothing is kept. Classes that no kept sample has are left out (the
    authors' code adds a constant for them).

    Raises:
        UsageError: shapes do not fit, or there is no sample.
    """
    check_rows(strong_logits, strong_logits)
    check_one_per_row(strong_logits, mask=mask)
    p = wide(strong_logits).softmax(1)
    kept = mask.bool()[:, None]
    counts = (F.one_hot(p.argmax(1), p.shape[1]) * kept).sum(0)
    a = _per_frequency(local.detach().to(p.dtype), histogram.detach().to(p.dtype))
    b = _per_frequency((p * kept).sum(0), counts.to(p.dtype))
    return (a * torch.where(counts > 0, b, 1.0).log()).sum()


def _per_frequency(share: Tensor, frequency: Tensor) -> Tensor:
    """share / frequency, scaled to sum 1; 0 for classes of frequency 0."""
    tiny = torch.finfo(share.dtype).tiny
    ratio = torch.where(frequency > 0, share / frequency.clamp_min(tiny), 0.0)
    return ratio / ratio.sum().clamp_min(tiny)


def softmatch_weights(
    confidence: Tensor, mean: float | Tensor, variance: float | Tensor, *, deviations: float = 2.0
) -> Tensor:
    """SoftMatch's truncated Gaussian (Chen et al., 2023, arXiv 2301.10921), the largest weight being 1.

    From memory of the paper.

        exp(-(confidence - mean)^2 / (2 variance / deviations^2))   below the mean,   1 above

    confidence: (B,) largest probabilities, aligned (`uniform_alignment`). mean, variance: moving averages of
        those before the alignment with momentum 0.999, which begin at 1 / C and 1 (after it in the authors'
        second code, see `SoftMatch`). deviations: 2 in the authors' code; 1 is the plain Gaussian.
    Returns (B,) from 0 to 1, no gradient. With a variance of 0 it is a threshold at the mean.
    """
    confidence = wide(confidence.detach())
    variance = torch.as_tensor(variance, dtype=confidence.dtype, device=confidence.device)
    below = (confidence - mean).clamp_max(0)
    return torch.exp(-0.5 * (deviations * below) ** 2 / variance.clamp_min(torch.finfo(variance.dtype).tiny))


def uniform_alignment(q: Tensor, running: Tensor) -> Tensor:
    """SoftMatch's uniform alignment (Chen et al., 2023, arXiv 2301.10921): q / running, scaled to sum 1.

    From memory of the paper. Weights are taken from aligned probabilities; pseudo-labels, and the mean and
    variance of the confidence, from q itself.

    q: (B, C) probabilities. running: (C,) moving average of the mean of q.
    Returns (B, C), no gradient; rows sum to 1. A uniform `running` changes nothing.

    Raises:
        UsageError: shapes do not fit, or there is no sample.
    """
    check_rows(q, q)
    if running.shape != q.shape[1:]:
        raise UsageError(
            f"uniform alignment: running must have one value per class, ({q.shape[1]},), "
            f"got {tuple(running.shape)}"
        )
    aligned = wide(q.detach()) / running.detach().clamp_min(_LEAST_SHARE)
    return aligned / aligned.sum(1, keepdim=True)
