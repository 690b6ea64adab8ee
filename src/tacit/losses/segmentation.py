"""Losses on maps of logits: supervised segmentation, and what segmentations say of unlabelled samples.

Shared by all functions: logits are (B, K, *space) with two or three spatial axes and any K of at least 2
classes; masks are (B, *space) int64 with values 0 .. K-1, of which 0 is the background. Half precision is
computed in float32, also under autocast; float64 stays float64. Nothing here is averaged over processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses.consistency import wide
from tacit.losses.ramps import gaussian_ramp

_LEAST = 1e-6
"""Smallest probability whose logarithm the released code of TraCoCo takes in its negative term."""


def soft_dice(
    probability: Tensor, target: Tensor, *, background: bool = False, smooth: float = 1e-5
) -> Tensor:
    """1 - Dice of soft maps, with squared denominators (Milletari et al., 2016, arXiv 1606.04797).

        D_k = 1 - (2 sum p_k g_k + e) / (sum p_k^2 + sum g_k^2 + e),   g_k = [target = k]

    All sums run over the whole batch, not sample by sample, as in the released code of UA-MT (Yu et al.,
    2019, arXiv 1907.07034) and TraCoCo (Liu et al., 2022, arXiv 2203.14523).

    probability: (B, K, *space) in [0, 1], with gradient. target: (B, *space) int64.
    background: whether, of more than two classes, class 0 counts as well (so it does in the code of SSL4MIS
        and of TraCoCo on ACDC). Of two classes the foreground counts alone, whatever this says, as in UA-MT
        and TraCoCo; SSL4MIS counts the background there, too.
    smooth: e. A class that neither map has gives 0.
    Returns the mean over the classes that count, a scalar in [0, 1].

    Raises:
        UsageError: shapes do not fit.
    """
    check_maps(probability)
    _check_mask(probability, target)
    p = wide(probability)
    classes = p.shape[1]
    first = 0 if background and classes > 2 else 1
    numbers = torch.arange(first, classes, device=p.device).view(1, -1, *[1] * (p.ndim - 2))
    p, g = p[:, first:], (target[:, None] == numbers)
    over = [0, *range(2, p.ndim)]
    shared = (p * g).sum(over)
    total = p.square().sum(over) + g.sum(over)
    return (1 - (2 * shared + smooth) / (total + smooth)).mean()


def segmentation_loss(logits: Tensor, target: Tensor, *, background: bool = False) -> Tensor:
    """0.5 (cross-entropy + `soft_dice`), what the labelled half of a batch is trained with.

    So it is in the released code of UA-MT (Yu et al., 2019, arXiv 1907.07034), TraCoCo (Liu et al., 2022,
    arXiv 2203.14523) and SSL4MIS (but for two classes, see `soft_dice`).

    logits: (B, K, *space). target: (B, *space) int64. background: see `soft_dice`.
    Returns a scalar of at least 0.

    Raises:
        UsageError: shapes do not fit.
    """
    check_maps(logits)
    _check_mask(logits, target)
    log_p = wide(logits).log_softmax(1)
    return 0.5 * (F.nll_loss(log_p, target) + soft_dice(log_p.exp(), target, background=background))


def confident_cross_entropy(
    student: Tensor, teacher: Tensor, *, threshold: float = 0.65, negative: float = 0.1
) -> Tensor:
    """TraCoCo's confident cross-entropy (Liu et al., 2022, arXiv 2203.14523), from its released code.

    It is CBC in the first version of the paper (cross-model confident binary cross-entropy) and CRC in the
    later ones (confident regional cross-entropy): `cbc` and `crc` are this function. With p the teacher's
    probabilities, y = argmax p, and q the student's, per voxel of the whole batch:

        mean over { max p >= threshold } of  max p * -log q_y
      + mean over { min p <  negative  } of  min p * mean over c != y of -log max(1 - q_c, 1e-6)

    Each mean is over its own set, and 0 if that is empty. Of two classes 1 - q_c = q_y, so the second term
    is the first once more, on the surest voxels with weight min p; this is the released code's value. For
    more classes the second term is a guess at what was meant: the only released code that has it negates a
    one-hot mask bit by bit, so that it pushes the pseudo-class itself down, and divides by K. Here
    the pseudo-class is left out and the divisor is the K - 1 others, the form that agrees with two classes.

    student, teacher: (B, K, *space) logits, finite; the teacher gets no gradient.
    Returns a scalar of at least 0, in nats; 0 with a gradient of 0 where no voxel is in either set.

    Raises:
        UsageError: shapes do not fit.
    """
    _check_pair(student, teacher)
    with torch.no_grad():
        label, weight, weight_not = _confidence(wide(teacher), threshold, negative)
    log_q, log_not = _log_probabilities(wide(student), label)
    # 0 minus, because an empty set would be shown as -0
    return 0 - ((weight * log_q).sum() + (weight_not * log_not).sum())


cbc = crc = confident_cross_entropy


def cross_pseudo_supervision(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy with the other network's hard labels (CPS, Chen et al., 2021, arXiv 2106.01226).

    student, teacher: (B, K, *space) logits; the teacher gets no gradient.
    Returns the mean over all voxels, a scalar of at least 0, in nats.

    Raises:
        UsageError: shapes do not fit.
    """
    _check_pair(student, teacher)
    # max, because argmax over the second axis takes eight times as long on a CPU
    return F.cross_entropy(wide(student), teacher.detach().max(1).indices)


