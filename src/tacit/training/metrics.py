"""`metrics.csv`: one row per so many steps, every named loss, probes, throughput."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Mapping
from pathlib import Path

from tacit.errors import TacitError
from tacit.files import write_atomically
from tacit.report.files import read_rows

FIRST = ("step", "epoch", "lr", "samples_per_second")
LAST = ("grad_norm", "knn", "balanced_accuracy", "dice", "effective_rank", "feature_std")


class Metrics:
    """Appends rows to a CSV file. The columns are settled by the first row that holds losses."""

    def __init__(self, path: Path, *, start: int, score: str = "") -> None:
        """start: rows of later steps, left by a killed run, are dropped. score: a measure of its labels."""
        self.path = path
        place = LAST.index("effective_rank")
        self.last = LAST if not score or score in LAST else (*LAST[:place], score, *LAST[place:])
        self.columns: list[str] = []
        if path.is_file():
            self._keep_until(start)

    def _keep_until(self, start: int) -> None:
        if start == 0:
            write_atomically(self.path, "")
            return
        found = read_rows(self.path)
        self.columns = list(found.columns)
        if not self.columns:
            write_atomically(self.path, "")
            return
        rows = [row for row in found.cells if int(row["step"]) <= start]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue())

    def write(self, values: Mapping[str, float]) -> None:
        """Append a row; columns without a value stay empty.

        Raises:
            TacitError: the file cannot be written; it is left as it was.
        """
        header = not self.columns
        if header:
            named = [name for name in values if name not in (*FIRST, *self.last)]
            self.columns = [*FIRST, *named, *self.last]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerow({name: _short(values[name]) for name in self.columns if name in values})
        self._append(text.getvalue().encode())

    def _append(self, row: bytes) -> None:
        """Add the row, or leave the file as it was."""
        try:
            with self.path.open("ab", buffering=0) as file:
                before = file.tell()
                if file.write(row) != len(row):  # a disk that fills up takes a part of it
                    file.truncate(before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise TacitError(f"cannot write {self.path}: {error.strerror}") from error


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
