"""Views of images: random ones to learn from (`augment_images`), the still one to evaluate (`centre_view`).

A random view in order: crop, resize and mirror in one resampling (`resample`); brightness, contrast,
saturation and hue in an order of the image's own, then greying, in one affine map (`colour`); clamp to
0..1; blur (`blur`); solarise; normalise. All work on whole batches, on the device where the images are.
Every draw is a function of the generator and the sample's number, whatever else is in the batch.

Tolerances, stated and tested, for values from 0 to 1 in float32 on the CPU:

- boxes, factors, orders: the distributions of torchvision's transforms;
- resampling: 5e-5 from torchvision's `resized_crop(antialias=True)` on floating images and 1/255 + 5e-5
  from it and from Pillow on uint8 ones, where the store has the true size;
- colour: 1e-5 from torchvision's adjustments one after another while they clamp nothing and shift no
  hue. With the default strengths on scikit-learn's photographs the mean absolute difference is 0.0015
  (china) and 0.0026 (flower) without hue, where only the clamping differs, and 0.007 and 0.019 with it,
  flower being of saturated colours; for one image at most 0.1. The changes themselves are 0.09 and 0.08;
- blur: 1e-5 from torchvision's `gaussian_blur`; solarising: exact;
- a sample's choices are the same bits in every batch, its pixels the same within 1e-5.

CUDA with TF32 products allowed keeps ten bits of a weight, so resampling may then err by 1e-3.
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
from tacit.views.banded import banded_product
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
from tacit.views.resample import centre_boxes, check_images, crop_bands, crop_boxes

# Bytes of float32 pixels that are worked on at a time: few enough for the caches, enough that the number of
# calls does not count. On the CPU, 512 views of 32 px took 33, 24, 32 and 38 us each with 1, 2, 3 and 6 MiB.
_CHUNK_CPU = 3 * 2**20
_CHUNK_OTHER = 2**28


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

    def rows(self, rows: slice) -> ImageViews:
        """The choices for some of the images."""
        parts = self.boxes, self.flip, self.sigma, self.solarise
        boxes, flip, sigma, solarise = (None if part is None else part[rows] for part in parts)
        assert boxes is not None
        colours = self.colours and ColourMatrices(self.colours.deviation[rows], self.colours.mean[rows])
        return ImageViews(boxes, flip, colours, sigma, solarise)


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
    check_images(images, true_size, size)
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
    check_images(images, true_size, size)
    normal = Normal.of(mean, std, images.shape[1])
    views = ImageViews(centre_boxes(true_size), None, None, None, None)
    return render(images, true_size, views, size=size, normal=normal)


@torch.no_grad()
def whole_view(
    images: Tensor, *, size: int, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor
) -> Tensor:
    """The whole of each stored square, whatever the true image's aspect, normalised: where each pixel counts.

    See `augment_images` for arguments, result and errors.
    """
    side = torch.full((len(images), 2), float(images.shape[-1]), device=images.device)
    return centre_view(images, side, size=size, mean=mean, std=std)


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
    batch, channels, side = images.shape[:3]
    result = torch.empty(batch, channels, size, size, device=images.device)
    bands = crop_bands(images, views.boxes, true_size, views.flip, size)
    budget = _CHUNK_CPU if images.device.type == "cpu" else _CHUNK_OTHER
    count = max(1, budget // (4 * channels * max(size, side) ** 2))
    count = -(-batch // -(-batch // count))  # chunks of about the same size
    for start in range(0, batch, count):
        rows = slice(start, start + count)
        crops = banded_product(images[rows], *(band.of(rows) for band in bands))
        _finish(result[rows], crops, views.rows(rows), normal, threshold)
    return result


def _finish(out: Tensor, crops: Tensor, views: ImageViews, normal: Normal, threshold: float) -> None:
    """Everything after the resampling, into `out`."""
    channels, size = out.shape[1:3]
    # blurring and normalising may change places, solarising must come before the latter
    early = Normal.none(channels) if views.solarise is not None else normal
    if views.colours is not None:
        recolour(crops, views.colours, early, out)
    else:
        out.copy_(crops)
        if early is normal:
            normalise_(out, normal)
    if views.sigma is not None and len(which := views.sigma.nonzero()[:, 0]):
        blurred = gaussian_blur(out.index_select(0, which), views.sigma[which], usual_kernel_size(size))
        out.index_copy_(0, which, blurred)
    if views.solarise is not None:
        which = views.solarise.nonzero()[:, 0]
        out.index_copy_(0, which, solarise(out.index_select(0, which), threshold))
        normalise_(out, normal)
