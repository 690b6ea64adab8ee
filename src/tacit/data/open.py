"""`open_source`: look at what is there, and read it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from tacit.data.beside import Beside
from tacit.data.check import check_source
from tacit.data.foreign import extension_in_full, how_to_read
from tacit.data.memory import Data, Held, taken
from tacit.data.options import LARGEST_AUTOMATIC, Options
from tacit.data.source import Source
from tacit.data.splits import Folders
from tacit.data.wings import Where, Wing, all_wings, own_wings, wing_for, wing_of
from tacit.errors import UsageError, did_you_mean, unknown
from tacit.files import expanded


def open_source(
    where: Data,
    *,
    labels: Any = None,
    label_column: str | None = None,
    values: str | Path | None = None,
    column: str | None = None,
    groups: str | Path | None = None,
    file_column: str | None = None,
    size: int | None = None,
    max_size: int = LARGEST_AUTOMATIC,
    channels: int | None = None,
    white: int | None = None,
    folders: Folders | None = None,
    on_bad_file: Literal["stop", "skip"] = "stop",
    cache: str | Path | None = None,
    progress: bool = True,
    workers: int | None = None,
    masks: str | Path | None = None,
    window: str | None = None,
    spacing: str | tuple[float, ...] | None = None,
    patch: str | tuple[int, ...] | None = None,
) -> Source:
    """Open what there is to learn from.

    where: a folder of images, with or without class folders or masks (see `find_masks` for where these are
        looked for); a folder of volumes (NIfTI, HDF5, `.npz`), with or without masks (see `lay_out`);
        `slices:FOLDER`, the axial slices of volumes as images; an `.npz` archive; `hf:NAME[@CONFIG]` or
        `hf:./folder`; the name of a packaged set (`digits`, `mnist5k`), which goes before a folder of that
        name (`./digits` is the folder); what lies in memory: arrays, tensors, lists of paths or pictures,
        data sets of torch and torchvision (see `tacit.data.image.memory.take`); or a source, which is
        returned as it is.
    labels: a CSV file; "none" to leave labels (and masks) aside; by default what the data themselves
        say. Images and volumes with labels from a CSV are of one class each, their masks are left aside. For
        data in memory also N labels: numbers or names, None, NaN or -1 where one is unknown.
    label_column: the column of `labels`, by title or by number from 1 (one-hot ones with commas
        between them); by default `label`, `class`, `target`, `grade` or `y`, else the only one that
        is left (see `read_labels`).
    values: a CSV file of numbers, such as ages, that are learned instead of classes or masks (see
        `read_values`); then `source.values` has them, and `source.labels` is 0 where one is known, else -1.
    column: the column of `values` that has the numbers; by default `value`, `target`, `age`, `y` or `label`,
        else the only other one with numbers.
    groups: which samples belong together, such as those of one patient: a CSV file, or `re:PATTERN` for
        the names (see `read_groups`).
    file_column: the column of these files that names the samples; by default the one whose cells
        do. Of several files it is taken in those that have it.
    size: side S in pixels of the stored images; by default the median of sqrt(height x width), at most
        `max_size`. Packaged sets: their own.
    max_size: the largest side that is chosen by default.
    channels: 1 grey, 3 RGB, 4 with transparency; by default 1 if all images are grey, else 3. Arrays:
        theirs. Volumes: how many they must have; by default as most of them.
    white: images with more than 8 bits: the value that becomes 255, so that other data look as those did that
        an encoder was learned from. By default the brightest of some images decides.
    folders: what the folders of the first level are, where their names leave it open: "classes", or "splits"
        such as train and test (see `part_of` for how these may be called).
    on_bad_file: "stop" at the first file that cannot be used, or "skip" all of them and list them in
        `source.skipped`.
    cache: folder for the decoded images; by default $TACIT_CACHE, or the user's cache folder.
    progress: show a bar while decoding, if stderr is a terminal.
    workers: threads that decode; by default one a processor core.
    masks: a folder that holds the masks, called as the images or volumes are.
    window: volumes: the values that become 0 and 1: `minmax` (the default), `percentile` or `LOW,HIGH`; see
        `tacit.data.volume.windows`.
    spacing: volumes: mm by axis (or one number) to resample to; by default they keep theirs.
    patch: volumes: sides of a patch in voxels (or one number); see `Volumes`.

    Raises:
        UsageError: there is nothing of a kind that is read, or an argument is wrong.
        BadFile: a file cannot be used and `on_bad_file` is "stop".
        TacitError: no file can be used, or the cache cannot be written.
    """
    if on_bad_file not in ("stop", "skip"):
        raise unknown("way with bad files", on_bad_file, ("stop", "skip"))
    if folders is not None and folders not in get_args(Folders):
        raise unknown("reading of folders", folders, get_args(Folders))
    for name, value, least in (
        ("size", size, 4),
        ("max_size", max_size, 4),
        ("channels", channels, 1),
        ("workers", workers, 1),
        ("white", white, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")
    where, labels = taken(where, labels)
    beside = Beside(labels, label_column, values, column, groups, file_column)
    beside.check()
    words: dict[str, Any] = {"masks": masks, "window": window, "spacing": spacing, "patch": patch}
    words["aside"] = labels is not None or values is not None  # masks are no labels then
    words["extensions"] = [end for wing in own_wings().values() if not wing.LAST for end in wing.extensions()]
    if isinstance(where, Source):
        check_source(where)
        where = wing_of(where).adjusted(where, words)
        return beside.read(copy.copy(where)) if beside.asked else where
    options = Options(
        size,
        channels,
        on_bad_file,
        Path(cache) if cache else None,
        progress,
        workers,
        max_size,
        white,
        folders,
    )
    return beside.read(_read(where, options, words))


def kind_of(where: Data) -> str | None:
    """The kind of what is there, without reading it; None where nothing is found.

    Raises:
        UsageError: it may not be looked at.
    """
    where, _ = taken(where)
    if isinstance(where, Source):
        return where.spec.modality
    found = _wing(where, Options(), {})
    return None if found is None else found.kind(where)


def spelled(where: Data, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The words by which the data are seen, in one spelling, for run.yaml; see `Form.spelled`."""
    if not any(value is not None for value in asked.values()):
        return dict(asked)
    where, _ = taken(where)
    found = wing_of(where) if isinstance(where, Source) else _wing(where, Options(), {})
    return dict(asked) if found is None else found.FORM.spelled(asked)


