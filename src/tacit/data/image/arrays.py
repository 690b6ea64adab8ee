"""Arrays in an `.npz` archive, as MedMNIST has them: `train_images`, `train_labels`, `val_images`, ..."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import cast
from zipfile import BadZipFile

import numpy as np

from tacit.data.image.build import store_images
from tacit.data.image.decoding import Decoded, Form, Header, array_header, fit_array
from tacit.data.image.store import StoredImages
from tacit.data.labels import is_missing, sort_classes
from tacit.data.names import Names, spelled
from tacit.data.options import Options
from tacit.data.source import UNLABELLED, Source
from tacit.data.splits import EXTRA, NO_LABELS, SPLITS, as_splits, part_of
from tacit.errors import BadFile, UsageError

_PAIRS = (("images", "labels"), ("x", "y"), ("X", "y"), ("X", "Y"))


class Archive:
    """The arrays of an `.npz` file; each is read when it is asked for, and only when no store exists."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._spoilt: dict[str, np.ndarray] = {}
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
        return Names.of(
            f"{prefix}{i:06d}"
            for prefix, array in zip(prefixes, self.arrays, strict=True)
            for i in range(len(array))
        )

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *map(len, self.arrays)])

    def _at(self, i: int) -> np.ndarray:
        which = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.arrays[which][i - self._starts[which]]

    def _finite(self, i: int) -> np.ndarray:
        if i in self._not_finite:
            raise BadFile(self.names[i], "it holds NaN or infinite values")
        return self._at(i)

    def identity(self) -> Iterator[bytes]:
        """Place, size and time of the file."""
        state = self.path.stat()
        yield os.fsencode(f"{self.path}\0{state.st_size}\0{state.st_mtime_ns}")

    def white_from(self) -> Sequence[int]:
        """All images, if they have more than 8 bits."""
        return range(len(self.names)) if any(a.dtype == np.uint16 for a in self.arrays) else ()

    def header(self, i: int) -> Header:
        """Size and kind of one image."""
        image = self._finite(i)
        return array_header(self.names[i], image.shape, image.dtype)

    def peak(self, i: int) -> int:
        """The largest value of one image."""
        return int(self._at(i).max()) if self._at(i).dtype == np.uint16 else 0

    def decode(self, i: int, form: Form) -> Decoded:
        """One image, brought to the form."""
        image = self._finite(i)
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

    @cached_property
    def _not_finite(self) -> frozenset[int]:
        """Positions of images that hold NaN or infinite values."""
        members = [images for images, _ in self.splits.values()]
        spoilt = [self._spoilt[m] + start for m, start in zip(members, self._starts[:-1], strict=True)]
        return frozenset(np.concatenate(spoilt).tolist())

    def _images(self, member: str) -> np.ndarray:
        held = self._load(member)
        self._spoilt[member] = _blank_not_finite(held)
        images = whole_numbers(held, f"{self.path}: {member}")
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
    take_labels(source, archive, path)
    return source


def take_labels(source: Source, archive: Archive, path: Path) -> None:
    """Give a source that was made from an archive its labels, classes and splits.

    Raises:
        UsageError: labels that do not go with the samples.
    """
    names = cast(Names, source.names)
    here = {split: names.starting(f"{split}/" if split else "") for split in archive.splits}
    found = {split: labels for split in archive.splits if (labels := archive.labels(split)) is not None}
    known = {split: np.unique(labels, return_inverse=True) for split, labels in found.items()}
    classes = sort_classes({_class(label) for labels, _ in known.values() for label in labels} - {""})
    number = {name: k for k, name in enumerate(classes)}
    for split, (labels, which) in known.items():
        skipped = _skipped(source, split)
        if (count := np.count_nonzero(here[split]) + len(skipped)) != len(which):
            member = archive.splits[split][1]
            raise UsageError(f"{path}: {member} has {len(which)} labels for {count} {source.spec.modality}s")
        which = np.delete(which, skipped)
        numbers = np.array([number.get(_class(label), UNLABELLED) for label in labels], np.int64)
        source.labels[here[split]] = numbers[which]
    source.spec = replace(source.spec, classes=classes)
    source.splits = as_splits((split, np.flatnonzero(here[split])) for split in archive.splits if split)


def _class(label: object) -> str:
    """The name of a class as it stands in an array; "" where it says that there is none."""
    text = label.decode("utf-8", "surrogateescape") if isinstance(label, bytes) else str(label)
    return "" if is_missing(text) else spelled(text)


def _skipped(source: Source, split: str) -> list[int]:
    """Rows of a split that were left out."""
    names = (bad.name.rpartition("/") for bad in source.skipped)
    return [int(number) for found, _, number in names if found == split]


def _blank_not_finite(images: np.ndarray) -> np.ndarray:
    """Rows (n,) that hold NaN or infinite values, set to 0 in place; none if there are no others."""
    if images.dtype.kind != "f" or images.ndim < 2:
        return np.empty(0, np.int64)
    rows = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(1))
    if len(rows) == len(images):  # not a spoilt image, but a wrong array
        return rows[:0]
    images[rows] = 0
    return rows


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
    found: dict[str, tuple[str, str]] = {}
    for (x, y), member in product(_PAIRS, members):
        before, after = member.removesuffix(f"_{x}"), member.removeprefix(f"{x}_")
        if before != member and (part := part_of(before)):
            found[part] = member, f"{before}_{y}"
        elif after != member and (part := part_of(after)):
            found[part] = member, f"{y}_{after}"
    found = {part: found[part] for part in (*SPLITS, NO_LABELS, EXTRA) if part in found}
    if not found:
        found = dict(("", pair) for pair in reversed(_PAIRS) if pair[0] in members)
    return {split: (x, y if y in members else None) for split, (x, y) in found.items()}
