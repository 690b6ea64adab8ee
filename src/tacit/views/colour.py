"""Colour jitter, greying and normalising of a batch of images as one affine map of each image's channels.

Brightness, contrast, saturation and hue are affine in a pixel's channels. Contrast also needs the
image's mean, but the mean goes through every step as a pixel does. So a pixel is split into the mean m
and its deviation d: brightness, saturation and hue are one matrix for both, while contrast c is c d for
the deviation and, like a saturation, a blend with grey for the mean. The product of the steps' matrices
in the image's own order, D for d and M for m, gives the whole change, x -> D (x - m) + M m, for one pass
over the pixels.

In two points this differs from torchvision's operations, which it equals otherwise:
- torchvision clamps to 0..1 after each step, here once after the last.
- torchvision shifts the hue of HSV, here colours turn about the grey axis; this is the same at shifts of
  0 and +-1/3 and keeps the mean of R, G and B in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from tacit.errors import UsageError
from tacit.rng import Rng

GREY = (0.2989, 0.587, 0.114)  # Rec. 601, to the digits that torchvision has
_ORDERS = torch.tensor(list(permutations(range(4))))


class Jitter(NamedTuple):
    """How each image's colours change. A factor of 1, a hue of 0 change nothing.

    brightness, contrast, saturation: (B,) float32 factors of at least 0.
    hue: (B,) float32, shift in turns, from -0.5 to 0.5.
    order: (B, 4) int64, what is done first to last: 0 brightness, 1 contrast, 2 saturation, 3 hue.
    grey: (B,) bool, which images lose their colour in the end.
    """

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    order: Tensor
    grey: Tensor


class ColourMatrices(NamedTuple):
    """The change of a batch's colours: a pixel x of an image with mean m becomes D (x - m) + M m.

    deviation: D, (B, C, C) float32.
    mean: M, (B, C, C) float32.
    """

    deviation: Tensor
    mean: Tensor


class Normal(NamedTuple):
    """What x -> (x - mean) / std takes, one number per channel each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor, channels: int) -> Normal:
        """Checked numbers.

        Raises:
            UsageError: not one number per channel, or a standard deviation that is not positive.
        """
        normal = cls(*(tuple(torch.as_tensor(x).reshape(-1).tolist()) for x in (mean, std)))
        if not len(normal.mean) == len(normal.std) == channels:
            raise UsageError(
                f"the images have {channels} channels, but mean has {len(normal.mean)} numbers "
                f"and std {len(normal.std)}: give one per channel"
            )
        if min(normal.std) <= 0:
            raise UsageError(f"every std must be above 0, not {min(normal.std)}")
        return normal

    @classmethod
    def none(cls, channels: int) -> Normal:
        """Numbers that change nothing."""
        return cls((0.0,) * channels, (1.0,) * channels)


def draw_jitter(
    index: Tensor,
    rng: Rng,
    *,
    probability: float,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    grayscale: float,
) -> Jitter:
    """Random colour changes, distributed as torchvision's ColorJitter and RandomGrayscale draw them.

    Args:
        index: (B,) int64 sample numbers; a change depends on its own number only.
        rng: where the draws come from.
        probability: of any change but greying, 0 to 1.
        brightness: half-width b of the factor's range, uniform from max(0, 1 - b) to 1 + b.
        contrast: the same of the contrast.
        saturation: the same of the saturation.
        hue: the shift is uniform from -hue to hue, in turns.
        grayscale: probability of greying, 0 to 1.
    """
    draw = rng.uniform(index, 7)
    widths = (brightness, contrast, saturation)
    low = draw.new_tensor([*(max(0.0, 1 - width) for width in widths), -hue])
    high = draw.new_tensor([*(1 + width for width in widths), hue])
    nothing = draw.new_tensor([1.0, 1.0, 1.0, 0.0])
    change = torch.where(draw[:, :1] < probability, torch.lerp(low, high, draw[:, 1:5]), nothing)
    order = _ORDERS.to(index.device)[(draw[:, 5] * len(_ORDERS)).long()]
    bright, contrasted, saturated, shift = change.unbind(1)
    return Jitter(bright, contrasted, saturated, shift, order, draw[:, 6] < grayscale)


