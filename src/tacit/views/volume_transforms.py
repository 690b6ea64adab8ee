"""Views of volumes that change one thing: two different transforms of seven, one for each of two views.

The list, its strengths and "one transform, no crop" are those of the released code of Nguyen et al. (2023,
arXiv 2212.01893), which takes torchio's defaults. All work on whole batches (B, C, X, Y, N), float32 from 0
to 1, the slices along the last axis, on the device where the volumes are; every draw is a function of the
generator and the sample's number. Against torchio: lengths are in voxels, not in mm (a batch does not know
its spacing), what moves in from outside is 0, and a blur repeats the border. Nothing is clamped, as there.
A blur on CUDA may keep ten bits of a value where TF32 is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, isfinite
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError, unknown
from tacit.rng import Rng
from tacit.views.draw import between
from tacit.views.noise import pixel_noise

Change = Literal["flip", "affine", "anisotropy", "noise", "blur", "bias", "gamma"]


@dataclass(frozen=True)
class VolumeChanges:
    """What a view of a volume may change, and how much.

    Args:
        changes: what there is to choose from, two at least. Leave out flip where left and right, or up and
            down, are what is to be told apart.
        flip: probability of reversing the slices, once flip is chosen.
        zoom: each axis is magnified by 1 - this to 1 + this.
        rotate: up to this angle either way about each axis, in degrees.
        coarsen: smallest and largest factor of the distance between voxels along one axis.
        noise: largest standard deviation of Gaussian noise.
        blur: largest standard deviation of a Gaussian blur along each axis, in voxels.
        bias: largest size of the coefficients of the smooth field that brightens and darkens.
        bias_order: its largest degree.
        gamma: values are raised to the power of exp(-this) to exp(this).
    """

    changes: tuple[Change, ...] = get_args(Change)
    flip: float = 0.5
    zoom: float = 0.1
    rotate: float = 10.0
    coarsen: tuple[float, float] = (1.5, 5.0)
    noise: float = 0.25
    blur: float = 2.0
    bias: float = 0.5
    bias_order: int = 3
    gamma: float = 0.3

    def __post_init__(self) -> None:
        for change in self.changes:
            if change not in get_args(Change):
                raise unknown("change of a volume", str(change), get_args(Change))
        if len(set(self.changes)) != len(self.changes) or len(self.changes) < 2:
            raise UsageError(f"changes must be two or more different ones, not {list(self.changes)}")
        for name, high in (("flip", 1.0), ("zoom", 0.99), ("rotate", 180.0)):
            if not 0 <= getattr(self, name) <= high:
                raise UsageError(f"changes.{name} must lie in [0, {high:g}], not {getattr(self, name)}")
        for name in ("noise", "blur", "bias", "bias_order", "gamma"):
            if not (getattr(self, name) >= 0 and isfinite(getattr(self, name))):
                raise UsageError(f"changes.{name} must be at least 0, not {getattr(self, name)}")
        if len(self.coarsen) != 2 or not 1 <= self.coarsen[0] <= self.coarsen[1] < float("inf"):
            raise UsageError(
                f"changes.coarsen must be two numbers from 1, the smaller first, not {list(self.coarsen)}"
            )


SEVEN = VolumeChanges()
"""All seven, in the strengths of the released code."""


def two_different(index: Tensor, rng: Rng, count: int) -> tuple[Tensor, Tensor]:
    """Two different numbers below `count` for every sample, each pair equally likely: (B,) int64 twice.

    index: (B,) int64 sample numbers; a choice depends on its own number only.
    """
    draw = rng.uniform(index, 2)
    first = (draw[:, 0] * count).long()
    return first, (first + 1 + (draw[:, 1] * (count - 1)).long()) % count


@torch.no_grad()
def two_views(
    volumes: Tensor, index: Tensor, rng: Rng, changes: VolumeChanges = SEVEN
) -> tuple[Tensor, Tensor]:
    """Two views of each volume, changed in two different ways: (B, C, X, Y, N) float32 each.

    volumes: (B, C, X, Y, N) float32 from 0 to 1. index: (B,) int64 sample numbers; with `rng` they determine
        every
    choice.
    """
    if volumes.ndim != 5 or index.shape != volumes.shape[:1]:
        raise UsageError(
            f"two_views takes (B, C, X, Y, N) and (B,) numbers, not {tuple(volumes.shape)} and "
            f"{tuple(index.shape)}"
        )
    first, second = two_different(index, rng("which"), len(changes.changes))
    views = (_changed(volumes, index, rng("view", k), changes, w) for k, w in enumerate((first, second)))
    return tuple(views)  # type: ignore[return-value]  # of two


def _changed(volumes: Tensor, index: Tensor, rng: Rng, changes: VolumeChanges, which: Tensor) -> Tensor:
    out = volumes.clone()
    for number, name in enumerate(changes.changes):
        rows = (which == number).nonzero()[:, 0]
        if len(rows):
            changed = _APPLY[name](volumes[rows], index[rows], rng(name), changes)
            out.index_copy_(0, rows, changed)
    return out


def _flip(x: Tensor, index: Tensor, rng: Rng, changes: VolumeChanges) -> Tensor:
    turned = rng.uniform(index, 1)[:, 0] < changes.flip
    return torch.where(_over(turned, x), x.flip(-1), x)


def _affine(x: Tensor, index: Tensor, rng: Rng, changes: VolumeChanges) -> Tensor:
    draw = rng.uniform(index, 6)
    zoom = between(draw[:, :3], (1 - changes.zoom, 1 + changes.zoom))
    return turn(x, between(draw[:, 3:], (-changes.rotate, changes.rotate)), zoom)


def _anisotropy(x: Tensor, index: Tensor, rng: Rng, changes: VolumeChanges) -> Tensor:
    draw = rng.uniform(index, 2)
    axis, factor = (draw[:, 0] * 3).long(), between(draw[:, 1], changes.coarsen)
    out = x.clone()
    for number in range(3):
        rows = (axis == number).nonzero()[:, 0]
        if len(rows):
            out.index_copy_(0, rows, coarsen(x[rows], 2 + number, factor[rows]))
    return out


def _noise(x: Tensor, index: Tensor, rng: Rng, changes: VolumeChanges) -> Tensor:
    strength = changes.noise * rng.uniform(index, 1)[:, 0]
    return x + _over(strength, x) * pixel_noise(index, x[0].numel(), rng("voxels")).view_as(x)


def _blur(x: Tensor, index: Tensor, rng: Rng, changes: VolumeChanges) -> Tensor:
    return blur(x, changes.blur * rng.uniform(index, 3))


def _bias(x: Tensor, index: Tensor, rng: Rng, changes: VolumeChanges) -> Tensor:
    powers = bias_powers(changes.bias_order)
    coefficients = between(rng.uniform(index, len(powers)), (-changes.bias, changes.bias))
    return x * bias_field(coefficients, powers, x.shape[2:])[:, None]


def _gamma(x: Tensor, index: Tensor, rng: Rng, changes: VolumeChanges) -> Tensor:
    power = between(rng.uniform(index, 1)[:, 0], (-changes.gamma, changes.gamma)).exp()
    return x.clamp(min=0) ** _over(power, x)


_APPLY: dict[str, Callable[[Tensor, Tensor, Rng, VolumeChanges], Tensor]] = {
    "flip": _flip,
    "affine": _affine,
    "anisotropy": _anisotropy,
    "noise": _noise,
    "blur": _blur,
    "bias": _bias,
    "gamma": _gamma,
}


def turn(x: Tensor, degrees: Tensor, zoom: Tensor) -> Tensor:
    """Volumes turned about their centres and magnified, linear, zeros from outside; (B, C, X, Y, N).

    degrees: (B, 3), about the first axis, then the second, then the third, each turning the axis behind it
        (in the
    order 0, 1, 2, 0) towards the one behind that. zoom: (B, 3), before the turns; above 1 for a larger
    picture.
    """
    angle = degrees.deg2rad()
    back = torch.eye(3, device=x.device).expand(len(x), 3, 3)
    for axis in range(3):
        back = _product(back, _rotation(-angle[:, axis], axis))
    back = back / zoom[:, :, None]  # where in x each direction of the result comes from
    sides = x.new_tensor(x.shape[2:])
    lines = [(torch.arange(n, device=x.device) + 0.5) * 2 / n - 1 for n in x.shape[2:]]
    place = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1) * sides / 2  # voxels from the centre
    # sums, not a matrix product, which on some devices keeps ten bits of a coordinate
    source = sum(back[:, None, None, None, :, k] * place[None, ..., k : k + 1] for k in range(3)) / (
        sides / 2
    )
    return F.grid_sample(x, source.flip(-1), mode="bilinear", padding_mode="zeros", align_corners=False)


def _rotation(angle: Tensor, axis: int) -> Tensor:
    """(B, 3, 3)."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.eye(3, device=angle.device).repeat(len(angle), 1, 1)
    matrix[:, a, a] = matrix[:, b, b] = angle.cos()
    matrix[:, b, a] = angle.sin()
    matrix[:, a, b] = -angle.sin()
    return matrix


