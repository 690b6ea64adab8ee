"""Which volumes lie below a folder, and which masks are theirs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tacit.data.foreign import how_to_read, left_unread
from tacit.data.image.listing import EXTENSIONS as IMAGES
from tacit.data.reading import is_system
from tacit.data.source import Skipped
from tacit.data.splits import Folders, as_splits, by_folder, positions_of
from tacit.data.volume.bids import bids_owners, is_bids_mask
from tacit.data.volume.class_names import TABLE, read_class_names
from tacit.data.volume.files import EXTENSIONS, NIFTI, extension_of, read_mask, read_volume
from tacit.data.volume.grid import check_affine
from tacit.data.volume.naming import Key, sorted_out, stem_of_volume
from tacit.data.volume.store import Loaded
from tacit.errors import BadFile, UsageError

_LOOKED_AT = 2_000  # entries of a folder that tell what it holds


class VolumeFile(NamedTuple):
    """A volume and its mask, if that is a file of its own; a `Case` of the store.

    name: the volume's path below the folder that was opened.
    """

    name: str
    origin: Path
    mask: Path | None

    def identity(self) -> bytes:
        """Paths, sizes and times."""
        return b"\0".join(_state(path) for path in (self.origin, self.mask) if path is not None)

    def load(self) -> Loaded:
        """The voxels and the mask; raises `BadFile`, under the volume's name."""
        content = read_volume(self.origin, self.name)
        assert content.voxels is not None
        affine = np.eye(4) if content.affine is None else content.affine
        if self.mask is None:
            return Loaded(content.voxels, affine, content.mask, notes=content.notes)
        if content.mask is not None:
            raise BadFile(self.name, f"it holds a mask, and {self.mask.name} is another: remove one of them")
        try:
            apart = read_mask(self.mask, self.name)
            if apart.affine is not None:
                check_affine(self.name, apart.affine)
        except BadFile as bad:
            raise BadFile(self.name, f"its mask {self.mask.name}: {bad.reason}") from None
        of_mask = (f"a mask with {note}" for note in apart.notes if note not in content.notes)
        return Loaded(content.voxels, affine, apart.mask, apart.affine, (*content.notes, *of_mask))


@dataclass
class Layout:
    """What lies below a folder.

    cases: sorted by name. classes: the names by label value that `dataset.json` gives, or none.
    ignored: the value of voxels that nobody labelled, by `dataset.json`. splits: positions by split name.
    bad: masks without a volume, and folders that cannot be read. notes: what a reader could not expect.
    """

    cases: list[VolumeFile]
    classes: dict[int, str] = field(default_factory=dict)
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    bad: list[Skipped] = field(default_factory=list)
    ignored: int | None = None
    notes: tuple[str, ...] = ()


def holds_volumes(folder: Path) -> bool:
    """Whether a folder is one of volumes, by a quick look at what comes first, level by level.

    One NIfTI file decides for volumes, because pictures often lie beside them; HDF5 and `.npz` files decide
    only where there are no images, because features often lie beside those.
    """
    images = arrays = False
    for looked, name in enumerate(_levels(folder)):
        extension = extension_of(name)
        if extension in NIFTI:
            return True
        arrays |= bool(extension)
        images |= name.lower().endswith(IMAGES)
        if looked >= _LOOKED_AT and (images or arrays):
            break
    return arrays and not images


