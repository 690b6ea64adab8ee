"""Slices of volumes as images, and which of a volume's slices to take or to hide."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.rng import Rng


def draw_slices(index: Tensor, rng: Rng, count: int, slices: int) -> Tensor:
    """`count` different ones of each volume's `slices`, ascending: (B, count) int64, all sets equally likely.

    index: (B,) int64 sample numbers; a choice depends on its own number only.
    """
    if not 1 <= count <= slices:
        raise UsageError(f"{count} slices cannot be drawn from {slices}: choose 1 to {slices}")
    return rng.uniform(index, slices).argsort(stable=True, dim=1)[:, :count].sort(1).values


def draw_mask(index: Tensor, rng: Rng, ratio: float, slices: int) -> Tensor:
    """(B, slices) bool: which slices to hide, ceil(ratio x slices) of each volume (7 of 64 at 0.1).

    index: (B,) int64 sample numbers. ratio: 0 to 1.
    """
    if not 0 <= ratio <= 1:
        raise UsageError(f"mask_ratio must lie in [0, 1], not {ratio}")
    count = ceil(ratio * slices - 1e-9)  # a product such as 0.1 * 70 may lie a bit above the whole number
    hidden = torch.zeros(len(index), slices, dtype=torch.bool, device=index.device)
    return hidden.scatter_(1, draw_slices(index, rng, count, slices), True) if count else hidden


def slice_images(volumes: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Slices along the last axis as square images, with their true sizes for `augment_images`.

    volumes: (B, C, X, Y, N) floating. which: (B, k) int64, numbers of slices.

    Returns (B k, C, S, S), S the longer of X and Y, to which the shorter is resampled, and (B k, 2) float32,
    the true height X and width Y.
    """
    rows = torch.arange(len(volumes), device=volumes.device)[:, None]
    images = volumes.movedim(-1, 1)[rows, which].flatten(0, 1)
    sides = images.shape[2:]
    true_size = images.new_tensor(sides, dtype=torch.float32).expand(len(images), 2)
    if sides[0] != sides[1]:
        images = F.interpolate(images, size=(max(sides),) * 2, mode="bilinear", align_corners=False)
    return images, true_size
