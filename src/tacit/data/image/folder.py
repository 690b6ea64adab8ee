"""Image folders, with or without class folders, and what their folder names say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tacit.data.foreign import how_to_read
from tacit.data.image.build import store_images
from tacit.data.image.index import indexed
from tacit.data.image.listing import EXTENSIONS, Listing
from tacit.data.image.mask_layout import find_masks
from tacit.data.image.masks import MaskedImages, with_masks
from tacit.data.image.store import StoredImages
from tacit.data.image.tree import Tree, read_tree
from tacit.data.options import Options
from tacit.data.splits import as_splits, positions_of
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

    Two or more folders of the first level are the classes; images beside them, or in a folder that is called
    `unlabelled`, have no label. If the folders are called as splits (`train`, `Testing`, `val2017`,
    `unlabeled`, ...; see `part_of`), the second level gives the classes, one list for all splits. A single
    folder that holds all the others is passed over.

    Masks go before classes; see `find_masks` for where they are looked for.

    others: extensions of files of other kinds that are read, to be named where no image is found.
    masks: a folder that holds the masks. masks_aside: leave masks aside; their files are no images even so.

    Raises:
        UsageError: the folder holds no image file, or as `read_tree`, `find_masks` and `with_masks`.
        BadFile, TacitError: as `store_images`.
    """
    listing = indexed(folder, options)
    if not len(listing.names):
        raise UsageError(_nothing_found(folder, listing, others))
    if listing.closed and options.on_bad_file == "stop":
        raise BadFile(*listing.closed[0])
    layout = find_masks(listing, options, masks, aside=masks_aside)
    listing = layout.images
    tree, folder_of = read_folders(listing, options, folder, aside=masks_aside or bool(layout.mask_of))
    source = store_images(listing, options)
    source.root = listing.root
    source.skipped = (*listing.closed, *layout.bad, *source.skipped)
    if layout.mask_of:
        source.notes = tuple(layout.notes)
        if not masks_aside and layout.mask_of.keys() & set(source.names):
            return with_masks(source, layout, options)
        source.splits = layout.splits(source.names, options.folders)
        return source
    of_image = source.kept(folder_of)
    source.labels = tree.labels[of_image]
    source.splits = as_splits(positions_of(np.array(tree.parts)[of_image]))
    source.notes = (*layout.notes, *tree.notes)
    source.spec = replace(source.spec, classes=tree.classes)
    return source


def read_folders(
    listing: Listing, options: Options, where: Path, *, aside: bool = False
) -> tuple[Tree, np.ndarray]:
    """What the folders that hold images say, and which of them each file lies in, (N,) int64.

    By folder, because there are fewer folders than files. where, aside: see `read_tree`.
    """
    holding = np.flatnonzero(np.bincount(listing.folder_of, minlength=len(listing.folders)))
    folders = [listing.folders[int(k)] for k in holding]
    row = np.zeros(len(listing.folders), np.int64)
    row[holding] = np.arange(len(holding))
    return read_tree(folders, where, options.folders, aside=aside), row[listing.folder_of]


def _nothing_found(folder: Path, listing: Listing, others: Sequence[str]) -> str:
    read = f"no images or volumes in {folder} (read are {' '.join((*EXTENSIONS, *others))})"
    if listing.closed:
        return f"{read}: {listing.closed[0].name}: {listing.closed[0].reason}"
    count, kinds = listing.others.total(), listing.others.most_common(4)
    if not count:
        return f"{read}: it is empty"
    how = how_to_read(dict(listing.others.most_common()), folder)
    more = f"; {how}" if how else ""
    if len(kinds) == 1:
        files = f"{count} files, all" if count > 1 else "1 file,"
        return f"{read}: it holds {files} {kinds[0][0] or 'without an extension'}{more}"
    named = ", ".join(f"{number} {extension or 'without an extension'}" for extension, number in kinds)
    return f"{read}: it holds {count} files ({named}{', ...' if len(listing.others) > 4 else ''}){more}"
