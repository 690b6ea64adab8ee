"""Places of a volume, and the boxes around them that are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tacit.data.source import Sample
from tacit.errors import UsageError

Point = tuple[int, int, int]

MARGIN = 10
"""Voxels before the far end of each axis where no place is drawn (the released code)."""
DRAWS = 10_000
"""After so many draws a place of air is taken (the released code)."""
_ONE_BY_ONE = 32


class Scan(Protocol):
    """What is asked of a volume: its shape in voxels, voxel size in mm, and boxes of it with 0 outside."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sides in voxels."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Sides of a voxel in mm."""

    def read(self, start: Sequence[int], size: Sequence[int]) -> Tensor:
        """(C, *size) float32 in [0, 1]; zeros outside of the volume."""


def scan_of(sample: Sample) -> Scan:
    """The volume of a sample.

    Raises:
        UsageError: the sample is none of a source of volumes.
    """
    volume = getattr(sample, "volume", None)
    if volume is None:
        raise UsageError(f"this learns from volumes, and sample '{sample.name}' is not one")
    return volume


def random_point(scan: Scan, rng: np.random.Generator) -> Point:
    """A random voxel that is not air (above the low end of the window in some channel).

    It lies at least 10 voxels before the far end of each axis, as in Alice's code; in a volume of fewer than
    40 voxels a quarter of the side (our choice). After 10,000 draws air is taken.
    """
    ends = [n - min(MARGIN, n // 4) for n in scan.shape]
    for _ in range(_ONE_BY_ONE):
        place = _point(rng.integers(ends))
        if scan.read(place, (1, 1, 1)).max() > 0:
            return place
    # a volume of much air: to read it once is faster than to read thousands of voxels
    rest = rng.integers(ends, size=(DRAWS - _ONE_BY_ONE, 3))
    body = scan.read((0, 0, 0), scan.shape).amax(0) > 0
    good = torch.nonzero(body[tuple(torch.from_numpy(rest).T)])[:, 0]
    return _point(rest[int(good[0]) if len(good) else -1])


def crop(scan: Scan, centre: Point, patch: Sequence[int], *, inside: bool = False) -> Tensor:
    """The patch of (C, *patch) voxels around a place; the place lands at patch // 2, outside is 0.

    inside: whether it is moved so that it does not reach out of the volume, where that is as large as the
        patch, and else so that the volume lies within it; then the place need not be at the patch's centre.
    """
    start = [p - side // 2 for p, side in zip(centre, patch, strict=True)]
    if inside:
        spare = [n - side for n, side in zip(scan.shape, patch, strict=True)]
        start = [min(max(s, min(0, e)), max(0, e)) for s, e in zip(start, spare, strict=True)]
    return scan.read(start, patch)


def _point(place: np.ndarray) -> Point:
    x, y, z = (int(p) for p in place)
    return x, y, z
