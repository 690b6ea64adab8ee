"""Targets that are numbers, such as an age or a measured length, from a CSV file."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tacit.data.columns import VALUE_COLUMNS, Wanted
from tacit.data.match import MISSING, Row, match_rows
from tacit.errors import UsageError

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)


class Valued(NamedTuple):
    """Numbers of N samples from a file.

    values: (N,) float64, NaN for unlabelled samples. said: in words, what was read. file_column:
    the title of the column of the files, "" without one.
    """

    values: np.ndarray
    said: str
    file_column: str


def read_values(
    path: str | Path,
    names: Sequence[str],
    skipped: Collection[str] = (),
    column: str | None = None,
    *,
    file_column: str | None = None,
    lax: bool = False,
) -> Valued:
    """Numbers from a CSV file (comma, semicolon or tab) for samples of these names.

    Files are found, and rows matched with samples, as `read_labels` does. An empty cell, `nan`,
    `NA`, `None`, `null` or `?` means unlabelled, and so does having no row; -1 is a number like any
    other. A decimal comma ("3,5") is read where no other number of the column has a decimal point;
    commas that may separate thousands ("1,234") are refused.

    names: (N,) the samples. skipped: names of unusable files; their rows are ignored.
    column: the column of the numbers, by title or by number from 1. By default `value`, `target`,
        `age`, `y` or `label`, whichever comes first in this list, else the only other one that has
        numbers. Of several none is guessed, because a wrong guess, such as a row number, would be
        learned without complaint (our choice).
    file_column, lax: as for `read_labels`.

    Raises:
        UsageError: no such file or column, a cell that is not a finite number, no number at all, a row
            that matches no sample or several, or two rows that disagree about one sample. The same
            number everywhere is no error here: predictions can be graded by it. `draw_values` refuses it.
    """
    path = Path(path)
    wanted = Wanted(
        what="value",
        without="without a value",
        kind="",
        known=VALUE_COLUMNS,
        choose="name one with --column",
        column=column,
        file_column=file_column,
        lax=lax,
        fits=_may_be_number,
    )
    found = match_rows(path, names, skipped, wanted, partial(_numbers, path=path))
    values = np.full(len(names) + len(skipped), np.nan)
    values[list(found.rows)] = [float(row.label or "nan") for row in found.rows.values()]
    values = values[: len(names)]
    if np.isnan(values).all():
        raise UsageError(f"{path} has no value for any sample: fill in its cells, or name another column")
    return Valued(values, found.said, found.file_column)


def _may_be_number(cell: str) -> bool:
    return cell.lower() in MISSING or bool(_PLAIN.fullmatch(cell) or _COMMA.fullmatch(cell))


def _numbers(rows: list[Row], path: Path) -> list[Row]:
    """The same rows, each cell the shortest text of its number, or empty."""
    commas = [row for row in rows if _COMMA.fullmatch(row.label)]
    others = [row for row in rows if not _COMMA.fullmatch(row.label)]
    for row in others:
        if row.label.lower() not in MISSING and not _finite(row.label):
            raise UsageError(
                f"{path}, line {row.line}: '{row.label}' is not a finite number: fix it, or leave the cell "
                "empty"
            )
    if commas:
        _check_commas(commas, others, path)
    cells = (row.label.lower().replace(",", ".") for row in rows)
    texts = ("" if cell in MISSING else repr(float(cell)) for cell in cells)
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
