"""Hugging Face datasets: `hf:NAME`, `hf:NAME@CONFIG`, `hf:./folder`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from tacit.data.image.build import store_images
from tacit.data.image.decoding import Decoded, Form, Header, decode, peak, read_header
from tacit.data.image.originals import evenly
from tacit.data.image.store import StoredImages
from tacit.data.labels import sort_classes
from tacit.data.names import Names
from tacit.data.options import Options
from tacit.data.reading import damage_named, read_bytes
from tacit.data.source import UNLABELLED
from tacit.data.splits import SPLITS, as_splits, part_of
from tacit.errors import BadFile, TacitError, UsageError, did_you_mean, require
from tacit.files import expanded

_SAVED = ("dataset_dict.json", "state.json", "dataset_info.json")


class Rows:
    """The encoded images of a dataset's splits, one after another."""

    def __init__(self, splits: dict[str, Any], column: str) -> None:
        image = require("datasets", "hub").Image(decode=False)
        self._prints = [f"{split} {len(rows)} {rows._fingerprint} {column}" for split, rows in splits.items()]
        self._column = column
        self._splits = [rows.select_columns([column]).cast_column(column, image) for rows in splits.values()]
        self._starts = np.cumsum([0, *map(len, self._splits)])
        self.names: Sequence[str] = Names.of(
            f"{split}/{i:06d}" if split else f"{i:06d}"
            for split, rows in splits.items()
            for i in range(len(rows))
        )

    def identity(self) -> Iterator[bytes]:
        """The fingerprints that the library gives to its tables."""
        yield from (f"hf {text}".encode() for text in self._prints)

    def white_from(self) -> Sequence[int]:
        """Evenly spaced rows."""
        return evenly(range(len(self.names)))

    def header(self, i: int) -> Header:
        """The image's header; raises `BadFile`."""
        return read_header(self.names[i], BytesIO(self._bytes(i)))

    def peak(self, i: int) -> int:
        """The image's largest value, 0 if it has 8 bits or cannot be read."""
        try:
            return peak(self.names[i], self._bytes(i))
        except BadFile:
            return 0

    def decode(self, i: int, form: Form) -> Decoded:
        """The image's pixels; raises `BadFile`."""
        return decode(self.names[i], self._bytes(i), form)

    def _bytes(self, i: int) -> bytes:
        which = int(np.searchsorted(self._starts, i, side="right")) - 1
        with damage_named(self.names[i]):
            cell = self._splits[which][i - int(self._starts[which])][self._column]
        if cell and cell["bytes"]:
            return cell["bytes"]
        if cell and cell["path"]:
            return read_bytes(Path(cell["path"]), self.names[i])
        raise BadFile(self.names[i], "no image in this row")


def open_hub(where: str, options: Options) -> StoredImages:
    """The images of a Hugging Face dataset, from the hub, its cache or a folder.

    where: `NAME`, `NAME@CONFIG`, or a folder (written by `save_to_disk`, or one that `load_dataset`
        reads). The images are the column `image`, else the first of type Image; the labels the first
        of type ClassLabel, else the whole numbers of a column `label`.

    Raises:
        UsageError: the extra `hub` is not installed, or the dataset holds no image column.
        TacitError: the dataset cannot be loaded.
    """
    loaded = _load(where, options.progress and sys.stderr.isatty())
    splits = _named(loaded)
    features = next(iter(splits.values())).features
    column = _image_column(where, features)
    if not sum(map(len, splits.values())):
        raise UsageError(f"hf:{where} holds no rows")
    source = store_images(Rows(splits, column), options)
    everything, classes = _labels(splits, features)
    source.labels = source.kept(everything)
    source.spec = replace(source.spec, classes=classes)
    of = source.kept(np.repeat(np.arange(len(splits)), [len(rows) for rows in splits.values()]))
    parts = [(part_of(split) or split, np.flatnonzero(of == k)) for k, split in enumerate(splits)]
    source.splits = as_splits(parts)
    return source


def _named(loaded: dict[str, Any]) -> dict[str, Any]:
    """The splits by our names for training, validation and test, the others by their own."""
    named: dict[str, Any] = {}
    for name, rows in loaded.items():
        part = part_of(name)
        named[part if part in SPLITS and part not in {*loaded, *named} else name] = rows
    return named


def _load(where: str, progress: bool) -> dict[str, Any]:
    """The dataset's splits by name; "" if it has none."""
    datasets = require("datasets", "hub")
    folder = expanded(where)
    if where.startswith((".", "/", "~")) and not folder.is_dir():
        near = [entry.name for entry in folder.parent.glob("*")]
        raise UsageError(f"no folder {folder}{did_you_mean(folder.name, near)}")
    name, _, config = where.partition("@")
    silence = not progress and not datasets.are_progress_bars_disabled()
    if silence:
        datasets.disable_progress_bars()
    try:
        if folder.is_dir() and any((folder / file).exists() for file in _SAVED):
            loaded = datasets.load_from_disk(str(folder))
        elif folder.is_dir():
            loaded = datasets.load_dataset(str(folder))
        else:
            loaded = datasets.load_dataset(name, config or None)
    except Exception as error:  # the library raises nearly every type, over many lines
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise TacitError(f"cannot open hf:{where}: {cause}") from None
    finally:
        if silence:
            datasets.enable_progress_bars()
    return dict(loaded) if isinstance(loaded, dict) else {"": loaded}


def _image_column(where: str, features: dict[str, Any]) -> str:
    image = require("datasets", "hub").Image
    columns = [name for name, feature in features.items() if isinstance(feature, image)]
    if not columns:
        raise UsageError(f"hf:{where} has no column of images; its columns are {', '.join(features)}")
    return "image" if "image" in columns else columns[0]


def _labels(splits: dict[str, Any], features: dict[str, Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of all rows, (N,) int64, and the classes."""
    class_label = require("datasets", "hub").ClassLabel
    columns = [name for name, feature in features.items() if isinstance(feature, class_label)]
    column = columns[0] if columns else "label"
    kind = getattr(features.get(column), "dtype", "")
    if not columns and not str(kind).startswith(("int", "uint")):
        return np.full(sum(map(len, splits.values())), UNLABELLED, np.int64), ()
    cells = [cell for rows in splits.values() for cell in _cells(rows, column)]
    labels = np.array([UNLABELLED if cell is None or cell < 0 else cell for cell in cells], np.int64)
    if columns:
        return labels, tuple(features[column].names)
    known = np.unique(labels[labels != UNLABELLED])
    numbers = np.where(labels == UNLABELLED, UNLABELLED, np.searchsorted(known, labels))
    return numbers, sort_classes(map(str, known))


def _cells(rows: Any, column: str) -> list[int | None]:
    if column not in rows.column_names:
        return [None] * len(rows)
    return list(rows.select_columns([column])[:][column])
