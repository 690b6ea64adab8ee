"""Translation consistency: two crops of one volume should be answered alike where they overlap.

TraCoCo (Liu et al., 2022, arXiv 2203.14523). Where the paper's wording and its released code differ, the
wording is the default and the code is `compat="official"`. Half precision is computed in float32; float64
stays float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError, unknown
from tacit.losses.consistency import wide
from tacit.losses.segmentation import check_maps


def overlap_ranges(offset: Tensor, patch: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where two crops of one size hold the same voxels.

    offset: (B, S) int64, start of the main crop minus start of the second, in voxels, of any sign.
    patch: S sides of both crops.
    Returns two (B, S, 2) int64, [start, stop) along each axis in the main and in the second crop: with o the
    offset and P the side, [max(0, -o), P - max(0, o)) and [max(0, o), P - max(0, -o)); empty, start = stop,
    where they do not overlap.

    Raises:
        UsageError: the offset is not (B, S).
    """
    if offset.ndim != 2 or offset.shape[1] != len(patch):
        raise UsageError(
            f"offset must be one row of {len(patch)} numbers per sample, got {tuple(offset.shape)}"
        )
    sides = torch.as_tensor(list(patch), dtype=torch.int64, device=offset.device)
    ahead = torch.minimum(offset.clamp_min(0), sides)
    behind = torch.minimum((-offset).clamp_min(0), sides)
    return torch.stack([behind, sides - ahead], 2), torch.stack([ahead, sides - behind], 2)


def overlaps(main: Tensor, second: Tensor, offset: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The parts of two maps that show the same voxels, sample by sample.

    main, second: (B, K, *space) of one network on two crops.
    offset: see `overlap_ranges`; it is read on the CPU.
    Returns one pair (K, *shared) per sample whose crops overlap: views into the maps, with gradient.

    A loop over samples, because overlaps are ragged; each is one slice, so that nothing is copied.

    Raises:
        UsageError: shapes do not fit.
    """
    check_maps(main)
    if main.shape != second.shape or len(offset) != len(main):
        raise UsageError(
            "translation: both maps must have one shape and one offset per sample, got "
            f"{tuple(main.shape)}, {tuple(second.shape)} and offsets {tuple(offset.shape)}"
        )
    ranges = [found.tolist() for found in overlap_ranges(offset.cpu(), main.shape[2:])]
    pairs = []
    # unbind, because the gradient of an indexed sample would be a tensor of zeros as large as the batch
    for a, b, of_a, of_b in zip(main.unbind(0), second.unbind(0), *ranges, strict=True):
        if all(start < stop for start, stop in of_a):
            pairs.append((a[_box(of_a)], b[_box(of_b)]))
    return pairs


def translation_consistency(
    main: Tensor,
    second: Tensor,
    offset: Tensor,
    *,
    compat: Literal[False, "official"] = False,
    detach_target: bool = False,
) -> Tensor:
    """KL of the second crop's answer from the main crop's, on the voxels that both show.

    With q the class probabilities of the main and p those of the second crop:

        mean over samples of  mean over shared voxels of  sum_c p_c (log p_c - log q_c)

    main, second: (B, K, *space) logits of one network on two crops of each sample; gradient into both, as in
        the released code. offset: (B, S) int64, start of the main crop minus start of the second.
    compat: "official" is what the released code computes: logits are first clamped to [1e-6, 1] (no gradient
        outside), the softmax runs along the first *spatial* axis in place of the classes, the mean also
        divides by K, and samples are summed. To weigh the default on that scale, multiply the
        published weight by B / K (0.3 becomes 0.6 for 4 samples of 2 classes).
    detach_target: no gradient into the second crop.
    Returns a scalar of at least 0, in nats. Samples without overlap are left out (of the mean, too); 0 if no
    sample has one.

    Raises:
        UsageError: shapes do not fit, or an unknown word.
    """
    if compat not in (False, "official"):
        raise unknown("compat", str(compat), ["official"])
    pairs = overlaps(main, second.detach() if detach_target else second, offset)
    if not pairs:
        return wide(main[:0]).sum()  # a zero that backward accepts
    if compat:
        return torch.stack([_official(wide(a), wide(b)) for a, b in pairs]).sum()
    return torch.stack([_kl(wide(a), wide(b)) for a, b in pairs]).mean()


def negative_entropy(maps: Sequence[Tensor], *, clamp: bool = False) -> Tensor:
    """mean over maps of  mean over voxels of  sum_c p_c log p_c: at most 0, to be added, raises entropy.

    TraCoCo adds it with a positive weight, so that two crops do not agree by being sure of one class
    everywhere; the weight is that of the paper, whose sign is written for a quantity to be maximised.

    maps: each (K, *space) logits, such as both of each pair that `overlaps` gives; sizes may differ.
    clamp: whether logits are first clamped to [1e-6, 1], as the released code does. Then p of two classes
        lies in [0.269, 0.731], and the result in [-0.6931, -0.5822].
    Returns a scalar in [-log K, 0], in nats; 0 without a map.
    """
    if not maps:
        return torch.zeros(())
    each = []
    for one in maps:
        log_p = (_clamped(wide(one)) if clamp else wide(one)).log_softmax(0)
        each.append((log_p.exp() * log_p).sum(0).mean())
    return torch.stack(each).mean()


def _box(ranges: Sequence[Sequence[int]]) -> tuple[slice, ...]:
    return slice(None), *(slice(start, stop) for start, stop in ranges)


def _kl(main: Tensor, second: Tensor) -> Tensor:
    """Both (K, *shared)."""
    log_q, log_p = main.log_softmax(0), second.log_softmax(0)
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True) / main[0].numel()


def _official(main: Tensor, second: Tensor) -> Tensor:
    log_q, log_p = (_clamped(one).log_softmax(1) for one in (main, second))
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True) / main.numel()


def _clamped(logits: Tensor) -> Tensor:
    return logits.clamp(1e-6, 1)
