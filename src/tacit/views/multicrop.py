"""Several crops of one image: large ones that see most of it, and small ones that see a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.image import Augment, augment_images


class Crops(NamedTuple):
    """Crops of B images: `large` (B, C, S, S) each, `small` (B, C, s, s) each; float32, normalised.

    index: (B,) int64, the images' positions in their source.
    """

    large: tuple[Tensor, ...]
    small: tuple[Tensor, ...]
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks of crops


@torch.no_grad()
def multi_crop(
    images: Tensor,
    true_size: Tensor,
    index: Tensor,
    rng: Rng,
    *,
    size: int,
    augment: Augment,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    large: int = 2,
    small: int = 0,
    small_size: float = 3 / 7,
    small_scale: tuple[float, float] = (0.05, 0.14),
) -> Crops:
    """Multi-crop (Caron et al., 2020, arXiv 2006.09882): large and small crops, all drawn independently.

    Args:
        images: (B, C, S, S), as `augment_images` takes them.
        true_size: (B, 2) float32, height and width of each image before it was made square.
        index: (B,) int64 sample numbers.
        rng: crop i of a kind is drawn at `rng(kind, i)`, so that one crop more leaves the others as they are.
        size: side of large crops in pixels.
        augment: how a large crop is made; small ones differ in their scale only.
        large: number of large crops, at least 1.
        small: number of small crops.
        small_size: side of small crops as a share of `size`, above 0 and at most 1 (96 / 224 in the paper).
        small_scale: smallest and largest area of small crops, as fractions of the image's.
        mean: per channel, subtracted last.
        std: per channel, divided by last.

    Raises:
        UsageError: a number out of range, or what `augment_images` raises.
    """
    if large < 1 or small < 0 or not 0 < small_size <= 1:
        raise UsageError(
            "multi-crop needs large >= 1, small >= 0 and 0 < small_size <= 1, "
            f"not {large}, {small} and {small_size}"
        )
    crops = {}
    kinds = (
        ("large", large, size, augment),
        ("small", small, max(1, round(small_size * size)), replace(augment, scale=small_scale)),
    )
    for kind, count, side, how in kinds:
        crops[kind] = tuple(
            augment_images(images, true_size, index, rng(kind, i), size=side, augment=how, mean=mean, std=std)
            for i in range(count)
        )
    return Crops(crops["large"], crops["small"], index)
