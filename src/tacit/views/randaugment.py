"""RandAugment for a whole batch: every image gets operations and strengths of its own.

Written by hand around torchvision's kernels because torchvision's and kornia's RandAugment draw one operation
and one strength for all images of a batch, from a global generator: a batch of FixMatch would see one strong
view, and a resumed run another one. Here each image's choices are a function of its number.

Cubuk et al., 2019, arXiv 1909.13719, in the form of FixMatch (Sohn et al., 2020, arXiv 2001.07685): strengths
are uniform over their ranges. The operations and ranges below are from memory of the second paper's table of
transformations. What moves in from outside the image is its mirror image, as in `tacit.views.warp`; the
authors' code has grey there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from tacit.rng import Rng
from tacit.views.affine import move
from tacit.views.colour import GREY
from tacit.views.draw import between

_FACTOR = (0.05, 0.95)  # of brightness, contrast, colour and sharpness; 1 would change nothing
_DEGREES = 30.0
_SHIFT = 0.3  # of the side, also of shears

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(B, C, S, S) float32 in 0..1, (B,) strengths in [0, 1), (B,) signs -1 or 1 -> the changed images."""


def draw_operations(index: Tensor, rng: Rng, count: int, channels: int) -> Tensor:
    """(B, count, 3) float32: number of the operation in `operations(channels)`, strength in [0, 1), sign.

    index: (B,) int64 sample numbers; the draws of an image depend on its own number only.
    """
    draw = rng.uniform(index, 3 * count).view(-1, count, 3)
    number = (draw[..., 0] * len(operations(channels))).floor_()
    return torch.stack([number, draw[..., 1], 1 - 2 * (draw[..., 2] < 0.5).float()], 2)


def randaugment(images: Tensor, drawn: Tensor) -> Tensor:
    """The images after their operations, one after the other, in 0..1.

    images: (B, C, S, S) float32 in 0..1. drawn: (B, n, 3), see `draw_operations`.
    """
    images = images.clamp(0, 1)
    pool = operations(images.shape[1])
    for chosen in drawn.unbind(1):
        number, strength, sign = chosen.unbind(1)
        for k, operation in enumerate(pool):
            which = (number == k).nonzero()[:, 0]
            if len(which):
                changed = operation(images.index_select(0, which), strength[which], sign[which])
                images.index_copy_(0, which, changed.clamp_(0, 1))
    return images


def operations(channels: int) -> tuple[Operation, ...]:
    """What an image can be changed by. Only three channels, taken as R, G and B, have a colour to lose."""
    return _ALL if channels == 3 else tuple(o for o in _ALL if o is not _colour)


def _identity(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return x


def _autocontrast(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return vision.autocontrast(x)


def _equalize(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return vision.equalize((x * 255).round_().to(torch.uint8)).float() / 255


def _brightness(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return x * _rows(between(strength, _FACTOR))


def _contrast(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return torch.lerp(_grey(x).mean((1, 2, 3), keepdim=True), x, _rows(between(strength, _FACTOR)))


def _colour(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return torch.lerp(_grey(x), x, _rows(between(strength, _FACTOR)))


def _sharpness(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Between a smoothed copy and the image; the outermost pixels, which have no neighbours, stay."""
    if min(x.shape[2:]) < 3:
        return x
    kernel = x.new_tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]).div_(13).expand(x.shape[1], 1, 3, 3)
    smooth = x.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(x, kernel, groups=x.shape[1])
    return torch.lerp(smooth, x, _rows(between(strength, _FACTOR)))


def _posterize(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """The 4 to 8 highest bits of 8 are kept."""
    step = 2 ** (8 - _rows((4 + strength * 5).floor_()))
    return (x * 255).round_().div_(step).floor_().mul_(step).div_(255)


def _solarize(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return torch.where(x >= _rows(strength), 1 - x, x)


def _rotate(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    angle = (sign * strength * _DEGREES).deg2rad()
    return _moved(x, xx=angle.cos(), xy=-angle.sin(), yx=angle.sin(), yy=angle.cos())


def _shear_x(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return _moved(x, xy=sign * strength * _SHIFT)


def _shear_y(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return _moved(x, yx=sign * strength * _SHIFT)


def _translate_x(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return _moved(x, right=sign * strength * _SHIFT)


def _translate_y(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return _moved(x, down=sign * strength * _SHIFT)


def _moved(x: Tensor, **parts: Tensor) -> Tensor:
    """The images moved by affine maps of which all but `parts` is the identity; see `move`."""
    zero, one = x.new_zeros(len(x)), x.new_ones(len(x))
    # a side is 2 long, and a shift to the right shows what lies to the left
    right, down = (-2 * parts.get(name, zero) for name in ("right", "down"))
    across = torch.stack([parts.get("xx", one), parts.get("xy", zero), right], 1)
    below = torch.stack([parts.get("yx", zero), parts.get("yy", one), down], 1)
    return move(x.contiguous(), torch.stack([across, below], 1))


def _grey(x: Tensor) -> Tensor:
    """(B, 1, S, S): luma of R, G and B, the mean of other channels."""
    weights = x.new_tensor(GREY) if x.shape[1] == 3 else x.new_full((x.shape[1],), 1 / x.shape[1])
    return (x * weights[:, None, None]).sum(1, keepdim=True)


def _rows(values: Tensor) -> Tensor:
    return values[:, None, None, None]


_ALL: tuple[Operation, ...] = (
    _identity,
    _autocontrast,
    _equalize,
    _brightness,
    _contrast,
    _colour,
    _sharpness,
    _posterize,
    _solarize,
    _rotate,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)
