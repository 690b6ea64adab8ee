"""Tables of predictions, written batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tacit.errors import UsageError, unknown
from tacit.files import check_writable, replacing
from tacit.tasks.base import Asked

ENDINGS = (".csv", ".parquet")


def check_table(asked: Asked) -> None:
    """Refuse what is no table, before anything is opened.

    Raises:
        UsageError: another ending, a folder, or an empty batch.
        TacitError: the file could not be written.
    """
    if asked.out.suffix not in ENDINGS:
        raise unknown("ending of --out", asked.out.suffix or str(asked.out), ENDINGS)
    if asked.out.is_dir():
        raise UsageError(f"--out {asked.out} is a folder; name a file")
    check_writable(asked.out)
    if asked.batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {asked.batch_size}")


def write_table(target: Path, parts: Iterable[Any]) -> None:
    """pyarrow tables with the same columns, one after the other. target: a .csv or .parquet file."""
    with replacing(target) as file:
        writer: Any = None
        for part in parts:
            writer = writer or _writer(target.suffix, file, part.schema)
            writer.write(part)
        if writer is not None:
            writer.close()


def _writer(ending: str, file: Any, schema: Any) -> Any:
    if ending == ".parquet":
        from pyarrow.parquet import ParquetWriter

        return ParquetWriter(file, schema)
    from pyarrow.csv import CSVWriter, WriteOptions

    return CSVWriter(file, schema, write_options=WriteOptions(quoting_style="needed"))
