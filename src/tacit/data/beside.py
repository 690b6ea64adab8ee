"""Labels, values and groups that files beside the data give to their samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tacit.data.labels import read_groups, read_labels
from tacit.data.source import UNLABELLED, Source
from tacit.data.values import read_values
from tacit.errors import UsageError


@dataclass(frozen=True, slots=True)
class Beside:
    """The files beside the data, and their columns, in the words of `open_source`."""

    labels: str | Path | None = None
    label_column: str | None = None
    values: str | Path | None = None
    column: str | None = None
    groups: str | Path | None = None
    file_column: str | None = None

    @property
    def asked(self) -> bool:
        """Whether there is anything to read."""
        return not (self.labels is None and self.values is None and self.groups is None)

    @property
    def _files(self) -> list[str | Path]:
        """Those that are tables."""
        labels = None if self.labels == "none" else self.labels
        groups = None if str(self.groups).startswith("re:") else self.groups
        return [where for where in (labels, self.values, groups) if where is not None]

    def check(self) -> None:
        """Refuse two kinds of labels, and columns of files that are not given.

        Raises:
            UsageError: says which.
        """
        labels = None if self.labels == "none" else self.labels
        if self.values is not None and labels is not None:
            raise UsageError("labels are of classes and values are numbers: give one of the two files")
        if self.column is not None and self.values is None:
            raise UsageError(f"column '{self.column}' is of a file of numbers: name the file with values")
        if self.label_column is not None and labels is None:
            raise UsageError(
                f"label_column '{self.label_column}' is of a file of labels: name the file with labels"
                + (", or the column of the numbers with column" if self.values is not None else "")
            )
        if self.file_column is not None and not self._files:
            raise UsageError(
                f"file_column '{self.file_column}' is of a file of labels, values or groups: name the file"
            )

    def read(self, source: Source) -> Source:
        """Give them to a source, in place.

        Raises:
            UsageError: as `read_labels`, `read_values` and `read_groups`.
        """
        skipped = [file.name for file in source.skipped]
        lax = len(self._files) > 1
        columns = [
            self._read_labels(source, skipped, lax=lax),
            self._read_values(source, skipped, lax=lax),
            self._read_groups(source, skipped, lax=lax),
        ]
        wanted = self.file_column
        if wanted is not None and not wanted.isdecimal() and wanted.lower() not in map(str.lower, columns):
            files = " nor ".join(map(str, self._files))
            raise UsageError(f"neither {files} has a column '{wanted}' (file_column)")
        return source

    def _read_labels(self, source: Source, skipped: list[str], *, lax: bool) -> str:
        """Returns the title of the column of the files."""
        if self.labels is None:
            return ""
        classes: tuple[str, ...] = ()
        title = source.label_note = ""
        if self.labels == "none":
            source.labels = np.full(len(source), UNLABELLED, np.int64)
        else:
            source.labels, classes, source.label_note, title = read_labels(
                self.labels,
                source.names,
                skipped,
                label_column=self.label_column,
                file_column=self.file_column,
                lax=lax,
            )
        source.values = None
        source.spec = replace(source.spec, classes=classes, target="class")
        return title

    def _read_values(self, source: Source, skipped: list[str], *, lax: bool) -> str:
        if self.values is None:
            return ""
        source.values, source.label_note, title = read_values(
            self.values, source.names, skipped, self.column, file_column=self.file_column, lax=lax
        )
        source.labels = np.where(np.isnan(source.values), UNLABELLED, 0).astype(np.int64)
        source.spec = replace(source.spec, classes=(), target="value")
        return title

    def _read_groups(self, source: Source, skipped: list[str], *, lax: bool) -> str:
        if self.groups is None:
            return ""
        source.groups, source.group_note, title = read_groups(
            self.groups, source.names, skipped, file_column=self.file_column, lax=lax
        )
        return title
