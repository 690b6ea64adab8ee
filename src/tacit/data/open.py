"""`open_source`: look at what is there, and read it."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tacit.data.labels import read_groups, read_labels
from tacit.data.options import LARGEST_AUTOMATIC, Options
from tacit.data.source import UNLABELLED, Source
from tacit.data.values import read_values
from tacit.data.wings import Where, Wing, all_wings, own_wings, wing_for, wing_of
from tacit.errors import UsageError, did_you_mean, unknown
from tacit.files import expanded


def open_source(
    where: str | os.PathLike[str] | Source,
    *,
    labels: str | Path | None = None,
    values: str | Path | None = None,
    column: str | None = None,
    groups: str | Path | None = None,
    size: int | None = None,
    max_size: int = LARGEST_AUTOMATIC,
    channels: int | None = None,
    white: int | None = None,
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
        name (`./digits` is the folder); or a source, which is returned as it is.
    labels: a CSV file; "none" to leave labels (and masks) aside; by default what the data themselves
        say. Images and volumes with labels from a CSV are of one class each, their masks are left aside.
    values: a CSV file of numbers, such as ages, that are learned instead of classes or masks (see
        `read_values`); then `source.values` has them, and `source.labels` is 0 where one is known, else -1.
    column: the column of `values` that has the numbers; by default `value`, `target`, `age`, `y` or `label`,
        else the second of two.
    groups: which samples belong together, such as those of one patient: a CSV file, or `re:PATTERN` for
        the names (see `read_groups`).
    size: side S in pixels of the stored images; by default the median of sqrt(height x width), at most
        `max_size`. Packaged sets: their own.
    max_size: the largest side that is chosen by default.
    channels: 1 grey, 3 RGB, 4 with transparency; by default 1 if all images are grey, else 3. Arrays:
        theirs. Volumes: how many they must have; by default as most of them.
    white: images with more than 8 bits: the value that becomes 255, so that other data look as those did that
        an encoder was learned from. By default the brightest of some images decides.
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
    for name, value, least in (
        ("size", size, 4),
        ("max_size", max_size, 4),
        ("channels", channels, 1),
        ("workers", workers, 1),
        ("white", white, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")
    if values is not None and labels not in (None, "none"):
        raise UsageError("labels are of classes and values are numbers: give one of the two files")
    if column is not None and values is None:
        raise UsageError(f"column '{column}' is of a file of numbers: name the file with values")
    words: dict[str, Any] = {"masks": masks, "window": window, "spacing": spacing, "patch": patch}
    words["aside"] = labels is not None or values is not None  # masks are no labels then
    words["extensions"] = [end for wing in own_wings().values() if not wing.LAST for end in wing.extensions()]
    if isinstance(where, Source):
        where = wing_of(where).adjusted(where, words)
        if labels is None and values is None and groups is None:
            return where
        return _grouped(_valued(_relabelled(copy.copy(where), labels), values, column), groups)
    options = Options(
        size, channels, on_bad_file, Path(cache) if cache else None, progress, workers, max_size, white
    )
    source = _relabelled(_read(where, options, words), labels)
    return _grouped(_valued(source, values, column), groups)


def kind_of(where: Where | Source) -> str | None:
    """The kind of what is there, without reading it; None where nothing is found.

    Raises:
        UsageError: it may not be looked at.
    """
    if isinstance(where, Source):
        return where.spec.modality
    found = _wing(where, Options(), {})
    return None if found is None else found.kind(where)


def spelled(where: Where | Source, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The words by which the data are seen, in one spelling, for run.yaml; see `Form.spelled`."""
    if not any(value is not None for value in asked.values()):
        return dict(asked)
    found = wing_of(where) if isinstance(where, Source) else _wing(where, Options(), {})
    return dict(asked) if found is None else found.FORM.spelled(asked)


def _wing(where: Where, options: Options, words: Mapping[str, Any]) -> Wing | None:
    try:
        return wing_for(where, options, words)
    except PermissionError:
        raise UsageError(f"{where}: permission denied") from None


def _read(where: Where, options: Options, words: Mapping[str, Any]) -> Source:
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
    raise UsageError(
        f"{path} is nothing that is read: a folder of images or volumes, an .npz archive, hf:NAME, "
        f"or one of {', '.join(_names())}"
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


def _relabelled(source: Source, labels: str | Path | None) -> Source:
    if labels is None:
        return source
    classes: tuple[str, ...] = ()
    if labels == "none":
        source.labels = np.full(len(source), UNLABELLED, np.int64)
    else:
        skipped = [file.name for file in source.skipped]
        source.labels, classes = read_labels(labels, source.names, skipped)
    source.values = None
    source.spec = replace(source.spec, classes=classes, target="class")
    return source


def _valued(source: Source, values: str | Path | None, column: str | None) -> Source:
    if values is not None:
        skipped = [file.name for file in source.skipped]
        source.values = read_values(values, source.names, skipped, column)
        source.labels = np.where(np.isnan(source.values), UNLABELLED, 0).astype(np.int64)
        source.spec = replace(source.spec, classes=(), target="value")
    return source


def _grouped(source: Source, groups: str | Path | None) -> Source:
    if groups is not None:
        source.groups = read_groups(groups, source.names, [file.name for file in source.skipped])
    return source