def _wing(where: Where, options: Options, words: Mapping[str, Any]) -> Wing | None:
    try:
        return wing_for(where, options, words)
    except PermissionError:
        raise UsageError(f"{where}: permission denied") from None


def _read(where: Where, options: Options, words: Mapping[str, Any]) -> Source:
    if isinstance(where, Held):
        return all_wings()[where.modality].open(where, options, words)
    if not str(where).strip() or (not str(where).partition(":")[2].strip() and str(where).endswith(":")):
        raise UsageError("the name of the data is empty: name a folder, or '.' for this one")
    path = expanded(where)
    try:
        wing = _wing(where, options, words)
        if wing is not None:
            return wing.open(where, options, words)
        if not path.exists():
            raise UsageError(_absent(path))
    except FileNotFoundError as error:
        raise UsageError(_absent(Path(str(error)))) from None
    except PermissionError:
        raise UsageError(f"{path}: permission denied") from None
    for kind, other in own_wings().items():
        if path.name.lower().endswith(other.extensions()):
            raise UsageError(f"{path} is one {kind}: open the folder that it lies in ({path.parent})")
    how = how_to_read({extension_in_full(path.name): 1})
    raise UsageError(
        f"{path} is nothing that is read: a folder of images or volumes, an .npz archive, hf:NAME, "
        f"or one of {', '.join(_names())}{f'; {how}' if how else ''}"
    )


def _names() -> list[str]:
    """Data that are no path."""
    return [name for wing in all_wings().values() for name in wing.NAMES]


def _absent(path: Path) -> str:
    parent = path.parent
    while not parent.exists():  # the first part of the path that is wrong is the one to mend
        path, parent = parent, parent.parent
    beside = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    if parent == Path(".") and not path.is_absolute():
        beside += _names()
    near = did_you_mean(path.name, beside)
    return f"no file or folder {path}{near or '; packaged sets are ' + ', '.join(_names())}"
