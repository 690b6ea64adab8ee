"""Feature vectors of files, written where other tools read them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tacit.data.memory import Data
from tacit.data.open import open_source
from tacit.data.skipped import beside, report_skipped
from tacit.data.source import UNLABELLED, Source
from tacit.data.splits import Folders
from tacit.data.understood import say
from tacit.errors import UsageError, escaped, unknown
from tacit.evaluation.features import encoder_features, feature_batches
from tacit.evaluation.subject import OnBadFile, encoder_for, pick_device
from tacit.files import check_writable, csv_line, replacing

Rows = Iterable[tuple[slice, np.ndarray]]


def embed(
    what: str | os.PathLike[str] | nn.Module,
    data: Data,
    out: str | os.PathLike[str] | None = None,
    *,
    labels: str | Any | None = None,
    label_column: str | None = None,
    file_column: str | None = None,
    folders: Folders | None = None,
    on_bad_file: OnBadFile = "stop",
    cache: str | None = None,
    batch_size: int = 256,
    device: str = "auto",
    quiet: bool = False,
) -> Any:
    r"""Write one feature vector per sample, with its file name and, where known, its label.

    Args:
        what: a run folder, an encoder's spec string such as timm/resnet18, or a module with a card.
        data: images: a folder, a MedMNIST-style .npz, hf:NAME, ...
        out: the file to write: .parquet (columns file, label, embedding), .csv (file, label, e0, e1, ...)
            or .npz (arrays name, label, embedding). Bytes of names that are not UTF-8 are written
            as \xe9; in .csv, names that a spreadsheet would execute have an apostrophe before
            them. In Python it may be left out for an array.
        labels: a CSV of file names and labels.
        label_column: of the labels, in this CSV.
        file_column: of the files, in this CSV; default: the one that names the samples.
        folders: whether folders of the first level are classes or splits, where their names leave it open.
        on_bad_file: whether the first unusable file stops, or all are skipped; then they are listed in
            OUT.skipped.csv, without the ending of `out`.
        cache: where decoded images are kept.
        batch_size: images encoded at once.
        device: auto, cpu, cuda, cuda:1, mps.
        quiet: do not say what was understood of the data.

    Returns:
        The file written; without `out` the vectors, (N, D) float32.

    Raises:
        UsageError: no such run or data, or an ending of `out` that we do not write.
    """
    target = None if out is None else Path(out)
    if target is not None and target.suffix not in _WRITERS:
        raise unknown("ending of --out", target.suffix or str(target), _WRITERS)
    if target is not None and target.is_dir():
        raise UsageError(f"--out {target} is a folder; name a file")
    if target is not None:
        check_writable(target)
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    open_data = partial(
        open_source,
        data,
        labels=labels,
        label_column=label_column,
        file_column=file_column,
        folders=folders,
        on_bad_file=on_bad_file,
        cache=cache,
    )
    encoder, source, _ = encoder_for(what, open_data)
    if not quiet:
        say(source)
    rows = feature_batches(encoder_features(encoder, pick_device(device)), source, batch_size=batch_size)
    if target is None:
        found: Any = np.concatenate([values for _, values in rows])
    else:
        _WRITERS[target.suffix](target, rows, source)
        found = target
    report_skipped(source, beside(target))
    return found


def _label_names(source: Source, rows: slice) -> list[str | None]:
    if source.spec.target != "class":  # a mask has no name
        return [None] * len(source.labels[rows])
    classes = [escaped(name) for name in source.spec.classes]
    return [
        None if label == UNLABELLED else classes[label] if classes else str(label)
        for label in source.labels[rows]
    ]


def _write_parquet(path: Path, rows: Rows, source: Source) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    writer: Any = None
    with replacing(path) as file:
        for at, values in rows:
            flat = pa.array(values.ravel(), pa.float32())
            table = pa.table(
                {
                    "file": pa.array(map(escaped, source.names[at]), pa.string()),
                    "label": pa.array(_label_names(source, at), pa.string()),
                    "embedding": pa.FixedSizeListArray.from_arrays(flat, values.shape[1]),
                }
            )
            writer = writer or ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def _write_csv(path: Path, rows: Rows, source: Source) -> None:
    with replacing(path) as file:
        for at, values in rows:
            if at.start == 0:
                file.write(csv_line(["file", "label", *(f"e{i}" for i in range(values.shape[1]))]).encode())
            labelled = zip(source.names[at], _label_names(source, at), values.tolist(), strict=True)
            for name, label, vector in labelled:
                file.write(csv_line([name, label], (f"{value:.9g}" for value in vector)).encode())


def _write_npz(path: Path, rows: Rows, source: Source) -> None:
    everything = slice(0, len(source))
    embedding = np.concatenate([values for _, values in rows])
    label = np.array([name or "" for name in _label_names(source, everything)])
    with replacing(path) as file:
        np.savez(file, name=np.array([*map(escaped, source.names)]), label=label, embedding=embedding)


_WRITERS: dict[str, Callable[[Path, Rows, Source], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".npz": _write_npz,
}
