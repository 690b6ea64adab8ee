"""Views of volumes: intensities and boxes on the device, turns and crops in the loader's workers.

Volumes are (B, C, X, Y, Z) float32 with values in [0, 1]; boxes are (start, size) in voxels. The recipe is
TraCoCo's (Liu et al., 2022, arXiv 2203.14523), read in its released code, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.draw import between
from tacit.views.mix import draw_lambda, partners

Triple = tuple[int, int, int]


def brightness(x: Tensor, index: Tensor, rng: Rng, *, low: float = 0.75, high: float = 1.25) -> Tensor:
    """Each sample times one factor from U(low, high), then clipped to [0, 1].

    x: (B, C, *space) in [0, 1]. index: (B,) int64 sample numbers on x's device: a factor depends on its own
        number only, so that two crops of one sample get the same under the same rng.
    """
    factor = between(rng.uniform(index, 1), (low, high)).to(x.dtype)
    return (x * factor.view(-1, *[1] * (x.ndim - 1))).clamp_(0, 1)


def uniform_noise(x: Tensor, rng: Rng, *, amount: float, clamp: bool) -> Tensor:
    """x + U(-amount, amount), drawn again for each value; with `clamp` clipped to [0, 1].

    x: of any shape, float. The noise is a function of the rng, the shape and the type of device (a GPU's
    generator gives other numbers than a CPU's), not of the samples' numbers: a volume has too many values for
    a hash each.
    """
    noise = torch.empty_like(x).uniform_(-amount, amount, generator=rng.torch(x.device))
    noisy = noise.add_(x)
    return noisy.clamp_(0, 1) if clamp else noisy


def gaussian_noise(x: Tensor, rng: Rng, *, scale: float = 0.1, limit: float = 0.2) -> Tensor:
    """x + clip(scale N(0, 1), -limit, limit): what teachers see in UA-MT (Yu et al., 2019, arXiv 1907.07034).

    The published size is for volumes of mean 0 and standard deviation 1; the result is not clipped to [0, 1].

    x, rng: as `uniform_noise` takes them.
    """
    noise = torch.empty_like(x).normal_(0, scale, generator=rng.torch(x.device))
    return noise.clamp_(-limit, limit).add_(x)


@dataclass(frozen=True, slots=True)
class Turn:
    """Quarter turns in the x-y plane, then a flip of x or y, of a volume of which only a box is read.

    For a volume of sides `shape` and any box (start, size) of the *turned* volume,
    `turn.apply(read(*turn.box(start, size, shape)))` is that box of `turn.apply(volume)`.

    quarters: 0 to 3 turns as `torch.rot90` makes them, from x to y. flip: 0 (x), 1 (y) or None.
    """

    quarters: int = 0
    flip: Literal[0, 1] | None = None

    def __post_init__(self) -> None:
        if self.quarters not in range(4) or self.flip not in (0, 1, None):
            raise UsageError(
                f"a turn has 0 to 3 quarters and flips axis 0, 1 or None, not {self.quarters} and {self.flip}"
            )

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Turn:
        """Each number of quarters and each flip alike; there is always a flip, as in the released code."""
        return cls(int(rng.integers(4)), 1 if rng.integers(2) else 0)

    def shape(self, shape: Sequence[int]) -> Triple:
        """The turned volume's sides."""
        x, y, z = shape
        return (y, x, z) if self.quarters % 2 else (x, y, z)

    def box(self, start: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> tuple[Triple, Triple]:
        """(start, size) in the volume as it lies of a box given in the turned volume.

        shape: the sides of the volume as it lies. Boxes may reach outside.
        """
        at, sides = [int(v) for v in start], [int(v) for v in size]
        frame = self.shape(shape)
        if self.flip is not None:
            at[self.flip] = frame[self.flip] - at[self.flip] - sides[self.flip]
        width, depth = frame[0], frame[1]
        for _ in range(self.quarters):
            # a turn's value at (i, j) was at (j, width - 1 - i)
            at[0], at[1] = at[1], width - at[0] - sides[0]
            sides[0], sides[1] = sides[1], sides[0]
            width, depth = depth, width
        return (at[0], at[1], at[2]), (sides[0], sides[1], sides[2])

    def apply(self, patch: Tensor) -> Tensor:
        """(..., X, Y, Z) turned; a copy that is contiguous."""
        turned = torch.rot90(patch, self.quarters, (-3, -2))
        if self.flip is not None:
            turned = turned.flip(self.flip - 3)
        return turned.contiguous()


def two_starts(
    shape: Sequence[int], patch: Sequence[int], rng: np.random.Generator, *, one_sided: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where two overlapping crops of one volume start: (main, second).

    shape: sides of the volume. patch: as many sides of both crops.
    one_sided: as in the released code, the second crop is never above the main one along any axis: s from
        0 .. side - P - 1, t from 0 .. s - 1 (0 if s is 0), and t = s - P // 2 if they were P or more apart.
        That is its rule for pancreas, but for crops exactly P apart, which it leaves without overlap.
        Otherwise, our choice, s is uniform on 0 .. side - P and t on what lies within P // 2 of it on either
        side, so that at least half of the patch is shared along each axis: offsets of one sign would let a
        network that is biased to one side agree with itself.

    Along an axis on which the volume is no larger than the patch, both crops start at (side - P) // 2, which
    centres it; zeros lie outside.
    """
    if len(shape) != len(patch):
        raise UsageError(f"volume and patch must have as many sides, got {tuple(shape)} and {tuple(patch)}")
    draw = _one_sided if one_sided else _symmetric
    starts = [
        draw(side - p, p, rng) if side > p else ((side - p) // 2,) * 2
        for side, p in zip(shape, patch, strict=True)
    ]
    return tuple(s for s, _ in starts), tuple(t for _, t in starts)


def _symmetric(room: int, patch: int, rng: np.random.Generator) -> tuple[int, int]:
    s = int(rng.integers(room + 1))
    return s, int(rng.integers(max(0, s - patch // 2), min(room, s + patch // 2) + 1))


def _one_sided(room: int, patch: int, rng: np.random.Generator) -> tuple[int, int]:
    s = int(rng.integers(room))
    t = int(rng.integers(s)) if s else 0
    return s, s - patch // 2 if s - t >= patch else t


def cutmix_boxes(
    count: int, patch: Sequence[int], rng: Rng, index: Tensor, *, axes: Sequence[str] = ("x", "y")
) -> tuple[Tensor, Tensor]:
    """CutMix (Yun et al., 2019, arXiv 1905.04899) extended to volumes: what is replaced, and by whose.

    lam ~ Beta(4, 4) once per batch; each sample's box has sides int(P (1 - lam)^(1 / n)) along the n axes,
    halved and doubled, around a centre from U{P // 8, P - 1}, and is cut off at the patch's border.

    count: B. patch: X, Y, Z. index: (B,) int64 sample numbers: a centre depends on its own number only.
    axes: along the others the box goes through the whole patch. ("x", "y") is the released code; all three
        is how the paper's words, a 3D mask, may be read.
    Returns a (B, 1, X, Y, Z) bool mask, true where the partner goes, and the partners, (B,) int64: a random
    order in which a sample may be its own partner. Both on the index's device.

    Raises:
        UsageError: an unknown or repeated axis, no axis, or not one index per sample.
    """
    if len(index) != count:
        raise UsageError(f"cutmix: index must have one number per sample, {count}, got {len(index)}")
    if not axes or len(set(axes)) < len(axes) or not set(axes) <= set("xyz"):
        raise UsageError(f"cutmix: axes must be some of x, y and z, each once, not {tuple(axes)}")
    lam = draw_lambda(rng("weight"), alpha=4.0, fold=False).item()
    uniform = rng("centre").uniform(index, 3)
    mask = torch.ones((count, 1, *patch), dtype=torch.bool, device=index.device)
    for axis, side in enumerate(patch):
        if "xyz"[axis] not in axes:
            continue
        half = int(side * (1 - lam) ** (1 / len(axes))) // 2
        lowest = side // 8
        centre = lowest + (uniform[:, axis] * (side - lowest)).long()
        place = torch.arange(side, device=index.device)
        inside = (place >= centre[:, None] - half) & (place < centre[:, None] + half)
        mask &= inside.view(count, 1, *(side if a == axis else 1 for a in range(3)))
    return mask, partners(count, rng("partners")).to(index.device)


def apply_cutmix(x: Tensor, mask: Tensor, permutation: Tensor) -> Tensor:
    """Each sample with its partner's values where the mask is true.

    x: (B, C, X, Y, Z) samples or logits, with gradient; or (B, 1, X, Y, Z) classes.
    mask, permutation: from `cutmix_boxes`.
    """
    return torch.where(mask, x[permutation], x)
