"""`open_source`: look at what is there, and read it."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from tacit.data.arrays import open_archive
from tacit.data.hub import open_hub
from tacit.data.images import open_folder
from tacit.data.labels import read_groups, read_labels
from tacit.data.listing import EXTENSIONS
from tacit.data.options import LARGEST_AUTOMATIC, Options
from tacit.data.packaged import PACKAGED, open_packaged
from tacit.data.source import UNLABELLED, Source
from tacit.errors import UsageError, did_you_mean, unknown


def open_source(
    where: str | os.PathLike[str] | Source,
    *,
    labels: str | Path | None = None,
    groups: str | Path | None = None,
    size: int | None = None,
    max_size: int = LARGEST_AUTOMATIC,
    channels: int | None = None,
    on_bad_file: Literal["stop", "skip"] = "stop",
    cache: str | Path | None = None,
    progress: bool = True,
    workers: int | None = None,
) -> Source:
    """Open what there is to learn from.

    where: a folder of images, with or without class folders; an `.npz` archive; `hf:NAME[@CONFIG]` or
        `hf:./folder`; the name of a packaged set (`digits`, `mnist5k`), which goes before a folder of
        that name (`./digits` is the folder); or a source, which is returned as it is.
    labels: a CSV file; "none" to leave labels aside; by default what the data themselves say.
    groups: which samples belong together, such as those of one patient: a CSV file, or `re:PATTERN` for
        the names (see `read_groups`).
    size: side S in pixels of the stored images; by default the median of sqrt(height x width), at most
        `max_size`. Packaged sets: their own.
    max_size: the largest side that is chosen by default.
    channels: 1 grey, 3 RGB, 4 with transparency; by default 1 if all images are grey, else 3. Arrays:
        theirs.
    on_bad_file: "stop" at the first file that cannot be used, or "skip" all of them and list them in
        `source.skipped`.
    cache: folder for the decoded images; by default $TACIT_CACHE, or the user's cache folder.
    progress: show a bar while decoding, if stderr is a terminal.
    workers: threads that decode; by default one a processor core.

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
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")
    if isinstance(where, Source):
        if labels is None and groups is None:
            return where
        return _grouped(_relabelled(copy.copy(where), labels), groups)
    options = Options(
        size, channels, on_bad_file, Path(cache) if cache else None, progress, workers, max_size
    )
    return _grouped(_relabelled(_read(where, options), labels), groups)


def _read(where: str | os.PathLike[str], options: Options) -> Source:
    if isinstance(where, str) and where.startswith("hf:"):
        return open_hub(where.removeprefix("hf:"), options)
    if isinstance(where, str) and where in PACKAGED:
        return open_packaged(where, options)
    if not str(where).strip():
        raise UsageError("the name of the data is empty: name a folder, or '.' for this one")
    path = Path(where).expanduser()
    try:
        if path.is_dir():
            return open_folder(path, options)
        if not path.exists():
            raise UsageError(_absent(path))
    except PermissionError:
        raise UsageError(f"{path}: permission denied") from None
    if path.suffix.lower() == ".npz":
        return open_archive(path, options)
    if path.suffix.lower() in EXTENSIONS:
        raise UsageError(f"{path} is one image: open the folder that it lies in ({path.parent})")
    raise UsageError(
        f"{path} is nothing that is read: a folder of images, an .npz archive, hf:NAME, "
        f"or one of {', '.join(PACKAGED)}"
    )


def _absent(path: Path) -> str:
    parent = path.parent
    while not parent.exists():  # the first part of the path that is wrong is the one to mend
        path, parent = parent, parent.parent
    beside = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    if parent == Path(".") and not path.is_absolute():
        beside += PACKAGED
    near = did_you_mean(path.name, beside)
    return f"no file or folder {path}{near or '; packaged sets are ' + ', '.join(PACKAGED)}"


def _relabelled(source: Source, labels: str | Path | None) -> Source:
    if labels is None:
        return source
    classes: tuple[str, ...] = ()
    if labels == "none":
        source.labels = np.full(len(source), UNLABELLED, np.int64)
    else:
        skipped = [file.name for file in source.skipped]
        source.labels, classes = read_labels(labels, source.names, skipped)
    source.spec = replace(source.spec, classes=classes)
    return source


def _grouped(source: Source, groups: str | Path | None) -> Source:
    if groups is not None:
        source.groups = read_groups(groups, source.names, [file.name for file in source.skipped])
    return source
