"""Axial slices of volumes as grey images, so that what learns from images learns from volumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from tacit.data.image.build import store_images
from tacit.data.image.decoding import Decoded, Form, Header, array_header, fit_array
from tacit.data.image.store import StoredImages
from tacit.data.names import Names
from tacit.data.options import Options
from tacit.data.volume.files import extension_of
from tacit.data.volume.options import VolumeOptions
from tacit.data.volume.volumes import Volumes, open_volumes
from tacit.errors import UsageError

_SLAB = 32  # voxels that are made grey at a time
_FAINTEST = 0.5 / 255  # of the window: below it a voxel is rounded to black


class Slices:
    """The slices of volumes along their last axis; empty ones, all black, are left out.

    A slice shows x to the right and y, the front of the body, up. It is uint8, 0 and 255 the ends of the
    volume's window; several channels stay channels.

    volumes, levels: (N,) the volume and the z of each slice.
    """

    def __init__(self, source: Volumes, held: int = 4) -> None:
        self.source = source
        found = [self._seen(i) for i in range(len(source))]
        self.volumes = np.repeat(np.arange(len(source)), [len(levels) for levels in found])
        self.levels = np.concatenate(found)
        self._pixels = lru_cache(held)(self._read)  # slices are decoded in order: a volume is read about once

    @cached_property
    def names(self) -> Sequence[str]:
        """`CASE/z017`, with the volume's name without its extension."""
        cases = [name[: len(name) - len(extension_of(name))] for name in self.source.names]
        return Names.of(f"{cases[i]}/z{z:03d}" for i, z in zip(self.volumes, self.levels, strict=True))

    def identity(self) -> Iterator[bytes]:
        """The content of the volumes, the window and the resolution."""
        yield f"slices {self.source.fingerprint} {self.source.window} {self.source.spacing}".encode()

    def white_from(self) -> Sequence[int]:
        """None: slices have 8 bits."""
        return ()

    def header(self, i: int) -> Header:
        """Size and kind of a slice."""
        channels, width, height, _ = self.source.stored[int(self.volumes[i])].facts.shape
        shape = (height, width) if channels == 1 else (height, width, channels)
        return array_header(self.names[i], shape, np.dtype(np.uint8))

    def peak(self, i: int) -> int:
        """0: slices have 8 bits."""
        return 0

    def decode(self, i: int, form: Form) -> Decoded:
        """A slice, brought to the form."""
        self.header(i)
        voxels = self._pixels(int(self.volumes[i]))[..., int(self.levels[i])]
        pixels = np.moveaxis(voxels, 0, 2).swapaxes(0, 1)[::-1]  # (Y, X, C), the front up
        pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        digest = blake2b(f"{pixels.shape}".encode(), digest_size=16)
        digest.update(pixels.data)
        return Decoded(fit_array(self.names[i], pixels, form), pixels.shape[:2], digest.digest())

    def _seen(self, i: int) -> np.ndarray:
        """The z of the slices that are not all black, ascending."""
        volume = self.source.stored[i]
        low, high = self.source.limits(i)
        with np.errstate(divide="ignore", invalid="ignore"):
            brightest = (np.array(volume.facts.peaks) - low[:, None]) / (high - low)[:, None]
        return np.flatnonzero((brightest > _FAINTEST).any(0))

    def _read(self, i: int) -> np.ndarray:
        """(C, X, Y, Z) uint8, made slab by slab, because the float32 values would take four times as much."""
        volume = self.source.volume(i)
        pixels = np.empty((volume.channels, *volume.shape), np.uint8)
        for x in range(0, volume.shape[0], _SLAB):
            size = min(_SLAB, volume.shape[0] - x)
            voxels = volume.read((x, 0, 0), (size, *volume.shape[1:]))
            pixels[:, x : x + size] = (voxels * 255).round().byte().numpy()
        return pixels


def open_slices(folder: Path, options: Options, wishes: VolumeOptions) -> StoredImages:
    """Every axial slice of the volumes below a folder, grey images without labels.

    The slices of a volume are a group (`source.groups`). Splits are those of the volumes.

    Raises:
        UsageError: as `open_volumes`; a patch, which slices do not have.
        BadFile, TacitError: as `open_volumes` and `store_images`.
    """
    if wishes.patch is not None:
        raise UsageError("patch is for volumes; slices are images, with --size")
    volumes = open_volumes(folder, replace(options, channels=None, size=None), wishes)
    slices = Slices(volumes)
    source = store_images(slices, options)
    source.skipped = (*volumes.skipped, *source.skipped)
    source.notes = (*source.notes, *volumes.notes)
    groups = source.groups = source.kept(slices.volumes)
    source.splits = {
        split: np.flatnonzero(np.isin(groups, positions)) for split, positions in volumes.splits.items()
    }
    return source
