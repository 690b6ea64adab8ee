"""Which of the image files below a folder are masks, and which image each of them belongs to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tacit.data.image.index import indexed
from tacit.data.image.listing import EXTENSIONS, Listing
from tacit.data.image.mask_files import LOOKED_AT, looks_like_masks
from tacit.data.image.originals import evenly
from tacit.data.names import spelled
from tacit.data.options import Options
from tacit.data.source import Skipped
from tacit.data.splits import Folders, as_splits, by_folder, positions_of
from tacit.errors import BadFile, UsageError

IMAGE_FOLDERS = {"images": "", "image": "", "imgs": "", "img": "", "imagestr": "", "imagests": "test"}
MASK_FOLDERS = {
    **dict.fromkeys(("masks", "mask", "labels", "label", "annotations", "segmentations", "labelstr"), ""),
    "labelsts": "test",
}
_SUFFIX = re.compile(r"(?<=[^/])[_-](?:mask|seg|labels?)(?:_?\d+)?$", re.IGNORECASE)
_MAYBE_SUFFIX = (b"_mask", b"-mask", b"_seg", b"-seg", b"_label", b"-label")
_ANYWHERE = "*"  # instead of a part: the path is a last name alone


class _Key(NamedTuple):
    """What an image and its mask have in common: test or train of nnU-Net, and the path without its kind."""

    part: str
    path: str


class _Keys(NamedTuple):
    """exact: the whole path. loose: of a mask, another that an image may have, if it fits none exactly."""

    exact: _Key
    loose: _Key | None = None


@dataclass
class Layout:
    """The images below a folder and their masks.

    images: the files that are no masks. files: the listing of the masks. mask_of: the position in `files` of
    the mask of each image that has one, by the image's name. bad: masks without an image, and folders that
    cannot be read. notes: what was not taken for masks though it is called so.
    """

    images: Listing
    files: Listing
    mask_of: dict[str, int] = field(default_factory=dict)
    bad: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def splits(self, names: Iterable[str], folders: Folders | None = None) -> dict[str, np.ndarray]:
        """Positions by split, if all images lie in folders like train, val or test, above `images` or below.

        In nnU-Net's layout `imagesTs` is the test split, if it has masks.
        """
        names = list(names)
        keys = [_keys(name, IMAGE_FOLDERS).exact for name in names]
        first = [key.path.split("/")[0] if "/" in key.path else "" for key in keys]
        splits = by_folder(first, self.images.root, folders)
        if not splits and any(key.part and n in self.mask_of for key, n in zip(keys, names, strict=True)):
            return as_splits(positions_of(np.array([key.part or "train" for key in keys])))
        return splits


def find_masks(
    listing: Listing, options: Options, masks: Path | None = None, *, aside: bool = False
) -> Layout:
    """The masks of these images.

    A mask lies in a folder `masks`, `labels`, `annotations` or `segmentations` beside `images` (in upper or
    lower case, singular or plural, above or below folders for splits; nnU-Net's `labelsTr` too), or in one
    below the images, and is called as its image, maybe with `_mask`, `_seg`, `_label` or `_labels` behind;
    or it lies beside its image and is called so. An image without a mask is unlabelled.

    Because class folders can have such names too, this holds only where half of such files or more are called
    as an image is and most look like masks: of few values, or with areas of one value.

    masks: a folder that holds the masks, called as the images are; then no others are used. aside: the masks
    will not be read, so whether each fits an image does not matter.

    Raises:
        UsageError: no images, no such folder, no mask in it for any image, a mask that fits several images,
            an image with two, or, unless bad files are skipped, masks in that folder that fit no image.
        BadFile: a mask elsewhere that fits no image, unless bad files are skipped.
    """
    images = np.ones(len(listing.names), bool)
    apart = None
    if masks is not None:
        apart = _listed(masks, listing, options)
        if apart.root.is_relative_to(listing.root):
            below = apart.root.relative_to(listing.root).as_posix()
            images &= ~listing.names.starting(f"{below}/")
    notes: list[str] = []
    found: dict[int, _Keys] = {}
    for candidates in (_in_mask_folders(listing, images), _with_suffix(listing, images)):
        candidates = {row: keys for row, keys in candidates.items() if row not in found}
        if candidates and _are_masks(listing, images, candidates, notes):
            found |= candidates
            images[list(candidates)] = False
    if not found and apart is None:
        return Layout(listing, listing, notes=notes)
    if not images.any():
        raise UsageError(f"no images in {listing.root}: all files there are masks")
    layout = Layout(listing.only(np.flatnonzero(images)), apart or listing, notes=notes)
    if apart is not None:
        layout.bad += apart.closed
        found = {row: _Keys(*_apart(name)) for row, name in enumerate(apart.names)}
    owners = _owners(dict(enumerate(layout.images.names)), anywhere=apart is not None)
    with suppress(UsageError) if aside else nullcontext():
        _match(layout, found, owners)
    if aside:
        layout.bad.clear()
    elif apart is not None and not layout.mask_of:
        raise UsageError(
            f"no mask in {masks} is called as an image is: the first are {layout.files.names[0]} and "
            f"{layout.images.names[0]}"
        )
    elif layout.bad and options.on_bad_file == "stop":
        _refuse(layout, masks)
    return layout


def _listed(masks: Path, listing: Listing, options: Options) -> Listing:
    if not masks.is_dir():
        raise UsageError(f"no folder of masks {masks}")
    if listing.root.is_relative_to(masks.resolve()):
        raise UsageError(f"masks: {masks} holds the images too: name a folder that holds masks only")
    found = indexed(masks, options)
    if not len(found.names):
        raise UsageError(f"no masks in {masks} (read are {' '.join(EXTENSIONS)})")
    return found


def _in_mask_folders(listing: Listing, among: np.ndarray) -> dict[int, _Keys]:
    """The files in folders that are called as those of masks are."""
    text = listing.folders.text.tobytes().lower()
    if not any(os.fsencode(f"{name}/") in text for name in MASK_FOLDERS):
        return {}
    folders = [
        k for k, path in enumerate(listing.folders) if MASK_FOLDERS.keys() & set(path.lower().split("/"))
    ]
    rows = np.flatnonzero(np.isin(listing.folder_of, folders) & among).tolist()
    return {row: _keys(listing.names[row], MASK_FOLDERS) for row in rows}


def _with_suffix(listing: Listing, among: np.ndarray) -> dict[int, _Keys]:
    """The files that are called as masks beside their images are."""
    text = listing.names.text.tobytes().lower()
    if not any(suffix in text for suffix in _MAYBE_SUFFIX):
        return {}
    names = {row: listing.names[row] for row in np.flatnonzero(among).tolist()}
    return {
        row: _Keys(_keys(name, IMAGE_FOLDERS).exact)
        for row, name in names.items()
        if _SUFFIX.search(_stem(name))
    }


def _are_masks(
    listing: Listing, images: np.ndarray, candidates: Mapping[int, _Keys], notes: list[str]
) -> bool:
    """Whether half of these or more have an image among the others, and look like masks."""
    others = (row for row in np.flatnonzero(images).tolist() if row not in candidates)
    owners = _owners({row: listing.names[row] for row in others}, anywhere=False)
    owned = [row for row, keys in candidates.items() if _fitting(keys, owners)]
    if not owned:
        return False
    first, count = listing.names[owned[0]], len(candidates)
    files = f"{count} file{'s' if count > 1 else ''} called as masks are (such as {first})"
    if 2 * len(owned) < count:
        notes.append(f"{files} are read as images: only {len(owned)} have an image that they fit")
        return False
    if not looks_like_masks([listing.root / listing.names[row] for row in evenly(owned, LOOKED_AT)]):
        notes.append(f"{files} are read as images, because they do not look like masks")
        return False
    return True


def _owners(images: Mapping[int, str], *, anywhere: bool) -> dict[_Key, list[int]]:
    """The images by all keys that a mask of theirs may have.

    anywhere: for masks in a folder of their own, by their last name too.
    """
    owners: dict[_Key, list[int]] = {}
    for row, name in images.items():
        keys = {_keys(name, IMAGE_FOLDERS).exact}
        if anywhere:
            keys = {key._replace(part="") for key in keys} | set(_apart(name))
        for key in keys:
            owners.setdefault(key, []).append(row)
    return owners


def _fitting(keys: _Keys, owners: Mapping[_Key, list[int]]) -> list[int]:
    """The images that a mask fits, by the most exact key that fits any."""
    for key in keys:
        if key is not None:
            bare = key._replace(path=_SUFFIX.sub("", key.path))
            for wanted in (key, bare, bare._replace(path=f"{bare.path}_0000")):
                if fits := owners.get(wanted):
                    return fits
    return []


def _match(layout: Layout, masks: Mapping[int, _Keys], owners: Mapping[_Key, list[int]]) -> None:
    names, of_masks = layout.images.names, layout.files.names
    for row, keys in masks.items():
        fits = _fitting(keys, owners)
        if not fits:
            layout.bad.append(Skipped(of_masks[row], "a mask without an image: no image has its name"))
        elif len(fits) > 1:
            several = ", ".join(names[i] for i in fits[:3])
            raise UsageError(
                f"the mask {of_masks[row]} fits {len(fits)} images ({several}): rename them, or put images "
                "and masks into folders of the same names"
            )
        elif (other := layout.mask_of.setdefault(names[fits[0]], row)) != row:
            raise UsageError(
                f"{names[fits[0]]} has two masks, {of_masks[other]} and {of_masks[row]}: merge them into one"
            )


def _refuse(layout: Layout, masks: Path | None) -> None:
    first, count = layout.bad[0], len(layout.bad)
    if masks is None or not first.reason.startswith("a mask"):
        raise BadFile(*first)
    those = f"{count} masks in {masks} fit" if count > 1 else f"1 mask in {masks} fits"
    raise UsageError(
        f"{those} no image, {first.name} is the first: rename or remove them, or pass --on-bad-file skip"
    )


def _keys(name: str, kinds: Mapping[str, str]) -> _Keys:
    """The keys of a file that may lie in one of these folders, maybe in folders below it."""
    parts = _stem(name).split("/")
    level = next((k for k, folder in enumerate(parts[:-1]) if folder.lower() in kinds), None)
    if level is None:
        return _Keys(_Key("", "/".join(parts)))
    part, above = kinds[parts[level].lower()], parts[:level]
    deep = len(parts) > level + 2
    loose = _Key(part, "/".join([*above, parts[-1]])) if deep else None
    return _Keys(_Key(part, "/".join([*above, *parts[level + 1 :]])), loose)


def _apart(name: str) -> tuple[_Key, _Key]:
    """The keys of a mask in a folder of its own: its path there, and its last name wherever images lie."""
    stem = _stem(name)
    return _Key("", stem), _Key(_ANYWHERE, stem.rpartition("/")[2])


def _stem(name: str) -> str:
    """A path without its extension, in one spelling."""
    return os.path.splitext(spelled(name))[0]