def colour_matrices(jitter: Jitter, channels: int, colour: bool = True) -> ColourMatrices:
    """The matrices of a jitter for images with so many channels.

    Only three channels that are R, G and B (`colour`) have saturation, hue and a grey to lose their
    colour to. Other images have brightness and contrast alone, with the mean of the channels as grey.
    """
    rgb = colour and channels == 3
    factors = torch.stack(jitter[:4], 1)[..., None, None]
    one = torch.eye(channels, device=factors.device)
    grey = one.new_tensor(GREY if rgb else [1 / channels] * channels).expand(channels, channels)
    steps = factors * one  # (B, 4, C, C)
    if rgb:
        steps[:, 2] = torch.lerp(grey, one, factors[:, 2])
        steps[:, 3] = _hue_matrix(factors[:, 3], one)
    else:
        steps[:, 2:] = one
    of_mean = steps.clone()
    of_mean[:, 1] = torch.lerp(grey, one, factors[:, 1])
    # one table of all images' steps, as picking whole rows of it is ten times faster than indexing
    table = torch.stack([steps, of_mean], 2).flatten(0, 1)
    rank = torch.arange(0, len(table), 4, device=table.device)[:, None]
    picked = table.flatten(1).index_select(0, (rank + jitter.order).flatten())
    a, b, c, d = picked.view(-1, 4, *table.shape[1:]).unbind(1)  # (B, 2, C, C) each
    with torch.autocast(one.device.type, enabled=False):
        both = d @ c @ b @ a
        if rgb:
            both = torch.where(jitter.grey[:, None, None, None], grey @ both, both)
    return ColourMatrices(both[:, 0], both[:, 1])


def _hue_matrix(shift: Tensor, one: Tensor) -> Tensor:
    """Turns about (1, 1, 1), (B, 3, 3), for shifts (B, 1, 1), by Rodrigues' formula."""
    angle = 2 * math.pi * shift
    cosine = angle.cos()
    cross = (one.roll(1, 0) - one.roll(-1, 0)) / math.sqrt(3)  # of (1, 1, 1): R to G to B
    return cosine * (one - 1 / 3) + 1 / 3 + angle.sin() * cross


@torch.no_grad()
def apply_colour(images: Tensor, matrices: ColourMatrices, normal: Normal | None = None) -> Tensor:
    """The images with their colours changed, clamped to 0..1 and then, if asked for, normalised.

    Args:
        images: (B, C, H, W) float32 in 0..1.
        matrices: of the same B and C.
        normal: what to normalise with, in the same pass over the pixels.
    """
    return recolour(images, matrices, normal or Normal.none(images.shape[1]), torch.empty_like(images))


def recolour(images: Tensor, matrices: ColourMatrices, normal: Normal, out: Tensor) -> Tensor:
    """`apply_colour` into `out`, which is contiguous."""
    flat, result = images.flatten(2), out.flatten(2)
    mean, std = flat.new_tensor([normal.mean, normal.std])[:, :, None]
    matrix = matrices.deviation / std
    with torch.autocast(images.device.type, enabled=False):
        shift = (matrices.mean / std - matrix) @ flat.mean(2, keepdim=True) - mean / std
        torch.baddbmm(shift, matrix, flat, out=result)
    for channel, (centre, spread) in enumerate(zip(*normal, strict=True)):
        # one channel at a time, as bounds that are tensors are ten times slower on the CPU
        result[:, channel].clamp_(-centre / spread, (1 - centre) / spread)
    return out


def normalise_(images: Tensor, normal: Normal) -> Tensor:
    """(x - mean) / std of every channel, in place; (..., C, H, W) float32."""
    mean, std = images.new_tensor(normal.mean), images.new_tensor(normal.std)
    return images.sub_(mean[:, None, None]).div_(std[:, None, None])


def solarise(images: Tensor, threshold: float) -> Tensor:
    """Values of at least `threshold` inverted, x -> 1 - x; images in 0..1, of any shape."""
    return torch.where(images >= threshold, 1 - images, images)
