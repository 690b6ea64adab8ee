"""Volumes: medical images in three dimensions, with or without masks, of which boxes are read."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tacit.batch import Samples
from tacit.data.names import Names
from tacit.data.options import Options
from tacit.data.reading import fingerprint_of
from tacit.data.source import UNLABELLED, Skipped, Source, Spec, Subset
from tacit.data.volume.layout import lay_out
from tacit.data.volume.mistaken import taken_for_volumes
from tacit.data.volume.notes import empty_classes, few_values, geometry_notes
from tacit.data.volume.options import VolumeOptions
from tacit.data.volume.store import Case, Stored, store_volumes
from tacit.data.volume.volume import Volume, VolumeSample
from tacit.data.volume.windows import Window
from tacit.errors import BadFile, TacitError, UsageError

_NAMED = 8  # classes
GRANULE, LARGEST_PATCH = 16, 96  # voxels: what sides of a patch are a multiple of, and at most, by default


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

    @property
    def understood(self) -> str:
        """For instance "3 of 4 volumes have a mask of 0 background, 1 liver"; empty of other labels."""
        if self.spec.target != "mask":
            return ""
        named = ", ".join(self._called(value) for value in self.mask_values[:_NAMED])
        more = f" and {len(self.mask_values) - _NAMED} more" if len(self.mask_values) > _NAMED else ""
        known = sum(stored.facts.labels is not None for stored in self.stored)
        return f"{known:,} of {len(self):,} volumes have a mask of {named}{more}"

    def _called(self, value: int) -> str:
        name = self.spec.classes[value]
        return name if name == str(value) else f"{value} {name}"

    @property
    def mask_values(self) -> Sequence[int]:
        """The values that any mask holds, ascending."""
        return sorted({value for stored in self.stored for value in stored.facts.labels or ()})

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
    source = collect(layout.cases, options, wishes, layout.classes, layout.ignored)
    source.notes = (*layout.notes, *source.notes)
    at = {name: i for i, name in enumerate(source.names)}
    for split, positions in layout.splits.items():
        kept = [at[name] for i in positions if (name := layout.cases[int(i)].name) in at]
        if kept:
            source.splits[split] = np.array(kept, np.int64)
    source.skipped = (*layout.bad, *source.skipped)
    return source


def collect(
    cases: Sequence[Case],
    options: Options,
    wishes: VolumeOptions,
    named: Mapping[int, str] | None = None,
    ignored: int | None = None,
) -> Volumes:
    """These volumes decoded, as a source.

    named: names of the classes by label value, if these are known. ignored: the value of voxels that nobody
        labelled.

    Raises:
        BadFile: one cannot be used and `on_bad_file` is "stop".
        TacitError: none can be used, or the cache cannot be written.
    """
    window = Window.parse(wishes.window)
    found = store_volumes(cases, options, wishes.spacing)
    channels = options.channels or _most_common(found)
    kept: list[tuple[str, Stored]] = []
    skipped: list[Skipped] = []
    distinct = {
        case.name: stored.facts.distinct
        for case, stored in zip(cases, found, strict=True)
        if not isinstance(stored, BadFile)
    }
    mistaken, doubtful = taken_for_volumes(distinct)
    for case, stored in zip(cases, found, strict=True):
        if isinstance(stored, BadFile):
            reason = stored.reason
        else:
            reason = mistaken.get(case.name) or _unfit(stored, channels, window, named, ignored)
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
    source = Volumes(
        Names.of(names),
        volumes,
        window=window,
        spacing=wishes.spacing,
        patch=wishes.patch,
        classes=_classes(volumes, named or {}),
        skipped=skipped,
    )
    source.notes = (*few_values(doubtful), *empty_classes(source), *geometry_notes(names, volumes))
    return source


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


def _unfit(
    stored: Stored, channels: int, window: Window, named: Mapping[int, str] | None, ignored: int | None
) -> str:
    """Why a volume that could be decoded does not go with the others; "" if it does."""
    facts = stored.facts
    if facts.shape[0] != channels:
        return f"{facts.shape[0]} channels (volumes along the fourth axis) where {channels} are wanted"
    if reason := window.shows_nothing(stored.values):
        return reason
    if ignored is not None and ignored in (facts.labels or ()):
        return (
            f"its mask holds {ignored}, which dataset.json calls 'ignore': voxels that nobody labelled are "
            "not supported"
        )
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
