"""A data frame with a column of paths of files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from tacit.data.columns import LABEL_COLUMNS
from tacit.errors import UsageError

_LOOKED_AT = 100  # rows that tell which column holds paths


def is_frame(where: Any) -> bool:
    """Whether this is a frame of pandas, or one that looks alike."""
    return all(hasattr(where, name) for name in ("columns", "iloc", "index"))


def paths_of(frame: Any) -> list[Path]:
    """The files of all rows: the one column whose cells are paths of files that exist.

    Raises:
        UsageError: no such column, several, or a row without a path.
    """
    if not len(frame):
        raise UsageError("the frame has no rows")
    found = [name for name in frame.columns if all(map(_is_file, frame[name].iloc[:_LOOKED_AT].tolist()))]
    if len(found) != 1:
        what = f"columns {', '.join(map(str, found))} hold" if found else "no column holds"
        raise UsageError(
            f"{what} paths of files that exist (its columns are {', '.join(map(str, frame.columns))}): pass "
            "the list of paths, such as list(frame['path']), and labels beside it"
        )
    cells = frame[found[0]].tolist()
    missing = [i for i, cell in enumerate(cells) if not isinstance(cell, str | os.PathLike)]
    if missing:
        raise UsageError(f"row {missing[0]} of the frame has no path in its column {found[0]}")
    return [Path(cell) for cell in cells]


def label_column(frame: Any) -> str | None:
    """The column that is called as labels are; None if there is none."""
    titles = {str(name).lower(): name for name in frame.columns}
    return next((titles[name] for name in LABEL_COLUMNS if name in titles), None)


def cells_of(frame: Any, column: str) -> list[Any]:
    """The cells of a column, None where one is missing.

    Raises:
        UsageError: no such column.
    """
    if column not in frame.columns:
        raise UsageError(
            f"the frame has no column '{column}'; its columns are {', '.join(map(str, frame.columns))}"
        )
    missing = np.asarray(frame[column].isna())
    return [None if gone else cell for cell, gone in zip(frame[column].tolist(), missing, strict=True)]


def _is_file(cell: Any) -> bool:
    return isinstance(cell, str | os.PathLike) and os.path.isfile(cell)
