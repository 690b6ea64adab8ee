"""The grid of a volume: spacing, orientation, another resolution, and the way back.

An affine is (4, 4) float64 and takes voxel numbers to millimetres, x to the right, y to the front, z up
(RAS+). Canonical is the grid whose axes run most nearly along x, y and z, as
`nibabel.as_closest_canonical` gives it: voxels are permuted and flipped, never interpolated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tacit.errors import BadFile, require

_FLAT = 1e-4  # volume of the unit cell below which axes lie in a plane
_SAME = 1e-3  # relative difference of spacings that needs no resampling
_SKEW = 1e-3  # cosine of the angle between two axes above which they are not at right angles
_APART = 0.5  # voxels by which a mask may lie off its volume


def check_affine(name: str, affine: np.ndarray) -> None:
    """Raise `BadFile` for an affine that places no volume."""
    if not np.isfinite(affine).all():
        raise BadFile(name, "wrong affine: it holds NaN or infinite numbers")
    spacing = spacing_of(affine)
    if not spacing.all():
        raise BadFile(name, f"wrong affine: a spacing of {_by(spacing)} mm")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < _FLAT:
        raise BadFile(name, "wrong affine: singular, its axes lie in a plane")


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """(3,) sides of a voxel in mm."""
    return np.sqrt((affine[:3, :3] ** 2).sum(0))


def cell_of(affine: np.ndarray) -> float:
    """Cubic millimetres of a voxel: |det|, which for axes at right angles is the product of the spacings."""
    return float(abs(np.linalg.det(affine[:3, :3])))


def is_sheared(affine: np.ndarray) -> bool:
    """Whether axes are not at right angles, as of scans with a tilted gantry."""
    axes = affine[:3, :3] / spacing_of(affine)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > _SKEW)


def to_canonical(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(X, Y, Z, ...) voxels and their affine in the canonical orientation; a view."""
    if _is_canonical(affine):
        return voxels, affine
    orientations = require("nibabel.orientations", "volumes")
    turn = orientations.io_orientation(affine)
    turned = orientations.apply_orientation(voxels, turn)
    return turned, affine @ orientations.inv_ornt_aff(turn, voxels.shape[:3])


def from_canonical(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(X, Y, Z) voxels of the canonical grid on the grid of this affine: the inverse of `to_canonical`."""
    if _is_canonical(affine):
        return voxels
    orientations = require("nibabel.orientations", "volumes")
    here = orientations.axcodes2ornt("RAS")
    back = orientations.ornt_transform(here, orientations.io_orientation(affine))
    return orientations.apply_orientation(voxels, back)


def canonical_shape(shape: tuple[int, ...], affine: np.ndarray) -> tuple[int, ...]:
    """The shape of a grid with this shape and affine after `to_canonical`."""
    return to_canonical(np.broadcast_to(np.uint8(0), shape), affine)[0].shape


def distance(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far apart two grids of one shape lie at most, in voxels of the first."""
    ends = np.stack(np.meshgrid(*((0, side - 1) for side in shape), indexing="ij"), -1).reshape(-1, 3)
    corners = np.concatenate([ends, np.ones((len(ends), 1))], 1).T
    between = np.linalg.solve(affine, other @ corners) - corners
    return float(np.abs(between).max())


def check_together(name: str, affine: np.ndarray, mask_affine: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise `BadFile` for a mask that lies more than half a voxel off its volume."""
    apart = distance(affine, mask_affine, shape)
    if not apart <= _APART:
        raise BadFile(name, f"its mask lies {apart:.1f} voxels off: the affines of the two files differ")


class Resolution(NamedTuple):
    """How a grid is sampled again: the size of a new voxel in old ones, by axis; 1 leaves an axis alone.

    The grids share their lower corner, so new voxel i is centred at old (i + 0.5) factor - 0.5.
    """

    factor: tuple[float, float, float]

    @classmethod
    def between(cls, spacing: np.ndarray, wanted: tuple[float, ...] | None) -> Resolution:
        """From a spacing to another, both in mm."""
        if wanted is None:
            return cls((1.0, 1.0, 1.0))
        x, y, z = (1.0 if abs(f - 1) < _SAME else float(f) for f in np.divide(wanted, spacing))
        return cls((x, y, z))

    @property
    def changes(self) -> bool:
        """Whether anything is sampled again."""
        return self.factor != (1.0, 1.0, 1.0)

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        """The new sides, at least one voxel each."""
        return tuple(max(1, round(n / f)) for n, f in zip(old, self.factor, strict=True))

    def affine(self, old: np.ndarray) -> np.ndarray:
        """The new grid's affine."""
        scale = np.diag([*self.factor, 1.0])
        scale[:3, 3] = 0.5 * np.array(self.factor) - 0.5
        return old @ scale

    def linear(self, voxels: np.ndarray) -> np.ndarray:
        """(X, Y, Z) voxels interpolated linearly, float32; outside of the old grid its border goes on."""
        factor = np.array(self.factor)
        new = np.empty(self.shape(voxels.shape), np.float32)
        ndimage.affine_transform(
            voxels, factor, offset=0.5 * factor - 0.5, output=new, order=1, mode="nearest"
        )
        return new

    def nearest(self, voxels: np.ndarray) -> np.ndarray:
        """(X, Y, Z) voxels of the nearest centre."""
        new = self.shape(voxels.shape)
        return voxels[self._grid(new, voxels.shape, np.array(self.factor))]

    def nearest_back(self, voxels: np.ndarray, old: tuple[int, ...]) -> np.ndarray:
        """(X, Y, Z) voxels of the new grid on the old one, each of the new voxel that it lies in."""
        return voxels[self._grid(old, voxels.shape, 1 / np.array(self.factor))]

    @staticmethod
    def _grid(to: tuple[int, ...], of: tuple[int, ...], step: np.ndarray) -> tuple[np.ndarray, ...]:
        numbers = (
            np.floor((np.arange(n) + 0.5) * s).astype(np.int64).clip(0, m - 1)
            for n, m, s in zip(to, of, step, strict=True)
        )
        return np.ix_(*numbers)


def _is_canonical(affine: np.ndarray) -> bool:
    """Whether a grid lies so plainly that no orientation has to be looked for."""
    axes = affine[:3, :3]
    return bool((np.diag(np.diag(axes)) == axes).all() and (np.diag(axes) > 0).all())


def _by(numbers: np.ndarray) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
