"""Feature vectors of files, written where other tools read them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tacit.data.open import open_source
from tacit.data.source import UNLABELLED, Source
from tacit.errors import UsageError, unknown
from tacit.evaluation.features import encoder_features, feature_batches
from tacit.evaluation.subject import OnBadFile, encoder_for, pick_device
from tacit.files import check_writable, replacing

Rows = Iterable[tuple[slice, np.ndarray]]


def embed(
    what: str | os.PathLike[str] | nn.Module,
    data: str | os.PathLike[str] | Source,
    out: str | os.PathLike[str],
    *,
    labels: str | None = None,
    on_bad_file: OnBadFile = "stop",
    cache: str | None = None,
    batch_size: int = 256,
    device: str = "auto",
) -> Path:
    """Write one feature vector per sample, with its file name and, where known, its label.

    Args:
        what: a run folder, an encoder's spec string such as timm/resnet18, or a module with a card.
        data: images: a folder, a MedMNIST-style .npz, hf:NAME, ...
        out: the file to write: .parquet (columns file, label, embedding), .csv (file, label, e0, e1, ...)
            or .npz (arrays name, label, embedding).
        labels: a CSV of file names and labels.
        on_bad_file: whether the first unusable file stops, or is skipped and counted.
        cache: where decoded images are kept.
        batch_size: images encoded at once.
        device: auto, cpu, cuda, cuda:1, mps.

    Returns:
        The file written.

    Raises:
        UsageError: no such run or data, or an ending of `out` that we do not write.
    """
    target = Path(out)
    if target.suffix not in _WRITERS:
        raise unknown("ending of --out", target.suffix or str(target), _WRITERS)
    if target.is_dir():
        raise UsageError(f"--out {target} is a folder; name a file")
    check_writable(target)
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    open_data = partial(open_source, data, labels=labels, on_bad_file=on_bad_file, cache=cache)
    encoder, source, _ = encoder_for(what, open_data)
    rows = feature_batches(encoder_features(encoder, pick_device(device)), source, batch_size=batch_size)
    _WRITERS[target.suffix](target, rows, source)
    return target


def _label_names(source: Source, rows: slice) -> list[str | None]:
    if source.spec.target != "class":  # a mask has no name
        return [None] * len(source.labels[rows])
    classes: Sequence[str] = source.spec.classes
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
                    "file": pa.array(source.names[at], pa.string()),
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
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        table = csv.writer(text)
        for at, values in rows:
            if at.start == 0:
                table.writerow(["file", "label", *(f"e{i}" for i in range(values.shape[1]))])
            for name, label, vector in zip(
                source.names[at], _label_names(source, at), values.tolist(), strict=True
            ):
                table.writerow([name, label or "", *(f"{value:.9g}" for value in vector)])
        text.detach()  # so that the file is still open to be flushed


def _write_npz(path: Path, rows: Rows, source: Source) -> None:
    everything = slice(0, len(source))
    embedding = np.concatenate([values for _, values in rows])
    label = np.array([name or "" for name in _label_names(source, everything)])
    with replacing(path) as file:
        np.savez(file, name=np.array(source.names), label=label, embedding=embedding)


_WRITERS: dict[str, Callable[[Path, Rows, Source], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".npz": _write_npz,
}
