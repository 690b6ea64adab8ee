"""What a source's pixels are like."""

from __future__ import annotations

import numpy as np
import torch

from tacit.data.source import Source

_ENOUGH = 2048  # images; the mean of as many is known to a hundredth of their spread
_AT_ONCE = 64
_FLOOR = 1e-3  # of 1: constant images must not be divided by zero


def channel_statistics(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels in [0, 1], over up to 2,048 evenly spaced images."""
    chosen = np.linspace(0, len(source) - 1, min(len(source), _ENOUGH)).astype(np.int64)
    total = torch.zeros(2, source.spec.shape[0], dtype=torch.float64)
    for start in range(0, len(chosen), _AT_ONCE):
        pixels = source.batch(chosen[start : start + _AT_ONCE]).unlabelled.double() / 255
        total += torch.stack([pixels.mean((2, 3)).sum(0), pixels.square().mean((2, 3)).sum(0)])
    mean, square = total / len(chosen)
    std = (square - mean.square()).clamp_min(0).sqrt().clamp_min(_FLOOR)
    return tuple(mean.tolist()), tuple(std.tolist())
