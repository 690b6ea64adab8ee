"""Gaussian blur of a batch of images, each with its own width.

torchvision blurs a whole batch with one width, and its two-dimensional kernel costs kernel_size / 2
times as much as two one-dimensional ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.errors import UsageError
from tacit.views.banded import Band, banded_tiles, tile_side, untile


def usual_kernel_size(size: int) -> int:
    """The odd number nearest to a tenth of the image's side, at least 3 (Chen et al., 2020, appendix A).

    For images of one pixel, which have nothing to blur with, 1.
    """
    return 1 if size == 1 else max(3, size // 20 * 2 + 1)


@torch.no_grad()
def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Every image blurred with its own width, reflected at its edges; equals torchvision's to 1e-5.

    Args:
        images: (B, C, H, W) float32.
        sigma: (B,) float32, standard deviation of the Gaussian in pixels, above 0.
        kernel_size: odd; pixels further than half of it away count nothing.

    Raises:
        UsageError: the kernel is not odd or reaches beyond the reflection of the image.
    """
    height, width = images.shape[-2:]
    if kernel_size % 2 == 0 or not 0 < kernel_size < 2 * min(height, width):
        raise UsageError(
            f"kernel_size must be odd and below {2 * min(height, width)}, twice the shorter side of "
            f"images of {height} x {width} pixels, not {kernel_size}"
        )
    taps = _gaussian(sigma, kernel_size // 2)
    return untile(banded_tiles(images, _band(taps, height), _band(taps, width)))


def _gaussian(sigma: Tensor, reach: int) -> Tensor:
    """(B, reach + 2): the weights at distances 0 to `reach`, and a zero."""
    distance = torch.arange(reach + 1, device=sigma.device) / sigma[:, None]
    taps = (distance**2 / -2).exp_()
    taps /= 2 * taps.sum(1, keepdim=True) - 1  # both sides; the middle, which is 1, once
    return torch.nn.functional.pad(taps, (0, 1))


def _band(taps: Tensor, size: int) -> Band:
    reach, side, device = taps.shape[1] - 2, tile_side(size), taps.device
    seen = min(side + 2 * reach, size)
    output = torch.arange(size, device=device).view(-1, side)
    first = (output[:, 0] - reach).clamp_(0, size - seen)
    source = (first[:, None] + torch.arange(seen, device=device))[:, None]
    output = output[..., None]
    beyond = reach + 1
    # a pixel counts as itself and, but for the edge pixels, as its reflections at both edges
    before = torch.where(source > 0, output + source, beyond)
    after = torch.where(source < size - 1, 2 * (size - 1) - source - output, beyond)
    weights = sum(
        taps[:, distance.clamp(max=beyond)] for distance in ((output - source).abs(), before, after)
    )
    return Band(first.expand(len(taps), -1), weights)
