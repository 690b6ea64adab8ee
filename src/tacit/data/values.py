"""Targets that are numbers, such as an age or a measured length, from a CSV file."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tacit.data.labels import FILE_COLUMNS, Row, find_column, match_rows
from tacit.errors import UsageError, did_you_mean

VALUE_COLUMNS = ("value", "target", "age", "y", "label")
_SHOWN = 12  # columns in a message
_MISSING = ("", "nan", "na")
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)


def read_values(
    path: str | Path, names: Sequence[str], skipped: Collection[str] = (), column: str | None = None
) -> np.ndarray:
    """Numbers from a CSV file (comma, semicolon or tab) for samples of these names.

    Rows are matched with samples as `read_labels` does. An empty cell, `nan` or `NA` means unlabelled,
    and so does having no row; -1 is a number like any other. A decimal comma ("3,5") is read where no
    other number of the column has a decimal point; commas that may separate thousands ("1,234") are
    refused.

    names: (N,) the samples. skipped: names of unusable files; their rows are ignored.
    column: the column of the numbers. By default `value`, `target`, `age`, `y` or `label`, whichever
        comes first in this list, else the second of two columns. Of more columns none is guessed, because
        a wrong guess, such as a row number, would be learned without complaint (our choice).

    Returns:
        (N,) float64, NaN for unlabelled samples.

    Raises:
        UsageError: no such file or column, a cell that is not a finite number, no number at all, a row that
            matches no sample or several, or two rows that disagree about one sample. The same number
            everywhere is no error here: predictions can be graded by it. `draw_values` refuses it.
    """
    path = Path(path)
    chosen = match_rows(
        path,
        names,
        skipped,
        partial(_columns, path=path, column=column),
        read=partial(_numbers, path=path),
        what="value",
        delimiters=";\t,",  # "a.png;3,5" has as many commas as semicolons
    )
    values = np.full(len(names) + len(skipped), np.nan)
    values[list(chosen)] = [float(row.label) for row in chosen.values()]
    values = values[: len(names)]
    if np.isnan(values).all():
        raise UsageError(f"{path} has no value for any sample: fill in its cells, or name another column")
    return values


def _columns(header: Sequence[str], path: Path, column: str | None) -> tuple[int, int]:
    file = find_column(header, FILE_COLUMNS)
    if column is not None:
        cell = header.index(column) if column in header else find_column(header, [column.lower()])
        if cell is None:
            raise UsageError(
                f"{path} has no column '{column}'{did_you_mean(column, header)}; it has {_listed(header)}"
            )
    else:
        cell = find_column(header, VALUE_COLUMNS)
    if cell is None:
        if len(header) > 2:
            raise UsageError(
                f"{path} has several columns that may have the numbers ({_listed(header)}): name one with "
                "column"
            )
        cell = 0 if file == 1 else 1
    if file is None:
        file = 1 if cell == 0 else 0
    return file, cell


def _listed(header: Sequence[str]) -> str:
    return ", ".join(header[:_SHOWN]) + (", ..." if len(header) > _SHOWN else "")


def _numbers(rows: list[Row], path: Path) -> list[Row]:
    """The same rows, each cell the shortest text of its number, or `nan`."""
    commas = [row for row in rows if _COMMA.fullmatch(row.label)]
    others = [row for row in rows if not _COMMA.fullmatch(row.label)]
    for row in others:
        if row.label.lower() not in _MISSING and not _finite(row.label):
            raise UsageError(
                f"{path}, line {row.line}: '{row.label}' is not a finite number: fix it, or leave the cell "
                "empty"
            )
    if commas:
        _check_commas(commas, others, path)
    cells = (row.label.lower().replace(",", ".") for row in rows)
    texts = ("nan" if cell in _MISSING else repr(float(cell)) for cell in cells)
    return [row._replace(label=text) for row, text in zip(rows, texts, strict=True)]


def _finite(cell: str) -> bool:
    return _PLAIN.fullmatch(cell) is not None and math.isfinite(float(cell))


def _check_commas(commas: list[Row], others: list[Row], path: Path) -> None:
    """Refuse commas that may separate thousands: as decimal commas, numbers would be 1000 times too small."""
    first = commas[0]
    where = f"{path}, line {first.line}: '{first.label}'"
    point = next((row for row in others if "." in row.label), None)
    if point is not None:
        raise UsageError(
            f"{where} has a decimal comma, and line {point.line} has a point ('{point.label}'): use points "
            "everywhere"
        )
    if all(_THOUSANDS.fullmatch(row.label) for row in commas):
        plain = first.label.replace(",", "")
        raise UsageError(
            f"{where} may be {first.label.replace(',', '.')} or {plain}: write it with a decimal point, or "
            "without the comma"
        )