def masked_squared_difference(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """sum M (p - q)^2 / (K sum M + 1e-16), the consistency of UA-MT and, without a mask, of Mean Teacher.

    UA-MT: Yu et al., 2019, arXiv 1907.07034, from its released code, whose constant 2 is K here. Mean
    Teacher: Tarvainen and Valpola, 2017, arXiv 1703.01780.

    student, teacher: (B, K, *space) logits; p and q are their softmax, and the teacher gets no gradient.
    mask: (B, *space) bool, or None for all voxels.
    Returns a scalar in [0, 2 / K]; 0 where the mask is empty.

    Raises:
        UsageError: shapes do not fit.
    """
    _check_pair(student, teacher)
    each = (wide(student).softmax(1) - wide(teacher.detach()).softmax(1)).square()
    if mask is None:
        return each.mean()
    _check_mask(student, mask, "mask")
    kept = mask.to(each.dtype)
    return (each * kept[:, None]).sum() / (student.shape[1] * kept.sum() + 1e-16)


def predictive_entropy(probability: Tensor) -> Tensor:
    """- sum_c p_c log(p_c + 1e-6) per voxel, UA-MT's uncertainty (Yu et al., 2019, arXiv 1907.07034).

    probability: (B, K, *space), the mean over passes of the teacher's softmax.
    Returns (B, *space), in nats: from -1e-6 to log K - K 1e-6. The constant is the released code's.

    Raises:
        UsageError: the shape is none of maps.
    """
    check_maps(probability)
    p = wide(probability)
    return -(p * (p + 1e-6).log()).sum(1)


def uncertainty_threshold(progress: float, classes: int = 2) -> float:
    """(0.75 + 0.25 r(progress)) log K: UA-MT keeps voxels whose `predictive_entropy` lies below it.

    Yu et al., 2019, arXiv 1907.07034; r is `gaussian_ramp` over the whole run. The released code has log 2
    whatever K is; log K is our guess for more classes.

    progress: step / total, from 0 to 1.

    Raises:
        UsageError: progress is below 0 or no number, or there are fewer than two classes.
    """
    if classes < 2:
        raise UsageError(f"uncertainty_threshold: classes must be at least 2, not {classes}")
    return (0.75 + 0.25 * gaussian_ramp(progress, 1.0)) * math.log(classes)


def pyramid_consistency(maps: Sequence[Tensor]) -> Tensor:
    """Uncertainty-rectified pyramid consistency (URPC, Luo et al., 2021, arXiv 2012.07042).

    With p_s the probabilities of scale s and pbar their mean, per scale, as the released code has it:

        V_s = KL(pbar || p_s) per voxel,   w_s = exp(-V_s)
        L_s = mean((pbar - p_s)^2 w_s) / (mean w_s + 1e-8) + mean V_s

    maps: at least one (B, K, *space), logits of each scale brought to one size. Nothing is detached: pbar and
        w_s get gradient too.
    Returns the mean over scales, a scalar of at least 0 but for rounding; 0 where all maps agree.

    Raises:
        UsageError: no map, or shapes differ.
    """
    if not maps:
        raise UsageError("pyramid_consistency needs the logits of at least one scale, got none")
    for one in maps:
        _check_pair(maps[0], one)
    log_p = torch.stack([wide(one).log_softmax(1) for one in maps])
    p = log_p.exp()
    log_mean = log_p.logsumexp(0) - math.log(len(maps))
    mean = log_mean.exp()
    apart = (mean * (log_mean - log_p)).sum(2, keepdim=True)  # (S, B, 1, *space)
    weight = (-apart).exp()
    within = list(range(1, p.ndim))
    squared = ((mean - p).square() * weight).mean(within) / (weight.mean(within) + 1e-8)
    return (squared + apart.mean(within)).mean()


def _confidence(teacher: Tensor, threshold: float, negative: float) -> tuple[Tensor, Tensor, Tensor]:
    """(B, 1, *space) each: the teacher's class, int64, and weights that turn sums into means over the sets.

    Weights in place of a selection, because picking out voxels copies them and waits for their number.
    """
    if teacher.shape[1] == 2:
        lead = teacher[:, 1:] - teacher[:, :1]
        label, most, least = (lead > 0).long(), lead.abs().sigmoid(), (-lead.abs()).sigmoid()
    else:
        p = teacher.softmax(1)
        (most, label), least = p.max(1, keepdim=True), p.amin(1, keepdim=True)
    sure, surely_not = most >= threshold, least < negative
    return (
        label,
        most * sure / sure.sum().clamp_min(1),
        least * surely_not / surely_not.sum().clamp_min(1),
    )


def _log_probabilities(student: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, *space) each: log q_y, and the mean over c != y of log max(1 - q_c, 1e-6)."""
    classes = student.shape[1]
    if classes == 2:
        # all follows from the difference of the logits, in less than half of the time of a softmax
        log_q = F.logsigmoid((2 * label - 1) * (student[:, 1:] - student[:, :1]))
        return log_q, log_q.clamp_min(math.log(_LEAST))
    log_q = student.log_softmax(1)
    numbers = torch.arange(classes, device=label.device).view(1, -1, *[1] * (student.ndim - 2))
    log_not = (1 - log_q.exp()).clamp_min(_LEAST).log() * (label != numbers)
    return log_q.gather(1, label), log_not.sum(1, keepdim=True) / (classes - 1)


def check_maps(maps: Tensor) -> None:
    """Raise UsageError unless these are (B, K, *space) with 2 or 3 spatial axes, K >= 2 and any voxel."""
    if maps.ndim not in (4, 5) or maps.shape[1] < 2 or not maps.numel():
        raise UsageError(
            "maps must be (B, K, *space) with two or three spatial axes, K at least 2 and a voxel or more, "
            f"got {tuple(maps.shape)}"
        )


def _check_pair(a: Tensor, b: Tensor) -> None:
    check_maps(a)
    if a.shape != b.shape:
        raise UsageError(f"maps must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")


def _check_mask(maps: Tensor, mask: Tensor, name: str = "target") -> None:
    if mask.shape != maps.shape[:1] + maps.shape[2:]:
        raise UsageError(
            f"{name} must have one value per voxel, {tuple(maps.shape[:1] + maps.shape[2:])}, "
            f"got {tuple(mask.shape)}"
        )
