"""Views of images: random ones to learn from (`augment_images`), the still one to evaluate (`centre_view`).

The steps of a random view, in order: crop, resize and mirror (`resample`); brightness, contrast,
saturation and hue in an order of the image's own; greying (`colour`); clamp to 0..1; blur (`blur`);
solarise; normalise. All work on whole batches, on the device where the images are, and draw from
(generator, sample number): a sample's view does not depend on the batch it is in.

Tolerances, stated and tested (values from 0 to 1, float32 on the CPU):

- resampling: 1e-4 from torchvision's `resized_crop(antialias=True)` on floating images, 1/255 + 1e-4
  from it on uint8 images, where the store has the true size;
- colours: 1e-5 from torchvision's adjustments one after another while these clamp nothing and turn no
  hue; MEASURED
- blur: 1e-5 from torchvision's `gaussian_blur`; solarising: exact;
- a sample's draws are bit-identical in every batch, its pixels equal to 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.banded import untile
from tacit.views.blur import gaussian_blur, usual_kernel_size
from tacit.views.colour import (
    ColourMatrices,
    Normal,
    colour_matrices,
    draw_jitter,
    normalise_,
    recolour,
    solarise,
)
from tacit.views.draw import between, chosen
from tacit.views.resample import centre_boxes, crop_boxes, resampled_tiles

# Bytes of float32 pixels worked on at a time: on the CPU what its caches hold, elsewhere what is small
# beside the memory of any device.
_CHUNK_CPU = 2**19
_CHUNK_OTHER = 256 * 2**20


@dataclass(frozen=True)
class Augment:
    """How a random view of an image is made. The defaults are SimCLR's without blur.

    Args:
        scale: smallest and largest area of the crop, as fractions of the image's.
        ratio: smallest and largest width / height of the crop.
        flip: probability of mirroring left to right.
        jitter: probability of changing brightness, contrast, saturation and hue.
        brightness: the brightness is multiplied by 1 - this to 1 + this.
        contrast: the contrast is multiplied by 1 - this to 1 + this.
        saturation: the saturation is multiplied by 1 - this to 1 + this.
        hue: the hue turns by up to this part of the colour wheel either way, at most 0.5.
        grayscale: probability of taking the colour out.
        blur: probability of a Gaussian blur, whose kernel spans a tenth of the view.
        blur_sigma: smallest and largest standard deviation of the blur, in pixels of the view.
        solarise: probability of inverting the bright pixels.
        solarise_threshold: which pixels are bright, 0 to 1.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0
    solarise_threshold: float = 0.5

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grayscale", "blur", "solarise", "solarise_threshold"):
            _check(name, getattr(self, name), 0, 1)
        for name in ("brightness", "contrast", "saturation"):
            _check(name, getattr(self, name), 0, float("inf"))
        _check("hue", self.hue, 0, 0.5)
        _check_range("scale", self.scale, 1.0)
        _check_range("ratio", self.ratio, float("inf"))
        _check_range("blur_sigma", self.blur_sigma, float("inf"))


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (low <= value <= high and isfinite(value)):
        allowed = f"from {low} to {high}" if isfinite(high) else f"at least {low}"
        raise UsageError(f"augment.{name} must be {allowed}, not {value}")


def _check_range(name: str, value: tuple[float, float], high: float) -> None:
    if len(value) != 2 or not 0 < value[0] <= value[1] <= high or not isfinite(value[1]):
        most = f", the larger at most {high:g}" if isfinite(high) else ""
        raise UsageError(
            f"augment.{name} must be two numbers above 0, the smaller first{most}, not {list(value)}"
        )


class ImageViews(NamedTuple):
    """Every choice that was made for one random view of each of B images; None where none was to make."""

    boxes: Tensor  # (B, 4) float32: top, left, height, width in pixels of the true image
    flip: Tensor | None  # (B,) bool
    colours: ColourMatrices | None
    sigma: Tensor | None  # (B,) float32, of the blur, in pixels of the view; 0 for no blur
    solarise: Tensor | None  # (B,) bool


@torch.no_grad()
def augment_images(
    images: Tensor,
    true_size: Tensor,
    index: Tensor,
    rng: Rng,
    *,
    size: int,
    augment: Augment,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    colour: bool = True,
) -> Tensor:
    """One random view of each image, (B, C, size, size) float32, normalised.

    Args:
        images: (B, C, S, S), uint8 from 0 to 255 or floating from 0 to 1, of any strides.
        true_size: (B, 2) float32, height and width of each image in pixels before it was made square;
            crops are drawn in this geometry.
        index: (B,) int64 sample numbers; with `rng` they determine every choice.
        rng: the place of this view; another view needs another place.
        size: side of the views in pixels.
        augment: how a view is made.
        mean: per channel, subtracted last.
        std: per channel, divided by last.
        colour: whether three channels are R, G and B; see `colour_matrices`.

    Raises:
        UsageError: shapes, types or numbers that do not fit together.
    """
    _check_images(images, true_size, size)
    if index.shape != images.shape[:1]:
        raise UsageError(f"index must be one number per image, ({len(images)},), not {tuple(index.shape)}")
    normal = Normal.of(mean, std, images.shape[1])
    views = draw_views(true_size, index, rng, augment, images.shape[1], colour)
    return render(images, true_size, views, size=size, threshold=augment.solarise_threshold, normal=normal)


