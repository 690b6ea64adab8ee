"""One volume, of which boxes are read, and the way back to its file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tacit.data.source import UNLABELLED, Sample
from tacit.data.volume.files import extension_of, nifti_header
from tacit.data.volume.grid import Resolution, canonical_shape, from_canonical, spacing_of
from tacit.data.volume.store import Stored, read_box
from tacit.data.volume.windows import Window
from tacit.errors import UsageError


class Volume:
    """One volume, of which boxes are read from the disk when they are asked for.

    Axes are x, y, z of the canonical orientation (to the right, to the front, up), whatever the file's own.

    name: as in the source. shape: (X, Y, Z) voxels. channels: C. spacing: mm by axis. affine: (4, 4), from
    voxels to mm. has_mask: whether `read_mask` has something to read.
    """

    __slots__ = ("_high", "_low", "name", "stored")

    def __init__(self, name: str, stored: Stored, window: Window) -> None:
        self.name, self.stored = name, stored
        low, high = window.limits(stored.values)
        self._low = low.astype(np.float32).reshape(-1, 1, 1, 1)
        self._high = high.astype(np.float32).reshape(-1, 1, 1, 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z) in voxels."""
        _, x, y, z = self.stored.facts.shape
        return x, y, z

    @property
    def channels(self) -> int:
        """How many values a voxel has."""
        return self.stored.facts.shape[0]

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64, from voxel numbers to mm."""
        return np.array(self.stored.facts.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The sides of a voxel in mm."""
        x, y, z = spacing_of(self.affine).tolist()
        return x, y, z

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask."""
        return self.stored.facts.labels is not None

    def read(self, start: Sequence[int], size: Sequence[int]) -> Tensor:
        """A box, (C, *size) float32 in [0, 1]: 0 at the low end of the window and below, 1 at the high end.

        start: the box's first voxel, which may lie outside; there the box is 0.

        Raises:
            TacitError: the decoded volume is gone.
        """
        box = np.zeros((self.channels, *size), np.float32)
        if inside := self._inside(start, size):
            first, end, place = inside
            voxels = read_box(self.stored.voxels, first, end).astype(np.float32)
            span = self._high - self._low
            voxels -= self._low
            voxels /= np.where(span > 0, span, np.inf)  # a channel of one value is 0
            box[(slice(None), *place)] = voxels.clip(0, 1, out=voxels)
        return torch.from_numpy(box)

    def read_mask(self, start: Sequence[int], size: Sequence[int]) -> Tensor:
        """The classes in a box, (*size) int64; 0 outside.

        Raises:
            UsageError: there is no mask. TacitError: the decoded mask is gone.
        """
        if not self.has_mask:
            raise UsageError(f"{self.name} has no mask")
        box = np.zeros(tuple(size), np.int64)
        if inside := self._inside(start, size):
            first, end, place = inside
            box[place] = read_box(self.stored.mask, first, end)
        return torch.from_numpy(box)

    def _inside(
        self, start: Sequence[int], size: Sequence[int]
    ) -> tuple[list[int], list[int], tuple[slice, ...]] | None:
        """First and end voxel of what a box has in common with the volume, and where in the box that is."""
        first = [max(int(a), 0) for a in start]
        end = [min(int(a) + int(n), side) for a, n, side in zip(start, size, self.shape, strict=True)]
        if any(a >= b for a, b in zip(first, end, strict=True)):
            return None
        place = (slice(a - int(s), b - int(s)) for a, b, s in zip(first, end, start, strict=True))
        return first, end, tuple(place)

    def __repr__(self) -> str:
        sides = " x ".join(f"{n}" for n in self.shape)
        spacing = " x ".join(f"{side:.4g}" for side in self.spacing)
        return f"Volume({self.name}: {self.channels} x {sides}, {spacing} mm)"


class VolumeSample(Sample):
    """A volume as a sample: nothing is read until `data` or a box of `volume` is asked for.

    label: -1 says that the mask, if there is one, is not to be read. target: None, until a patch is cut.
    """

    __slots__ = ("volume",)

    def __init__(self, volume: Volume, index: int, label: int = UNLABELLED) -> None:
        self.volume = volume
        self.index = index
        self.label = label
        self.name = volume.name
        self.extra = {}
        self.target = None
        self.length = None

    @property
    def data(self) -> Tensor:  # type: ignore[override]  # a field there, read on demand here
        """(C, X, Y, Z) float32, all of the volume, read again each time."""
        return self.volume.read((0, 0, 0), self.volume.shape)

    def __repr__(self) -> str:
        return f"VolumeSample({self.volume!r}, index={self.index}, label={self.label})"

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]  # as of any dataclass that can change

    def __reduce__(self) -> tuple[Any, ...]:
        return VolumeSample, (self.volume, self.index, self.label)


def volume_of(sample: Sample) -> Volume:
    """The volume that a sample is.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(sample, VolumeSample):
        raise UsageError(f"{sample.name or 'a sample'} is no volume: pass a folder of NIfTI files")
    return sample.volume


def to_original(mask: np.ndarray, volume: Volume) -> tuple[np.ndarray, np.ndarray, Any]:
    """A mask of the working grid on the grid of the volume's file, to be saved beside it.

    `nibabel.Nifti1Image(array, affine, header)` lies voxel for voxel on the file. Where volumes were
    resampled each voxel of the file takes the class of the new voxel that it lies in.

    mask: (X, Y, Z) of `volume.shape`, any dtype, which is kept.

    Returns:
        The array, its (4, 4) affine, and the file's header made fit for a mask: its dtype, no scaling of
        values, no range of grey values to show. The header is None where the file is no NIfTI file.

    Raises:
        UsageError: another shape. BadFile: the file is gone.
    """
    facts = volume.stored.facts
    if mask.shape != volume.shape:
        raise UsageError(f"the mask of {volume.name} has shape {mask.shape}, the volume {volume.shape}")
    affine, shape = np.array(facts.origin_affine), tuple(facts.origin_shape)
    x, y, z = facts.factor
    resolution = Resolution((x, y, z))
    if resolution.changes:
        mask = resolution.nearest_back(mask, canonical_shape(shape, affine))
    array = np.ascontiguousarray(from_canonical(mask, affine))
    if not extension_of(volume.stored.origin.name).startswith(".nii"):
        return array, affine, None
    header = nifti_header(volume.stored.origin)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    return array, affine, header
