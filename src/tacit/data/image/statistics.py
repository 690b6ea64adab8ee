"""What a source's pixels are like."""

from __future__ import annotations

import numpy as np
import torch

from tacit.data.source import Source

_ENOUGH = 2048  # images; the mean of as many is known to a hundredth of their spread
_AT_ONCE = 64
_FLOOR = 1e-3  # of 1: constant images must not be divided by zero


_LOOKS = 64  # images whose colours are measured
_GREY = 8  # of 255: what JPEG leaves between the channels of a grey picture


def colourful(source: Source) -> bool:
    """Whether images of three or four channels show colours; grey pictures are often saved as RGB.

    Up to 64 evenly spaced images are measured. An image has colours if its R, G and B differ by more than 8
    of 255 in a hundredth of its pixels; one such image in twenty is enough.
    """
    if source.spec.shape[0] not in (3, 4):
        return False
    chosen = np.linspace(0, len(source) - 1, min(len(source), _LOOKS)).astype(np.int64)
    rgb = source.batch(chosen).data[:, :3].int()
    spread = (rgb.amax(1) - rgb.amin(1) > _GREY).float().mean((1, 2))
    return bool((spread > 0.01).float().mean() >= 0.05)


def channel_statistics(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels in [0, 1], over up to 2,048 evenly spaced images."""
    chosen = np.linspace(0, len(source) - 1, min(len(source), _ENOUGH)).astype(np.int64)
    total = torch.zeros(2, source.spec.shape[0], dtype=torch.float64)
    for start in range(0, len(chosen), _AT_ONCE):
        pixels = source.batch(chosen[start : start + _AT_ONCE]).data.double() / 255
        total += torch.stack([pixels.mean((2, 3)).sum(0), pixels.square().mean((2, 3)).sum(0)])
    mean, square = total / len(chosen)
    std = (square - mean.square()).clamp_min(0).sqrt().clamp_min(_FLOOR)
    return tuple(mean.tolist()), tuple(std.tolist())
