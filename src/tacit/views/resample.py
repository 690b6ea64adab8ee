"""Random and central crops, and the one resampling that cuts, scales and mirrors a batch of images.

Boxes are (B, 4) float32: top, left, height, width in pixels of the true image. The stored image may
have another size and aspect, to which `resample` maps them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.banded import Band, banded_product
from tacit.views.draw import between

_ATTEMPTS = 10


def crop_boxes(
    true_size: Tensor, index: Tensor, rng: Rng, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Boxes of random area and aspect, (B, 4), distributed as those of torchvision's RandomResizedCrop.

    Each of ten attempts draws an area (uniform) and an aspect (log-uniform) and rounds the sides. The
    first that fits into the image gets a uniform whole-pixel place. If none fits, the box is the
    largest central one with an allowed aspect.

    Args:
        true_size: (B, 2) float32, height and width in pixels: whole numbers of at least 1.
        index: (B,) int64 sample numbers; a box depends on its own number and size only.
        rng: where the draws come from.
        scale: smallest and largest area, as fractions of the image's.
        ratio: smallest and largest width / height.
    """
    draw = rng.uniform(index, 2 * _ATTEMPTS + 2)
    root_area = (true_size.prod(1, keepdim=True) * between(draw[:, :_ATTEMPTS], scale)).sqrt_()
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    root_aspect = (between(draw[:, _ATTEMPTS:-2], log_ratio) / 2).exp_()
    heights, widths = (root_area / root_aspect).round_(), root_area.mul_(root_aspect).round_()  # (B, 10)
    fits = (heights <= true_size[:, :1]) & (widths <= true_size[:, 1:]) & (heights.minimum(widths) > 0)
    found, first = fits.int().max(1, keepdim=True)  # of equal ones `max` names the first
    found = found.bool()
    longest = true_size.flip(1) * true_size.new_tensor([1 / ratio[0], ratio[1]])
    largest = longest.round_().clamp_(min=1).minimum(true_size)
    attempt = torch.cat([heights.gather(1, first), widths.gather(1, first)], 1)
    box = torch.where(found, attempt, largest)
    room = true_size - box
    place = torch.where(found, draw[:, -2:] * (room + 1), room / 2).floor_()
    return torch.cat([place, box], 1)


def centre_boxes(true_size: Tensor) -> Tensor:
    """The central square with the image's short side, (B, 4); it may begin at half a pixel."""
    short = true_size.amin(1, keepdim=True)
    return torch.cat([(true_size - short) / 2, short.expand_as(true_size)], 1)


@torch.no_grad()
def resample(images: Tensor, boxes: Tensor, true_size: Tensor, flip: Tensor | None, size: int) -> Tensor:
    """The boxes' content as images of `size` x `size` pixels, (B, C, size, size) float32 in 0..1.

    Bilinear with antialiasing, as Pillow does it: each output pixel is the mean of the input pixels under
    a triangle whose half-width is one output pixel or one input pixel, whichever is larger. Pixels
    outside the box count nothing, pixels that its edge cuts count by the part inside.

    Args:
        images: (B, C, S, S), uint8 from 0 to 255 or floating from 0 to 1, of any strides.
        boxes: (B, 4) float32, within the image, in pixels of the true image.
        true_size: (B, 2) float32, the true height and width, of which `images` are resized copies.
        flip: (B,) bool, which to mirror left to right; none if not given.
        size: side of the result in pixels.

    Raises:
        UsageError: shapes or types that do not fit together.
    """
    check_images(images, true_size, size)
    return banded_product(images, *crop_bands(images, boxes, true_size, flip, size))


def check_images(images: Tensor, true_size: Tensor, size: int) -> None:
    """Raise `UsageError` unless `resample` can work with these."""
    square = images.ndim == 4 and images.shape[2] == images.shape[3]
    if not square or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise UsageError(
            "images must be (B, C, S, S), uint8 or floating, "
            f"not {tuple(images.shape)} of {str(images.dtype).removeprefix('torch.')}"
        )
    if true_size.shape != (len(images), 2):
        raise UsageError(
            f"true_size must be height and width of each image, ({len(images)}, 2), "
            f"not {tuple(true_size.shape)}"
        )
    if size < 1:
        raise UsageError(f"size must be at least 1 pixel, not {size}")


def crop_bands(
    images: Tensor, boxes: Tensor, true_size: Tensor, flip: Tensor | None, size: int
) -> tuple[Band, Band]:
    """What `resample` sums of the rows and of the columns of these images."""
    side = images.shape[-1]
    # rows and columns at once, below each other
    start, length = (boxes.reshape(-1, 2, 2) * (side / true_size)[:, None]).permute(1, 2, 0).flatten(1)
    mirror = None if flip is None else torch.cat([torch.zeros_like(flip), flip])
    band = _triangle_band(start, length, mirror, side, size)
    batch = len(images)
    rows, columns = band.of(slice(batch)), band.of(slice(batch, None))
    if images.dtype == torch.uint8:
        rows.weights.div_(255)
    return rows, columns


def _triangle_band(start: Tensor, length: Tensor, mirror: Tensor | None, inputs: int, size: int) -> Band:
    """The weights of `size` pixels that share the run from `start` of `length` input pixels, each (B,)."""
    start, length = start[:, None], length[:, None]
    step = length / size
    support = step.clamp(min=1)
    place = torch.arange(size, device=start.device) + 0.5
    if mirror is not None:
        place = torch.where(mirror[:, None], size - place, place)
    # counted from `start`: small numbers, so that float32 keeps 1e-5 of a pixel however large the image
    centre = place * step
    taps = min(math.ceil(2 * max(inputs / size, 1.0)), inputs)
    first = (centre - support).add_(start + 0.5).floor_().clamp_(0, inputs - taps)
    # the taps come first here, as loops over two or three numbers are slow, and last in the result
    pixel = (first - start) + torch.arange(taps, device=start.device)[:, None, None]  # left edges
    inside = torch.minimum(pixel + 1, length).sub_(pixel.clamp(min=0)).clamp_(min=0)
    away = pixel.add_(0.5).sub_(centre).div_(support).abs_().clamp_(max=1)
    weights = torch.addcmul(inside, inside, away, value=-1, out=away)  # inside * (1 - away)
    weights = weights.div_(weights.sum(0)).permute(1, 2, 0).contiguous()
    return Band(first.long(), weights)