@torch.no_grad()
def centre_view(
    images: Tensor,
    true_size: Tensor,
    *,
    size: int,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
) -> Tensor:
    """The central square of each image, its side the true image's shorter one, normalised.

    Nothing is cut off a square image: what is to be recognised may fill it. See `augment_images` for
    arguments, result and errors.
    """
    _check_images(images, true_size, size)
    normal = Normal.of(mean, std, images.shape[1])
    views = ImageViews(centre_boxes(true_size), None, None, None, None)
    return render(images, true_size, views, size=size, normal=normal)


def draw_views(
    true_size: Tensor, index: Tensor, rng: Rng, augment: Augment, channels: int, colour: bool = True
) -> ImageViews:
    """Every choice for one random view of each image; what has no probability is not drawn."""
    matrices = None
    if augment.jitter or (augment.grayscale and colour and channels == 3):
        jitter = draw_jitter(
            index,
            rng("colour"),
            probability=augment.jitter,
            brightness=augment.brightness,
            contrast=augment.contrast,
            saturation=augment.saturation,
            hue=augment.hue,
            grayscale=augment.grayscale,
        )
        matrices = colour_matrices(jitter, channels, colour)
    sigma = None
    if augment.blur:
        draw = rng("blur").uniform(index, 2)
        sigma = between(draw[:, 1], augment.blur_sigma) * (draw[:, 0] < augment.blur)
    return ImageViews(
        boxes=crop_boxes(true_size, index, rng("crop"), augment.scale, augment.ratio),
        flip=chosen(index, rng("flip"), augment.flip),
        colours=matrices,
        sigma=sigma,
        solarise=chosen(index, rng("solarise"), augment.solarise),
    )


@torch.no_grad()
def render(
    images: Tensor,
    true_size: Tensor,
    views: ImageViews,
    *,
    size: int,
    normal: Normal,
    threshold: float = 0.5,
) -> Tensor:
    """The views with these choices, (B, C, size, size) float32, as much at a time as the caches hold."""
    batch, channels, *sides = images.shape
    result = torch.empty(batch, channels, size, size, device=images.device)
    budget = _CHUNK_CPU if images.device.type == "cpu" else _CHUNK_OTHER
    count = max(4, budget // (4 * channels * max(size, *sides) ** 2))
    for start in range(0, batch, count):
        rows = slice(start, start + count)
        part = ImageViews(*(_rows(choice, rows) for choice in views))
        _render(result[rows], images[rows], true_size[rows], part, normal, threshold)
    return result


def _rows(choice: Tensor | ColourMatrices | None, rows: slice) -> Tensor | ColourMatrices | None:
    if isinstance(choice, ColourMatrices):
        return ColourMatrices(*(part[rows] for part in choice))
    return None if choice is None else choice[rows]


def _render(
    out: Tensor, images: Tensor, true_size: Tensor, views: ImageViews, normal: Normal, threshold: float
) -> None:
    channels, size = out.shape[1:3]
    tiles = resampled_tiles(images, views.boxes, true_size, views.flip, size)
    # blurring and normalising may change places, solarising must come before the latter
    early = Normal.none(channels) if views.solarise is not None else normal
    if views.colours is not None:
        tiles = recolour(tiles, views.colours, early)
    elif early is normal:
        normalise_(tiles, normal)
    untile(tiles, out)
    if views.sigma is not None and len(which := views.sigma.nonzero()[:, 0]):
        out[which] = gaussian_blur(out[which], views.sigma[which], usual_kernel_size(size))
    if views.solarise is not None:
        which = views.solarise.nonzero()[:, 0]
        out[which] = solarise(out[which], threshold)
        normalise_(out, normal)


def _check_images(images: Tensor, true_size: Tensor, size: int) -> None:
    if (
        images.ndim != 4
        or images.shape[2] != images.shape[3]
        or not (images.dtype == torch.uint8 or images.is_floating_point())
    ):
        raise UsageError(
            "images must be (B, C, S, S), uint8 or floating, "
            f"not {tuple(images.shape)} of {str(images.dtype).removeprefix('torch.')}"
        )
    if true_size.shape != (len(images), 2):
        raise UsageError(
            f"true_size must be height and width per image, ({len(images)}, 2), not {tuple(true_size.shape)}"
        )
    if size < 1:
        raise UsageError(f"size must be at least 1 pixel, not {size}")