def _product(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, :, :, None] * b[:, None]).sum(2)


def coarsen(x: Tensor, axis: int, factor: Tensor) -> Tensor:
    """Volumes as if their voxels were `factor` times as long along one axis, in the old number of voxels.

    Nearest voxels on the coarse grid, then linear interpolation back (as torchio does), the border repeated.
    factor: (B,), at least 1; the coarse grid has round(n / factor) voxels, at least 1.
    """
    n = x.shape[axis]
    count = (n / factor).round().clamp(1, n)[:, None]  # (B, 1)
    place = (torch.arange(n, device=x.device) + 0.5) * count / n - 0.5
    place = place.clamp(min=0).minimum(count - 1)
    low = place.floor()
    weight = place - low
    moved = x.movedim(axis, -1)
    ends: list[Tensor] = []
    for coarse in (low, (low + 1).minimum(count - 1)):
        nearest = ((coarse + 0.5) * n / count).long().clamp(max=n - 1)  # (B, n)
        ends.append(moved.gather(-1, nearest[:, None, None, None].expand(moved.shape)))
    return torch.lerp(ends[0], ends[1], weight[:, None, None, None]).movedim(-1, axis)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Volumes blurred along each axis, (B, C, X, Y, N), with sigma (B, 3) voxels each; 0 does not blur.

    Kernels end at 4 standard deviations of the widest, as scipy's do; the border voxel is repeated outside.
    """
    reach = ceil(4 * float(sigma.max()))
    if not reach:
        return x
    distance = torch.arange(-reach, reach + 1, device=x.device)
    for axis in range(3):
        taps = (-0.5 * (distance / sigma[:, axis].clamp(min=1e-3)[:, None]) ** 2).softmax(1)[:, None]
        moved = x.movedim(2 + axis, -1)
        lines = moved.flatten(1, -2).transpose(0, 1)  # (C x other sides, B, n): one kernel a sample
        padded = F.pad(lines, (reach, reach), mode="replicate")
        with torch.autocast(x.device.type, enabled=False):
            lines = F.conv1d(padded, taps, groups=len(x))
        x = lines.transpose(0, 1).reshape(moved.shape).movedim(-1, 2 + axis)
    return x


def bias_powers(order: int) -> list[tuple[int, int, int]]:
    """The terms of a polynomial in three variables up to a degree: 20 of order 3."""
    return [p for p in product(range(order + 1), repeat=3) if sum(p) <= order]  # type: ignore[misc]


def bias_field(coefficients: Tensor, powers: Sequence[tuple[int, int, int]], sides: Sequence[int]) -> Tensor:
    """exp(sum of c x^i y^j z^k), (B, *sides), the axes from -1 to 1 between the outer voxels' middles.

    coefficients: (B, T), one for each of the T powers.
    """
    lines = [
        torch.linspace(-1, 1, n, device=coefficients.device) if n > 1 else coefficients.new_zeros(1)
        for n in sides
    ]
    total = coefficients.new_zeros(len(coefficients), *sides)
    for column, (i, j, k) in enumerate(powers):
        term = (lines[0] ** i)[:, None, None] * (lines[1] ** j)[:, None] * lines[2] ** k
        total += coefficients[:, column, None, None, None] * term
    return total.exp_()


def _over(values: Tensor, x: Tensor) -> Tensor:
    """(B,) to be broadcast over the volumes."""
    return values.view(-1, *[1] * (x.ndim - 1))
