"""`metrics.csv`: one row per so many steps, every named loss, probes, throughput."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from tacit.errors import TacitError
from tacit.files import write_atomically

FIRST = ("step", "epoch", "lr", "samples_per_second")
PROBES = ("knn", "effective_rank", "feature_std")


class Metrics:
    """Appends rows to a CSV file. The columns are settled by the first row that holds losses."""

    def __init__(self, path: Path, *, start: int) -> None:
        """start: rows of later steps, left by a run that was killed, are dropped."""
        self.path = path
        self.columns: list[str] = []
        if path.is_file():
            self._keep_until(start)

    def _keep_until(self, start: int) -> None:
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            whole = [row for row in reader if None not in row.values()]  # a kill may cut a row short
            rows = [row for row in whole if row["step"].isdigit() and int(row["step"]) <= start]
            self.columns = list(reader.fieldnames or [])
        if start == 0 or not self.columns:
            self.columns = []
            self.path.unlink()
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue())

    def write(self, values: Mapping[str, float]) -> None:
        """Append a row; columns without a value stay empty.

        Raises:
            TacitError: the file cannot be written.
        """
        header = not self.columns
        if header:
            named = [name for name in values if name not in (*FIRST, *PROBES)]
            self.columns = [*FIRST, *named, *PROBES]
        try:
            with self.path.open("a", newline="") as file:
                writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
                if header:
                    writer.writeheader()
                writer.writerow({name: _short(values[name]) for name in self.columns if name in values})
        except OSError as error:
            raise TacitError(f"cannot write {self.path}: {error.strerror}") from error


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
