"""Masks that hide parts of volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tacit.errors import UsageError, unknown
from tacit.rng import Rng


def block_mask(
    count: int,
    size: Sequence[int],
    block: int,
    ratio: float,
    rng: Rng,
    index: Tensor,
    shape: Literal["column", "cube"] = "column",
) -> Tensor:
    """Which voxels are hidden: random blocks, exactly ceil(ratio n) of the n of each sample.

    "column", the masks of Alice (Jiang et al., 2023, arXiv 2302.05615, from its released code): blocks of
    block x block in the x-y plane, hidden along the whole z axis. "cube": blocks of block^3.

    count: B. size: X, Y, Z. block: side in voxels; the last block of an axis may be cut off. ratio: 0 to 1.
    index: (B,) int64 sample numbers; a mask depends on its own number only.
    Returns (B, 1, X, Y, Z) bool on the index's device, true where hidden.

    Raises:
        UsageError: an unknown shape, a ratio or block out of range, or not one index per sample.
    """
    if shape not in ("column", "cube"):
        raise unknown("shape of a mask", shape, ("column", "cube"))
    if not 0 <= ratio <= 1 or block < 1:
        raise UsageError(f"mask: ratio must be from 0 to 1 and block at least 1, not {ratio} and {block}")
    if len(index) != count:
        raise UsageError(f"mask: index must have one number per sample, {count}, got {len(index)}")
    x, y, z = size
    blocks = [-(-x // block), -(-y // block), -(-z // block) if shape == "cube" else 1]
    n = math.prod(blocks)
    # less a little, so that 0.07 * 100, which is above 7 in binary, gives 7
    hidden = math.ceil(ratio * n - 1e-9)
    first = rng.bits(index, n).argsort(1)[:, :hidden]
    pattern = torch.zeros(count, n, dtype=torch.bool, device=index.device).scatter_(1, first, True)
    mask = pattern.view(count, 1, *blocks)
    for axis, side in enumerate((x, y, z), 2):
        repeats = z if axis == 4 and shape == "column" else block
        mask = mask.repeat_interleave(repeats, axis).narrow(axis, 0, side)
    return mask.contiguous()
