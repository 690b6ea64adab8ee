"""Volumes: medical images in three dimensions, with or without masks, of which boxes are read."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tacit.batch import Samples
from tacit.data.names import Names
from tacit.data.options import Options
from tacit.data.reading import fingerprint_of
from tacit.data.source import UNLABELLED, Sample, Skipped, Source, Spec, Subset
from tacit.data.volume.files import extension_of, nifti_header
from tacit.data.volume.grid import Resolution, canonical_shape, from_canonical, spacing_of
from tacit.data.volume.layout import lay_out
from tacit.data.volume.options import VolumeOptions
from tacit.data.volume.store import Case, Stored, read_box, store_volumes
from tacit.data.volume.windows import Window
from tacit.errors import BadFile, TacitError, UsageError

GRANULE, LARGEST_PATCH = 16, 96  # voxels: what sides of a patch are a multiple of, and at most, by default


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


class Volumes(Source):
    """Volumes of any shapes; `batch` gives the patch at each one's centre.

    A pickled copy is as small as what is known of the volumes, about 1 kB each, and opens the same files.

    patch: the sides of a patch, (X, Y, Z) in voxels. By default the largest multiple of 16 that is at most
        the median side, by axis, from 16 to 96 (our choice: what encoders halve four times and a graphics
        card holds). shapes: (N, 3) int64, the volumes' sides. window: as it was asked for, see
        `tacit.data.volume.windows`. spacing: mm of the working grid, None where volumes keep theirs.
    """

    def __init__(
        self,
        names: Sequence[str],
        stored: Sequence[Stored],
        *,
        window: Window | None = None,
        spacing: tuple[float, ...] | None = None,
        patch: Sequence[int] | None = None,
        classes: tuple[str, ...] = (),
        splits: Mapping[str, np.ndarray] | None = None,
        skipped: Sequence[Skipped] = (),
    ) -> None:
        labels = np.array([UNLABELLED if s.facts.labels is None else 0 for s in stored], np.int64)
        self.stored = tuple(stored)
        self.shapes = np.array([s.facts.shape[1:] for s in stored], np.int64).reshape(-1, 3)
        self._window = window or Window.parse(None)
        self.spacing = spacing
        x, y, z = self.patch = _checked(patch) if patch is not None else default_patch(self.shapes)
        super().__init__(
            Spec("volume", (stored[0].facts.shape[0], x, y, z), classes, "mask" if classes else "class"),
            names,
            labels,
            splits,
            fingerprint_of(names, (bytes.fromhex(s.facts.digest) for s in stored)),
            skipped,
        )

    @property
    def window(self) -> str:
        """`minmax`, `percentile` or `LOW,HIGH`."""
        return str(self._window)

    def with_patch(self, patch: Sequence[int]) -> Volumes:
        """The same volumes in patches of other sides.

        Raises:
            UsageError: not three whole numbers above 0.
        """
        other = copy.copy(self)
        other.patch = _checked(patch)
        other.spec = replace(self.spec, shape=(self.spec.shape[0], *other.patch))
        return other

    def limits(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The values of volume i, in the file's units, that become 0 and 1; (C,) float64 each."""
        return self._window.limits(self.stored[i].values)

    def volume(self, i: int) -> Volume:
        """Volume i."""
        i = range(len(self))[i]
        return Volume(self.names[i], self.stored[i], self._window)

    def __getitem__(self, i: int) -> VolumeSample:
        i = range(len(self))[i]
        return VolumeSample(self.volume(i), i, int(self.labels[i]))

    def batch(self, index: Sequence[int] | np.ndarray | Tensor) -> Samples:
        """The patches at the centres of these volumes, (B, C, *patch) float32; 0 outside of a volume."""
        positions = torch.as_tensor(index, dtype=torch.int64, device="cpu")
        patches = [self._centre(self.volume(i)) for i in positions.tolist()]
        stacked = torch.stack(patches) if patches else torch.empty((0, *self.spec.shape))
        return Samples(stacked, positions)

    def _centre(self, volume: Volume) -> Tensor:
        start = [(side - n) // 2 for side, n in zip(volume.shape, self.patch, strict=True)]
        return volume.read(start, self.patch)


def volume_of(sample: Sample) -> Volume:
    """The volume that a sample is.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(sample, VolumeSample):
        raise UsageError(f"{sample.name or 'a sample'} is no volume: pass a folder of NIfTI files")
    return sample.volume


def volumes_of(source: Source) -> Volumes:
    """The volumes that a source is, or is a part of.

    Raises:
        UsageError: it has none.
    """
    while isinstance(source, Subset):
        source = source.parent
    if not isinstance(source, Volumes):
        raise UsageError(f"the data are {source.spec.modality}s, not volumes: pass a folder of NIfTI files")
    return source


def open_volumes(folder: Path, options: Options, wishes: VolumeOptions) -> Volumes:
    """The volumes below a folder, with their masks and splits; see `lay_out` for where these are looked for.

    Classes are named by `dataset.json`, which also says which label values there are; without it they are
    "background", "1", "2", ... up to the largest value in any mask. Folders are no classes: volumes of
    one class each get them from a CSV.

    Raises:
        UsageError: no volumes, or masks that cannot be told.
        BadFile, TacitError: as `collect`.
    """
    layout = lay_out(folder, wishes.masks, options.folders)
    if layout.bad and options.on_bad_file == "stop":
        raise BadFile(*layout.bad[0])
    source = collect(layout.cases, options, wishes, layout.classes)
    at = {name: i for i, name in enumerate(source.names)}
    for split, positions in layout.splits.items():
        kept = [at[name] for i in positions if (name := layout.cases[int(i)].name) in at]
        if kept:
            source.splits[split] = np.array(kept, np.int64)
    source.skipped = (*layout.bad, *source.skipped)
    return source


def collect(
    cases: Sequence[Case], options: Options, wishes: VolumeOptions, named: Mapping[int, str] | None = None
) -> Volumes:
    """These volumes decoded, as a source.

    named: names of the classes by label value, if these are known.

    Raises:
        BadFile: one cannot be used and `on_bad_file` is "stop".
        TacitError: none can be used, or the cache cannot be written.
    """
    window = Window.parse(wishes.window)
    found = store_volumes(cases, options, wishes.spacing)
    channels = options.channels or _most_common(found)
    kept: list[tuple[str, Stored]] = []
    skipped: list[Skipped] = []
    for case, stored in zip(cases, found, strict=True):
        reason = stored.reason if isinstance(stored, BadFile) else _unfit(stored, channels, window, named)
        if not reason:
            assert not isinstance(stored, BadFile)
            kept.append((case.name, stored))
        elif options.on_bad_file == "stop":
            raise BadFile(case.name, reason)
        else:
            skipped.append(Skipped(case.name, reason))
    if not kept:
        raise TacitError(f"none of the {len(cases)} volumes can be used; {skipped[0][0]}: {skipped[0][1]}")
    names, volumes = zip(*kept, strict=True)
    return Volumes(
        Names.of(names),
        volumes,
        window=window,
        spacing=wishes.spacing,
        patch=wishes.patch,
        classes=_classes(volumes, named or {}),
        skipped=skipped,
    )


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


def default_patch(shapes: np.ndarray) -> tuple[int, int, int]:
    """The sides of a patch for volumes of these (N, 3) shapes; see `Volumes`."""
    sides = np.median(shapes, axis=0) // GRANULE * GRANULE
    x, y, z = sides.clip(GRANULE, LARGEST_PATCH).astype(int).tolist()
    return x, y, z


def _checked(patch: Sequence[int]) -> tuple[int, int, int]:
    sides = tuple(int(side) for side in patch)
    if len(sides) != 3 or min(sides) < 1:
        raise UsageError(f"patch must be three whole numbers above 0, not {','.join(map(str, patch))}")
    return sides[0], sides[1], sides[2]


def _most_common(found: Sequence[Stored | BadFile]) -> int:
    counts = Counter(stored.facts.shape[0] for stored in found if not isinstance(stored, BadFile))
    return counts.most_common(1)[0][0] if counts else 1


def _unfit(stored: Stored, channels: int, window: Window, named: Mapping[int, str] | None) -> str:
    """Why a volume that could be decoded does not go with the others; "" if it does."""
    facts = stored.facts
    if facts.shape[0] != channels:
        return f"{facts.shape[0]} channels (volumes along the fourth axis) where {channels} are wanted"
    if reason := window.shows_nothing(stored.values):
        return reason
    unknown = [value for value in facts.labels or () if named and value not in named]
    if unknown:
        known = ", ".join(map(str, sorted(named or ())))
        return f"its mask holds {unknown[0]}, and the labels in dataset.json are {known}"
    return ""


def _classes(volumes: Sequence[Stored], named: Mapping[int, str]) -> tuple[str, ...]:
    values = {value for stored in volumes for value in stored.facts.labels or ()}
    if not values:
        return ()
    count = max(*values, *named, 0) + 1
    if not named and len(values) < count / 2:
        # most classes would be of no voxel: a binary mask with 255 for its object, for instance
        raise UsageError(
            f"the masks hold the values {', '.join(map(str, sorted(values)))}: classes are numbered 0, 1, 2, "
            "...; save them so, or name the values in dataset.json"
        )
    return tuple(named.get(value, str(value) if value else "background") for value in range(count))
