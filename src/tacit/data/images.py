"""Image folders, with or without class folders, and what their folder names say."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tacit.data.decoding import Decoded, Form, Header, damage_named, decode, peak, read_bytes, read_header
from tacit.data.labels import sort_classes
from tacit.data.source import UNLABELLED, Skipped
from tacit.data.store import Options, StoredImages, evenly, store_images
from tacit.errors import BadFile, UsageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".npy")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MAYBE_DEEP = (".png", ".tif", ".tiff", ".npy")


@dataclass(slots=True)
class Listing:
    """The image files below a folder, sorted by name: paths below it, sizes in bytes, times in ns."""

    root: Path
    names: list[str]
    sizes: list[int]
    times: list[int]
    others: Counter[str] = field(default_factory=Counter)  # other files by extension
    closed: list[Skipped] = field(default_factory=list)  # folders that may not be read

    def identity(self) -> Iterator[bytes]:
        """Place, names, sizes and times."""
        yield os.fsencode(self.root)
        for name, size, time in zip(self.names, self.sizes, self.times, strict=True):
            yield os.fsencode(f"{name}\0{size}\0{time}")

    def white_from(self) -> Sequence[int]:
        """Evenly spaced files whose kind allows more than 8 bits."""
        maybe = [i for i, name in enumerate(self.names) if name.lower().endswith(_MAYBE_DEEP)]
        return evenly(maybe)

    def header(self, i: int) -> Header:
        """The file's header; raises `BadFile`."""
        name = self.names[i]
        with damage_named(name), open(self.root / name, "rb") as file:
            return read_header(name, file)

    def peak(self, i: int) -> int:
        """The file's largest value, 0 if it has 8 bits or cannot be read."""
        try:
            return peak(self.names[i], read_bytes(self.root / self.names[i], self.names[i]))
        except BadFile:
            return 0

    def decode(self, i: int, form: Form) -> Decoded:
        """The file's pixels; raises `BadFile`."""
        name = self.names[i]
        return decode(name, read_bytes(self.root / name, name), form)


def open_folder(folder: Path, options: Options) -> StoredImages:
    """The images below a folder, with the classes and splits that its subfolders name.

    If every image lies below a first-level folder, and there are two or more, these are the classes.
    If all of them are called train, val, valid, validation or test, they are splits, and the second
    level gives the classes, one list for all splits. Otherwise the images are unlabelled.

    Raises:
        UsageError: the folder holds no image file.
        BadFile, TacitError: as `store_images`.
    """
    listing = list_images(folder)
    if not listing.names:
        raise UsageError(_nothing_found(folder, listing))
    if listing.closed and options.on_bad_file == "stop":
        raise BadFile(*listing.closed[0])
    source = store_images(listing, options)
    source.skipped = (*listing.closed, *source.skipped)
    tree = read_tree(listing.names)
    source.labels, source.splits = tree.labels(source.names), tree.splits(source.names)
    source.spec = replace(source.spec, classes=tree.classes)
    return source


def list_images(folder: Path) -> Listing:
    """All image files below `folder`; what begins with a dot is left out. Links are followed."""
    rows: list[tuple[str, int, int]] = []
    others: Counter[str] = Counter()
    closed: list[Skipped] = []
    root = folder.resolve()
    pending = [(root, "", frozenset({_inode(root)}))]
    while pending:
        place, prefix, above = pending.pop()
        try:
            entries = os.scandir(place)
        except OSError as error:
            closed.append(Skipped(prefix or str(folder), f"folder cannot be read: {error.strerror}"))
            continue
        with entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    inode = _inode(entry.path) if entry.is_symlink() else None
                    if inode not in above:  # a link to a folder that it lies in never ends
                        here = above | {inode or _inode(entry.path)}
                        pending.append((Path(entry.path), f"{prefix}{entry.name}/", here))
                    continue
                extension = os.path.splitext(entry.name)[1].lower()
                if extension not in EXTENSIONS:
                    others[extension] += 1
                elif entry.is_file():
                    state = entry.stat()
                    rows.append((prefix + entry.name, state.st_size, state.st_mtime_ns))
                elif entry.is_symlink():
                    rows.append((prefix + entry.name, -1, 0))
    rows.sort()
    names, sizes, times = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    return Listing(root, names, sizes, times, others, sorted(closed))


class Tree(NamedTuple):
    """What the subfolders' names say: the classes, and whether the first level are splits."""

    classes: tuple[str, ...]
    split: bool

    def labels(self, names: Sequence[str]) -> np.ndarray:
        """(N,) int64 class numbers, -1 where the folder is no class."""
        numbers = {name: k for k, name in enumerate(self.classes)}
        folders = (_folder(name, int(self.split)) for name in names)
        return np.fromiter((numbers.get(f, UNLABELLED) for f in folders), np.int64, len(names))

    def splits(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Positions by split, ascending; empty if the folders are no splits."""
        if not self.split:
            return {}
        of = np.array([SPLITS[_folder(name, 0).lower()] for name in names])
        return {split: np.flatnonzero(of == split) for split in dict.fromkeys(SPLITS.values()) if split in of}


def read_tree(names: Sequence[str]) -> Tree:
    """Classes and splits from paths like `cats/1.jpg` or `train/cats/1.jpg`; see `open_folder`.

    A split is labelled if all its images lie below two or more folders of the second level, so that
    `test/images/1.jpg` adds no class. Whole numbers are sorted as numbers.
    """
    first = {_folder(name, 0) for name in names}
    if "" in first or len(first) < 2:
        return Tree((), split=False)
    if not {folder.lower() for folder in first} <= SPLITS.keys():
        return Tree(sort_classes(first), split=False)
    second: dict[str, set[str]] = {}
    for name in names:
        second.setdefault(_folder(name, 0), set()).add(_folder(name, 1))
    labelled = [classes for classes in second.values() if "" not in classes and len(classes) > 1]
    return Tree(sort_classes(set().union(*labelled)), split=True)


def _folder(name: str, level: int) -> str:
    """The folder of this level in a path, "" if the file lies above it."""
    parts = name.split("/", level + 1)
    return parts[level] if len(parts) > level + 1 else ""


def _inode(path: str | Path) -> tuple[int, int]:
    state = os.stat(path)
    return state.st_dev, state.st_ino


def _nothing_found(folder: Path, listing: Listing) -> str:
    read = f"no images in {folder} (read are {' '.join(EXTENSIONS)})"
    if listing.closed:
        return f"{read}: {listing.closed[0].name}: {listing.closed[0].reason}"
    count, kinds = listing.others.total(), listing.others.most_common(4)
    if not count:
        return f"{read}: it is empty"
    if len(kinds) == 1:
        return f"{read}: it holds {count} files, all {kinds[0][0] or 'without an extension'}"
    named = ", ".join(f"{number} {extension or 'without an extension'}" for extension, number in kinds)
    return f"{read}: it holds {count} files ({named}{', ...' if len(listing.others) > 4 else ''})"
