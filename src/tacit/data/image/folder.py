"""Image folders, with or without class folders, and what their folder names say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tacit.data.image.build import store_images
from tacit.data.image.index import indexed
from tacit.data.image.listing import EXTENSIONS, Listing
from tacit.data.image.mask_layout import find_masks
from tacit.data.image.masks import MaskedImages, with_masks
from tacit.data.image.store import StoredImages
from tacit.data.labels import sort_classes
from tacit.data.options import Options
from tacit.data.reading import SPLITS
from tacit.data.source import UNLABELLED
from tacit.errors import BadFile, UsageError


def open_folder(
    folder: Path,
    options: Options,
    *,
    others: Sequence[str] = (),
    masks: Path | None = None,
    masks_aside: bool = False,
) -> StoredImages | MaskedImages:
    """The images below a folder, with their masks, or the classes and splits that its subfolders name.

    If every image lies below a first-level folder, and there are two or more, these are the classes.
    If all of them are called train, val, valid, validation or test, they are splits, and the second
    level gives the classes, one list for all splits. Otherwise the images are unlabelled.

    Masks go before classes; see `find_masks` for where they are looked for.

    others: extensions of files of other kinds that are read, to be named where no image is found.
    masks: a folder that holds the masks. masks_aside: leave masks aside; their files are no images even so.

    Raises:
        UsageError: the folder holds no image file, or as `find_masks` and `with_masks`.
        BadFile, TacitError: as `store_images`.
    """
    listing = indexed(folder, options)
    if not len(listing.names):
        raise UsageError(_nothing_found(folder, listing, others))
    if listing.closed and options.on_bad_file == "stop":
        raise BadFile(*listing.closed[0])
    layout = find_masks(listing, options, masks, aside=masks_aside)
    listing = layout.images
    if options.progress:
        for note in layout.notes:
            print(f"note: {note}", file=sys.stderr)
    source = store_images(listing, options)
    source.root = listing.root
    source.skipped = (*listing.closed, *layout.bad, *source.skipped)
    if layout.mask_of:
        if not masks_aside and layout.mask_of.keys() & set(source.names):
            return with_masks(source, layout, options)
        source.splits = layout.splits(source.names)
        return source
    known = read_folders(listing)
    source.labels = source.kept(known.labels)
    parts = {split: np.flatnonzero(source.kept(there)) for split, there in known.splits.items()}
    source.splits = {split: positions for split, positions in parts.items() if len(positions)}
    source.spec = replace(source.spec, classes=known.classes)
    return source


class Known(NamedTuple):
    """What the folders say of N files.

    labels: (N,) int64, -1 where the folder is no class. splits: (N,) bool by split, which lie in it.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    splits: dict[str, np.ndarray]


def read_folders(listing: Listing) -> Known:
    """Classes, labels and splits, by folder, because there are fewer folders than files."""
    holding = np.flatnonzero(np.bincount(listing.folder_of, minlength=len(listing.folders)))
    folders = [listing.folders[int(k)] for k in holding]
    tree = read_tree(folders)
    numbers = np.full(len(listing.folders), UNLABELLED, np.int64)
    numbers[holding] = tree.labels(folders)
    splits = {}
    for split, those in tree.splits(folders).items():
        inside = np.zeros(len(listing.folders), bool)
        inside[holding[those]] = True
        splits[split] = inside[listing.folder_of]
    return Known(tree.classes, numbers[listing.folder_of], splits)


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


def _nothing_found(folder: Path, listing: Listing, others: Sequence[str]) -> str:
    read = f"no images or volumes in {folder} (read are {' '.join((*EXTENSIONS, *others))})"
    if listing.closed:
        return f"{read}: {listing.closed[0].name}: {listing.closed[0].reason}"
    count, kinds = listing.others.total(), listing.others.most_common(4)
    if not count:
        return f"{read}: it is empty"
    if len(kinds) == 1:
        return f"{read}: it holds {count} files, all {kinds[0][0] or 'without an extension'}"
    named = ", ".join(f"{number} {extension or 'without an extension'}" for extension, number in kinds)
    return f"{read}: it holds {count} files ({named}{', ...' if len(listing.others) > 4 else ''})"