def lay_out(folder: Path, masks: Path | None = None, folders: Folders | None = None) -> Layout:
    """The volumes below a folder with their masks.

    A mask lies in a folder `labels`, `masks`, `segmentations`, `annotations` or `labelsTr` (`labelsVa`,
    `labelsTs`) and is called as its volume in `images` or `imagesTr` (`imagesVa`, `imagesTs`) beside it, or
    above or below it; or it lies beside its volume and is called as that with `_seg`, `_mask`, `_label`,
    `_gt`, `_dseg` or `_segmentation` behind. Upper and lower case, singular and plural make no difference.
    Both may be of different kinds (`.nii` and `.nii.gz`), and a mask in such a folder may have a suffix. In
    nnU-Net's layout the volume of the mask `a.nii.gz` is `a_0000.nii.gz`, in BIDS that of `sub-1_dseg` is
    the only one of `sub-1`. Volumes without a mask are unlabelled. Names that begin with a dot are left out;
    links are followed.

    If the folders of the first level (below the folder, or below `images`) are called as splits
    (`by_folder`), they are splits. If `labelsTs` holds masks, `imagesTs` is the test split and `imagesTr` the
    train split; so `labelsVa` and the val split.

    masks: a folder that holds the masks, called as the volumes are; then no others are looked for.
    folders: what the folders of the first level are, where their names leave it open.

    Raises:
        UsageError: as `by_folder`; no volumes, no such folder, a mask that fits several volumes, a
            `dataset.json` that cannot be read, or channels in files of their own.
    """
    if masks is not None and not masks.is_dir():
        raise UsageError(f"no folder of masks {masks}")
    found = _Found(folder.resolve())
    inside = None if masks is None else masks.resolve()
    if inside == found.root:
        raise UsageError(f"masks: {masks} is the folder of the volumes: name one that holds masks only")
    images, beside = _divide(found, inside)
    if not images:
        raise UsageError(_nothing_found(folder, len(beside), found.others))
    owners: dict[Key, list[str]] = {}
    for name, key in images.items():
        owners.setdefault(key, []).append(name)
    classes = read_class_names(folder, found.tables)
    unread = left_unread(found.others)
    layout = Layout(
        [],
        classes.names,
        bad=found.closed,
        ignored=classes.ignored,
        notes=(*classes.notes, *((unread,) if unread else ())),
    )
    if inside is None:
        matched = _match(beside, owners, layout.bad)
        paths = {name: found.root / mask for name, mask in matched.items()}
    else:
        apart = _Found(inside)
        keys = {name: Key("", stem_of_volume(name)) for name in apart.names}
        matched = _match(keys, owners, layout.bad, loosely=True)
        paths = {name: inside / mask for name, mask in matched.items()}
        layout.bad += apart.closed
    names = sorted(images)
    layout.cases = [VolumeFile(name, found.root / name, paths.get(name)) for name in names]
    layout.splits = _splits([images[name] for name in names], set(paths), names, folder, folders)
    layout.bad.sort()
    return layout


