"""Tables of predictions, written batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from tacit.errors import UsageError, escaped, unknown
from tacit.files import check_writable, csv_line, replacing
from tacit.tasks.base import Asked

ENDINGS = (".csv", ".parquet")


def check_table(asked: Asked) -> None:
    """Refuse what is no table, before anything is opened.

    Raises:
        UsageError: another ending, a folder, or an empty batch.
        TacitError: the file could not be written.
    """
    out = asked.out
    if out is not None and out.suffix not in ENDINGS:
        raise unknown("ending of --out", out.suffix or str(out), ENDINGS)
    if out is not None and out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file")
    if out is not None:
        check_writable(out)
    if asked.batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {asked.batch_size}")


def text_column(cells: Iterable[str | None]) -> Any:
    """A pyarrow column of text, `escaped`; None is an empty cell."""
    import pyarrow as pa

    return pa.array((None if cell is None else escaped(cell) for cell in cells), pa.string())


def write_table(target: Path | None, parts: Iterable[Any]) -> Any:
    """pyarrow tables with the same columns, one after the other.

    target: a .csv file, in which no spreadsheet finds a formula (see `csv_line`), or a .parquet file, which
        has the text as it is. Without one they are returned as one table, else None is.
    """
    if target is None:
        import pyarrow as pa

        return pa.concat_tables(parts)
    with replacing(target) as file:
        if target.suffix == ".parquet":
            _write_parquet(file, parts)
            return None
        for k, part in enumerate(parts):
            if not k:
                file.write(csv_line(part.column_names).encode())
            file.writelines(line.encode() for line in _csv_lines(part))
    return None


def _write_parquet(file: IO[bytes], parts: Iterable[Any]) -> None:
    from pyarrow.parquet import ParquetWriter

    writer: Any = None
    for part in parts:
        writer = writer or ParquetWriter(file, part.schema)
        writer.write(part)
    if writer is not None:
        writer.close()


def _csv_lines(part: Any) -> Iterator[str]:
    import pyarrow as pa

    columns = [column.cast(pa.string()).to_pylist() for column in part.columns]
    return map(csv_line, zip(*columns, strict=True))
