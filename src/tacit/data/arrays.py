"""Arrays in an `.npz` archive, as MedMNIST has them: `train_images`, `train_labels`, `val_images`, ..."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from tacit.data.decoding import Decoded, Form, Header, array_header, fit_array
from tacit.data.images import SPLITS
from tacit.data.labels import sort_classes
from tacit.data.source import UNLABELLED
from tacit.data.store import Options, StoredImages, store_images
from tacit.errors import BadFile, UsageError

_PAIRS = (("images", "labels"), ("x", "y"), ("X", "y"), ("X", "Y"))


class Archive:
    """The arrays of an `.npz` file; each is read when it is asked for, and only when no store exists."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        try:
            with np.load(path, allow_pickle=False) as archive:
                self.members = archive.files
        except (ValueError, OSError, BadZipFile, AttributeError, EOFError):
            raise UsageError(f"{path} is not an .npz archive, or it is damaged") from None
        self.splits = _find_members(self.members)
        if not self.splits:
            raise UsageError(
                f"{path} holds no images: train_images and train_labels, or images and labels, or x and y "
                f"are looked for, and it has {', '.join(self.members[:8]) or 'nothing'}"
            )

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """The images of each split, (N, H, W) or (N, H, W, C), uint8 or uint16."""
        return [self._images(images) for images, _ in self.splits.values()]

    @cached_property
    def names(self) -> Sequence[str]:
        """`train/000017`, or `000017` without splits."""
        prefixes = [f"{split}/" if split else "" for split in self.splits]
        return [
            f"{prefix}{i:06d}"
            for prefix, array in zip(prefixes, self.arrays, strict=True)
            for i in range(len(array))
        ]

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *map(len, self.arrays)])

    def _at(self, i: int) -> np.ndarray:
        which = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.arrays[which][i - self._starts[which]]

    def identity(self) -> Iterator[bytes]:
        """Place, size and time of the file."""
        state = self.path.stat()
        yield os.fsencode(f"{self.path}\0{state.st_size}\0{state.st_mtime_ns}")

    def white_from(self) -> Sequence[int]:
        """All images, if they have more than 8 bits."""
        return range(len(self.names)) if any(a.dtype == np.uint16 for a in self.arrays) else ()

    def header(self, i: int) -> Header:
        """Size and kind of one image."""
        image = self._at(i)
        return array_header(self.names[i], image.shape, image.dtype)

    def peak(self, i: int) -> int:
        """The largest value of one image."""
        return int(self._at(i).max()) if self._at(i).dtype == np.uint16 else 0

    def decode(self, i: int, form: Form) -> Decoded:
        """One image, brought to the form."""
        image = self._at(i)
        digest = blake2b(f"{image.shape} {image.dtype.name}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(image).data)
        return Decoded(fit_array(self.names[i], image, form), image.shape[:2], digest.digest())

    def labels(self, split: str) -> np.ndarray | None:
        """(N,) labels of a split as they stand in the archive, or None."""
        member = self.splits[split][1]
        if member is None:
            return None
        labels = self._load(member)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise UsageError(
                f"{self.path}: {member} has shape {labels.shape}, several labels an image; one is needed"
            )
        if labels.dtype.kind == "f" and (labels == labels.round()).all():
            labels = labels.astype(np.int64)
        if labels.dtype.kind not in "iubUS":
            raise UsageError(
                f"{self.path}: {member} has dtype {labels.dtype}; class numbers or names are needed"
            )
        return labels

    def _images(self, member: str) -> np.ndarray:
        images = whole_numbers(self._load(member), f"{self.path}: {member}")
        if images.ndim not in (3, 4) or not len(images):
            raise UsageError(
                f"{self.path}: {member} has shape {images.shape}; (N, height, width) or "
                "(N, height, width, channels) is read"
            )
        try:
            array_header(member, images.shape[1:], images.dtype)
        except BadFile as bad:
            raise UsageError(f"{self.path}: {member}: {bad.reason}") from None
        return images

    def _load(self, member: str) -> np.ndarray:
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return archive[member]
        except ValueError:
            raise UsageError(
                f"{self.path}: {member} holds Python objects, which are not loaded; save it as numbers"
            ) from None
        except (OSError, BadZipFile, EOFError) as error:
            raise UsageError(f"{self.path}: {member} is damaged: {error}") from None


def open_archive(path: Path, options: Options) -> StoredImages:
    """The images of an `.npz` archive; they go through the store whatever their size.

    Splits are read by MedMNIST's names (`train_images`, `train_labels`) and by Keras' (`x_train`,
    `y_train`); one set is `images`, `x` or `X` with `labels`, `y` or `Y`. Values: uint8, uint16 (one
    white for all arrays), and other whole numbers of these ranges. Fractions are refused, because
    their range is not known.

    Raises:
        UsageError: not such an archive; what and where in one line.
    """
    archive = Archive(path)
    source = store_images(archive, options)
    splits = np.array([name.rpartition("/")[0] for name in source.names])
    found = {split: labels for split in archive.splits if (labels := archive.labels(split)) is not None}
    text = {split: [str(label) for label in labels] for split, labels in found.items()}
    classes = sort_classes(set().union(*text.values()) - {"-1"})
    number = {name: k for k, name in enumerate(classes)}
    for split, names in text.items():
        here = splits == split
        if here.sum() != len(names):
            member = archive.splits[split][1]
            raise UsageError(f"{path}: {member} has {len(names)} labels for {here.sum()} images")
        source.labels[here] = [number.get(name, UNLABELLED) for name in names]
    source.spec = replace(source.spec, classes=classes)
    source.splits = {split: np.flatnonzero(splits == split) for split in archive.splits if split}
    return source


def whole_numbers(array: np.ndarray, where: str) -> np.ndarray:
    """The array as uint8 or uint16, if that loses nothing.

    Raises:
        UsageError: its values are fractions, or out of range.
    """
    if array.dtype in (np.uint8, np.uint16) or not array.size:
        return array
    if array.dtype.kind not in "iuf":
        raise UsageError(f"{where} has dtype {array.dtype}; uint8 or uint16 is needed")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 65_535) or (array.dtype.kind == "f" and not (array == array.round()).all()):
        mend = "; multiply by 255, round, and save as uint8" if low >= 0 and high <= 1 else ""
        raise UsageError(
            f"{where} has dtype {array.dtype} with values from {low:g} to {high:g}; "
            f"whole numbers from 0 to 255 or 65535 are read{mend}"
        )
    return array.astype(np.uint8 if high <= 255 else np.uint16)


def _find_members(members: Sequence[str]) -> dict[str, tuple[str, str | None]]:
    """(images, labels or None) by split; the split is "" if there is one set only."""
    layouts = [
        *((SPLITS[split], f"{split}_{x}", f"{split}_{y}") for split in SPLITS for x, y in _PAIRS),
        *((SPLITS[split], f"{x}_{split}", f"{y}_{split}") for split in SPLITS for x, y in _PAIRS),
    ]
    found = {split: (x, y) for split, x, y in layouts if x in members}
    if not found:
        found = dict(("", pair) for pair in reversed(_PAIRS) if pair[0] in members)
    return {split: (x, y if y in members else None) for split, (x, y) in found.items()}