class _Found:
    """The volume files below a folder, and the tables of class names, sorted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: list[str] = []
        self.others: Counter[str] = Counter()
        self.closed: list[Skipped] = []
        self.tables: list[str] = []
        for name in _walk(root, self.closed):
            if extension_of(name):
                self.names.append(name)
            elif os.path.basename(name) == TABLE:
                self.tables.append(name)
            else:
                self.others[os.path.splitext(name)[1].lower()] += 1
        self.names.sort()
        self.tables.sort()


def _nothing_found(folder: Path, masks: int, others: Counter[str]) -> str:
    held = [f"{count} {extension or 'without an extension'}" for extension, count in others.most_common(4)]
    if masks:
        held.insert(0, f"{masks} mask{'s' if masks > 1 else ''}")
    read = f"no volumes in {folder} (read are {' '.join(EXTENSIONS)})"
    how = how_to_read(dict(others.most_common()))
    more = f"; {how}" if how else ""
    return f"{read}: it holds {', '.join(held)}{more}" if held else f"{read}: it is empty"


def _walk(root: Path, closed: list[Skipped]) -> Iterator[str]:
    """Paths below a folder; a folder that lies in itself, by a link, is gone into once."""

    def note(error: OSError) -> None:
        name = os.path.relpath(error.filename, root)
        closed.append(Skipped(name, f"folder cannot be read: {error.strerror}"))

    seen = set()
    for place, folders, files in os.walk(root, followlinks=True, onerror=note):
        state = os.stat(place)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not is_system(name))
        below = Path(place).relative_to(root)
        yield from ((below / name).as_posix() for name in files if not is_system(name))


def _levels(folder: Path) -> Iterator[str]:
    """Names of files below a folder, one level after another; folders as empty names."""
    level, seen = [os.fspath(folder)], set()
    while level:
        deeper = []
        for place in level:
            try:
                state = os.stat(place)
                if (state.st_dev, state.st_ino) in seen:
                    continue
                seen.add((state.st_dev, state.st_ino))
                with os.scandir(place) as entries:
                    for entry in entries:
                        if is_system(entry.name):
                            continue
                        if entry.is_dir():
                            deeper.append(entry.path)
                        yield "" if entry.is_dir() else entry.name
            except OSError:  # the listing will say what cannot be read
                continue
        level = deeper


def _divide(found: _Found, masks: Path | None) -> tuple[dict[str, Key], dict[str, Key]]:
    """Volumes and masks with their keys; what lies in the folder `masks` is neither."""
    outside = (name for name in found.names if masks is None or not (found.root / name).is_relative_to(masks))
    images, beside = sorted_out(outside)
    volumes = set(images.values())
    for name, key in list(images.items()):
        is_mask = key.bare != key or is_bids_mask(key.last)
        if is_mask and (masks is None or key.bare in volumes):
            beside[name] = images.pop(name)
    return images, beside


def _match(
    masks: dict[str, Key], owners: dict[Key, list[str]], bad: list[Skipped], *, loosely: bool = False
) -> dict[str, str]:
    """The mask of each volume that has one; masks without a volume are noted in `bad`.

    loosely: go by the file's name alone, where the path fits no volume and the name one.
    """
    matched: dict[str, str] = {}
    by_name: dict[str, list[str]] = {}
    for key, names in owners.items():
        by_name.setdefault(key.last, []).extend(names)
    stems = {name: key.last for key, names in owners.items() for name in names}
    for mask, key in sorted(masks.items()):
        fits = _owners_of(key, owners) or bids_owners(key.last, stems)
        if not fits and loosely:
            fits = by_name.get(key.last) or by_name.get(key.bare.last) or []
        if not fits:
            bad.append(Skipped(mask, "a mask without a volume: no volume of that name is there"))
        elif len(fits) > 1:
            raise UsageError(f"the mask {mask} fits {len(fits)} volumes ({', '.join(fits[:3])}): rename them")
        elif (other := matched.setdefault(fits[0], mask)) != mask:
            raise UsageError(f"{fits[0]} has two masks, {other} and {mask}: remove one of them")
    return matched


def _owners_of(key: Key, owners: dict[Key, list[str]]) -> list[str]:
    for wanted in (key, key.bare):
        if fits := owners.get(wanted):
            return fits
        if fits := owners.get(wanted._replace(path=f"{wanted.path}_0000")):
            if second := owners.get(wanted._replace(path=f"{wanted.path}_0001")):
                raise UsageError(
                    f"{fits[0]} and {second[0]} are channels of one volume: stack them along a fourth axis "
                    "in one file"
                )
            return fits
    return []


def _splits(
    keys: list[Key], with_mask: set[str], names: list[str], where: Path, folders: Folders | None
) -> dict[str, np.ndarray]:
    splits = by_folder([key.path.split("/")[0] if "/" in key.path else "" for key in keys], where, folders)
    if not splits and any(key.part and name in with_mask for key, name in zip(keys, names, strict=True)):
        return as_splits(positions_of(np.array([key.part or "train" for key in keys])))
    return splits


def _state(path: Path) -> bytes:
    try:
        state = path.stat()
    except OSError:  # reading it will say what is wrong
        return os.fsencode(path)
    return os.fsencode(path) + f"\0{state.st_size}\0{state.st_mtime_ns}".encode()
