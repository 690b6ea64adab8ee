"""Volumes in an `.npz` archive with a class each, as MedMNIST's 3D sets are: `train_images`, (N, D, H, W)."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from tacit.data.image.arrays import Archive, take_labels
from tacit.data.numpy_files import member_header
from tacit.data.options import Options
from tacit.data.volume.files import check_voxels
from tacit.data.volume.options import VolumeOptions
from tacit.data.volume.store import Loaded
from tacit.data.volume.volumes import Volumes, collect
from tacit.errors import UsageError

SMALLEST = 16  # entries of the last axis from which it is not taken for channels


def holds_volume_archive(path: Path, options: Options, wishes: VolumeOptions) -> bool:
    """Whether the arrays of an archive are volumes, (N, D, H, W), by their headers.

    Of arrays with four axes those are volumes whose last three have 16 entries or more, because images have
    fewer channels. `channels` says that they are images with that many; a patch, spacing or window that
    they are volumes.
    """
    try:
        shapes = [_shape(path, images) for images, _ in Archive(path).splits.values()]
    except (
        OSError,
        ValueError,
        KeyError,
        BadZipFile,
        EOFError,
        zlib.error,
        RuntimeError,
    ):  # reading it as images will say what is wrong
        return False
    if not shapes or any(len(shape) != 4 for shape in shapes):
        return False
    if wishes.given:
        return True
    return all(min(shape[1:]) >= SMALLEST and shape[3] != options.channels for shape in shapes)


def open_volume_archive(path: Path, options: Options, wishes: VolumeOptions) -> Volumes:
    """The volumes of an archive, axes as they are, 1 mm; splits and labels as `open_archive` reads them.

    Raises:
        UsageError: masks, which such archives do not have; labels that do not go with the volumes.
        BadFile, TacitError: as `collect`.
    """
    if wishes.masks is not None:
        raise UsageError(f"masks are for a folder of volumes, and {path} is one archive")
    archive = _VolumeArchive(path)
    cases = [_Row(name, archive, i) for i, name in enumerate(archive.names)]
    source = collect(cases, options, wishes)
    take_labels(source, archive, path)
    return source


class _VolumeArchive(Archive):
    def _images(self, member: str) -> np.ndarray:
        images = self._load(member)
        if images.ndim != 4 or not len(images):
            raise UsageError(
                f"{self.path}: {member} has shape {images.shape}; volumes are (N, depth, height, width)"
            )
        return images

    def volume(self, i: int) -> np.ndarray:
        """(D, H, W)."""
        return self._at(i)


class _Row(NamedTuple):
    """One volume of an archive; a `Case` of the store."""

    name: str
    archive: _VolumeArchive
    row: int

    @property
    def origin(self) -> Path:
        """The archive."""
        return self.archive.path

    def identity(self) -> bytes:
        """The archive and the row."""
        return b"".join(self.archive.identity()) + os.fsencode(f"\0{self.name}")

    def load(self) -> Loaded:
        """The voxels; raises `BadFile`."""
        return Loaded(check_voxels(self.name, self.archive.volume(self.row)), np.eye(4))


def _shape(path: Path, member: str) -> tuple[int, ...]:
    """The shape of an array in an archive, which is not read for it."""
    with np.load(path, allow_pickle=False) as archive:
        return member_header(archive, member).shape
