"""Random views that keep what an image shows, for semi-supervised classifiers (`warp_images`).

A weak view of a digit or a radiograph may turn, grow and shift a little, but a crop of 8 % of its area, as
`augment_images` takes it, would no longer show the class. In order: the central square of the true image,
resized as `centre_view` does; mirror, zoom, rotation and shift about its centre in one bilinear resampling;
brightness; contrast; gamma; clamp to 0..1; RandAugment; noise; normalise; cutout. All work on whole
batches, on the device where the images are. Every draw is a function of the generator and the sample's
number, whatever else is in the batch. What has no strength is neither drawn nor done, so that a still warp
is `centre_view`, bit for bit.

- What moves in from outside the square is its mirror image (reflected at the pixels' edges, so that the
  edge pixel comes twice), not black: no network should learn to see how far an image was turned.
- Images are first brought to the view's size, with antialiasing, then moved. Where the stored image is
  larger this is one interpolation more than needed, but a moved view is then as smooth as a still one.
  Zooming out is not antialiased: at factors above 0.5 no pixel is skipped.
- Noise is not clamped, so that it has a mean of 0 in black and white pixels, too. Cutout erases it.

Tolerances, stated and tested, in float32 on the CPU: turns by 90 degrees, mirrors and whole-pixel shifts
move the pixels of `centre_view` within 2e-5; a sample's choices are the same bits in every batch, its
pixels the same within 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.affine import affine_maps, move
from tacit.views.banded import banded_product
from tacit.views.colour import Normal, normalise_
from tacit.views.draw import between, chosen
from tacit.views.noise import pixel_noise
from tacit.views.randaugment import draw_operations, randaugment
from tacit.views.resample import centre_boxes, check_images, crop_bands

# Bytes of float32 pixels that are worked on at a time, see `tacit.views.image`.
_CHUNK_CPU = 2**20
_CHUNK_OTHER = 2**28


@dataclass(frozen=True)
class Warp:
    """How a random view is made that shows what the image shows. The defaults are safe for most pictures.

    Args:
        rotate: the image turns by up to this many degrees either way, at most 180.
        quarter_turns: probability of turning it by 0, 90, 180 or 270 degrees besides, all four alike; for
            pictures that have no top.
        zoom: the image is magnified by 1 - this to 1 + this; below 1.
        shift: the image moves by up to this part of its side, down or up and right or left, at most 1;
            by whole pixels of the view if it neither turns nor zooms, so that nothing is blurred.
        flip: probability of mirroring left to right; digits and most medical images must not.
        brightness: the brightness is multiplied by 1 - this to 1 + this, but not by less than 0.
        contrast: differences from the image's mean are multiplied by 1 - this to 1 + this, but not by
            less than 0.
        gamma: smallest and largest exponent of the values, which are from 0 to 1.
        gamma_probability: probability of applying such an exponent.
        noise: largest standard deviation of the Gaussian noise, in units of the range from 0 to 1.
        noise_floor: smallest standard deviation of the noise as a part of the largest; 1 for noise of one
            strength, 0 for noise from none to the largest.
        noise_probability: probability of noise.
        cutout: side of a square that is erased, as a part of the view's side, at most 1. Its centre is
            uniform over the view, and what lies outside of it is not erased.
        randaugment: number of RandAugment's operations after gamma, see `tacit.views.randaugment`.
        per_channel: whether every channel makes choices of its own, as if it were an image: for channels
            that are different pictures, such as the two patches of a knee in Semixup.
    """

    rotate: float = 5.0
    quarter_turns: float = 0.0
    zoom: float = 0.1
    shift: float = 0.05
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    gamma_probability: float = 0.5
    noise: float = 0.0
    noise_floor: float = 1.0
    noise_probability: float = 1.0
    cutout: float = 0.0
    randaugment: int = 0
    per_channel: bool = False

    def __post_init__(self) -> None:
        _check("rotate", self.rotate, 180)
        for name in (
            "shift",
            "quarter_turns",
            "flip",
            "gamma_probability",
            "noise_floor",
            "noise_probability",
            "cutout",
        ):
            _check(name, getattr(self, name), 1)
        for name in ("brightness", "contrast", "noise"):
            _check(name, getattr(self, name), float("inf"))
        if not 0 <= self.zoom < 1:
            raise UsageError(f"warp.zoom must be at least 0 and below 1, not {self.zoom}")
        if self.randaugment < 0:
            raise UsageError(f"warp.randaugment must be at least 0 operations, not {self.randaugment}")
        if len(self.gamma) != 2 or not 0 < self.gamma[0] <= self.gamma[1] or not isfinite(self.gamma[1]):
            raise UsageError(
                f"warp.gamma must be two numbers above 0, the smaller first, not {list(self.gamma)}"
            )


def _check(name: str, value: float, high: float) -> None:
    if not (0 <= value <= high and isfinite(value)):
        allowed = f"from 0 to {high}" if isfinite(high) else "at least 0"
        raise UsageError(f"warp.{name} must be {allowed}, not {value}")


WEAK = Warp()
"""A weak view where nothing is known of the pictures: it turns, grows and shifts a little (our choice)."""

STRONG = Warp(rotate=15.0, zoom=0.15, shift=0.1, brightness=0.3, contrast=0.4, cutout=0.25)
"""A strong view where nothing is known of the pictures (our choice)."""

KNEE = Warp(
    rotate=10.0,
    zoom=0.0,
    shift=0.025,
    gamma=(2 / 3, 2.0),
    noise=0.04,
    noise_floor=0.0,
    noise_probability=0.5,
    per_channel=True,
)
"""Semixup's view of radiographs (Nguyen et al., 2020, arXiv 2003.01944; strengths from its code). What the
authors' transforms (SOLT) call a gamma of 0.5 to 1.5 is an exponent of its inverse; ours is uniform between
the same ends. What they call a gain g of the noise, up to 0.3, blends the image with a share g of noise
stretched to the range from 0 to 1, whose standard deviation there is 0.127 at 128 px; ours has the standard
deviation of that, up to 0.04, and does not pale the image."""

NATURAL_WEAK = Warp(rotate=0.0, zoom=0.0, shift=0.125, flip=0.5, noise=0.0)
"""A weak view of photographs such as CIFAR's: a mirror, and a crop after padding by an eighth, as in the
classic semi-supervised setting (FixMatch: Sohn et al., 2020, arXiv 2001.07685)."""

NATURAL_STRONG = replace(NATURAL_WEAK, randaugment=2, cutout=0.5)
"""FixMatch's strong view of photographs: the weak one, two operations of RandAugment, then Cutout (DeVries
and Taylor, 2017, arXiv 1708.04552) of half a side."""


class WarpChoices(NamedTuple):
    """Every choice that was made for one random view of each of B images; None where none was to make.

    affine: (B, 2, 3) float32, where in the image each place (x, y, 1) of the view comes from; x to the
        right and y downwards are from -1 to 1 between the outer edges.
    light: (B, 2) float32, factors of brightness and contrast.
    gamma: (B,) float32, exponents; 1 changes nothing.
    operations: (B, n, 3) float32, see `tacit.views.randaugment.draw_operations`.
    noise: (B,) float32, standard deviations; 0 for no noise.
    hole: (B, 2, 2) int64: first row and column that are erased, and those behind the last.
    """

    affine: Tensor | None = None
    light: Tensor | None = None
    gamma: Tensor | None = None
    operations: Tensor | None = None
    noise: Tensor | None = None
    hole: Tensor | None = None

    def rows(self, rows: slice) -> WarpChoices:
        """The choices for some of the images."""
        return WarpChoices(*(None if part is None else part[rows] for part in self))


@torch.no_grad()
def warp_images(
    images: Tensor,
    true_size: Tensor,
    index: Tensor,
    rng: Rng,
    *,
    size: int,
    warp: Warp,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
) -> Tensor:
    """One random view of each image that shows what the image shows, (B, C, size, size) float32, normalised.

    Args:
        images: (B, C, S, S), uint8 from 0 to 255 or floating from 0 to 1, of any strides.
        true_size: (B, 2) float32, height and width of each image in pixels before it was made square.
        index: (B,) int64 sample numbers; with `rng` they determine every choice.
        rng: the place of this view; another view needs another place.
        size: side of the views in pixels.
        warp: how a view is made.
        mean: per channel, subtracted after the noise.
        std: per channel, divided by after the noise.

    Raises:
        UsageError: shapes, types or numbers that do not fit together.
    """
    check_images(images, true_size, size)
    if index.shape != images.shape[:1]:
        raise UsageError(f"index must be one number per image, ({len(images)},), not {tuple(index.shape)}")
    batch, channels = images.shape[:2]
    normal = Normal.of(mean, std, channels)
    if warp.per_channel:
        images = images.flatten(0, 1)[:, None]
        true_size = true_size.repeat_interleave(channels, 0)
        index = (index[:, None] * channels + torch.arange(channels, device=index.device)).flatten()
    choices = draw_choices(index, rng, warp, size, images.shape[1])
    views = render(images, true_size, index, choices, rng("pixels"), size=size, normal=normal)
    return views.view(batch, channels, size, size)


def draw_choices(index: Tensor, rng: Rng, warp: Warp, size: int, channels: int = 3) -> WarpChoices:
    """Every choice for one random view of each image; what has no strength is not drawn.

    index: (B,) int64 sample numbers; a choice depends on its own number only.
    size: side of the view in pixels, on which whole-pixel shifts and the cutout depend. channels: of the
    images, on which RandAugment's operations depend.
    """
    light = gamma = operations = noise = hole = None
    if warp.brightness or warp.contrast:
        light = rng("light").uniform(index, 2)
        for column, width in zip(light.unbind(1), (warp.brightness, warp.contrast), strict=True):
            column.copy_(between(column, (max(0.0, 1 - width), 1 + width)))
    if tuple(warp.gamma) != (1.0, 1.0) and warp.gamma_probability:
        draw = rng("gamma").uniform(index, 2)
        gamma = between(draw[:, 1], warp.gamma).where(draw[:, 0] < warp.gamma_probability, 1.0)
    if warp.randaugment:
        operations = draw_operations(index, rng("randaugment"), warp.randaugment, channels)
    if warp.noise and warp.noise_probability:
        draw = rng("noise").uniform(index, 2)
        noise = between(draw[:, 1], (warp.noise * warp.noise_floor, warp.noise))
        noise *= draw[:, 0] < warp.noise_probability
    if warp.cutout:
        side = max(1, round(warp.cutout * size))
        first = (rng("cutout").uniform(index, 2) * size).long() - side // 2
        hole = torch.stack([first, first + side], 1)
    return WarpChoices(_draw_affine(index, rng, warp, size), light, gamma, operations, noise, hole)


def _draw_affine(index: Tensor, rng: Rng, warp: Warp, size: int) -> Tensor | None:
    if not (warp.rotate or warp.quarter_turns or warp.zoom or warp.shift or warp.flip):
        return None
    draw = rng("place").uniform(index, 4)
    angle = between(draw[:, 0], (-warp.rotate, warp.rotate))
    if warp.quarter_turns:
        turned = rng("quarter turns").uniform(index, 2)
        angle = angle + 90 * (4 * turned[:, 1]).floor() * (turned[:, 0] < warp.quarter_turns)
    turns = warp.rotate or warp.zoom
    steps = round(warp.shift * size)
    shift = between(draw[:, 2:], (-warp.shift, warp.shift))
    return affine_maps(
        angle,
        between(draw[:, 1], (1 - warp.zoom, 1 + warp.zoom)),
        shift if turns else ((draw[:, 2:] * (2 * steps + 1)).floor_() - steps) / size,
        chosen(index, rng("flip"), warp.flip),
    )


@torch.no_grad()
def render(
    images: Tensor,
    true_size: Tensor,
    index: Tensor,
    choices: WarpChoices,
    rng: Rng,
    *,
    size: int,
    normal: Normal,
) -> Tensor:
    """The views with these choices, (B, C, size, size) float32, as much at a time as the caches hold.

    index: (B,) int64 sample numbers; with `rng` they determine the pixels' noise.
    normal: of C channels, or of those that every k images of one channel were made of.
    """
    batch, channels, side = images.shape[:3]
    result = torch.empty(batch, channels, size, size, device=images.device)
    bands = crop_bands(images, centre_boxes(true_size), true_size, None, size)
    budget = _CHUNK_CPU if images.device.type == "cpu" else _CHUNK_OTHER
    planes = len(normal.mean) // channels
    count = planes * max(1, budget // (4 * planes * channels * max(size, side) ** 2))
    for start in range(0, batch, count):
        rows = slice(start, start + count)
        views = banded_product(images[rows], *(band.of(rows) for band in bands))
        _finish(result[rows], views, index[rows], choices.rows(rows), rng, normal)
    return result


def _finish(
    out: Tensor, views: Tensor, index: Tensor, choices: WarpChoices, rng: Rng, normal: Normal
) -> None:
    """Everything after the resizing, into `out`."""
    if choices.affine is not None:
        views = move(views, choices.affine)
    if choices.light is not None:
        relight_(views, *choices.light.unbind(1))
    if choices.gamma is not None:
        which = (choices.gamma != 1).nonzero()[:, 0]
        some = views.index_select(0, which).clamp_(0, 1)
        views.index_copy_(0, which, some.pow_(choices.gamma[which, None, None, None]))
    if choices.operations is not None:
        views = randaugment(views, choices.operations)
    if choices.noise is not None:
        which = choices.noise.nonzero()[:, 0]
        noise = pixel_noise(index[which], views[0].numel(), rng).mul_(choices.noise[which, None])
        views.index_add_(0, which, noise.view(-1, *views.shape[1:]))
    out.copy_(views)
    normalise_(out.view(-1, len(normal.mean), *out.shape[2:]), normal)
    if choices.hole is not None:
        place = torch.arange(out.shape[-1], device=out.device)
        first, end = choices.hole.unbind(1)
        down, across = ((place >= first[..., None]) & (place < end[..., None])).unbind(1)
        out.masked_fill_(down[:, None, :, None] & across[:, None, None, :], 0.0)


def relight_(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Brightness, then contrast around each image's mean over pixels and channels, clamped to 0..1; in place.

    images: (B, C, S, S) float32. brightness, contrast: (B,) factors of at least 0. For one channel this is
    torchvision's adjust_brightness and adjust_contrast but for the clamping, here only at the end.
    """
    factor = (brightness * contrast)[:, None, None, None]
    rest = (brightness * (1 - contrast))[:, None, None, None] * images.mean((1, 2, 3), keepdim=True)
    return images.mul_(factor).add_(rest).clamp_(0, 1)
