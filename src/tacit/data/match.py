"""The rows of a CSV file and the samples that they are about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tacit.data.columns import BINARY, Columns, Wanted, choose_columns
from tacit.data.lookup import Lookup
from tacit.data.sheet import LOOKED_AT, Sheet
from tacit.data.table import Line, read_table
from tacit.errors import UsageError, did_you_mean

MISSING = frozenset(("", "na", "n/a", "#n/a", "<na>", "nan", "none", "null", "?"))
"""Cells, in lower case, that are there because there is nothing to write."""
_SHOWN = 4  # spellings of a missing cell in a message


class Row(NamedTuple):
    """A row of a CSV file: its line, the sample's name as written, and the cell that belongs to it."""

    line: int
    file: str
    label: str


class Matched(NamedTuple):
    """rows: the row of each sample that has one; positions of skipped files follow those of the samples.

    said: in words, what was read. file_column: the title of the column of the files, "" without one.
    """

    rows: dict[int, Row]
    said: str
    file_column: str


ReadRows = Callable[[list[Row]], list[Row]]


def match_rows(
    path: Path, names: Sequence[str], skipped: Collection[str], wanted: Wanted, read: ReadRows
) -> Matched:
    """The row of each sample that has one.

    read: rewrites the cells of all rows before two rows of one sample are compared; what is missing
    becomes "".

    Raises:
        UsageError: as `read_table`, `choose_columns` and `read`; a row that names no sample or several,
            or two rows that disagree about one sample.
    """
    left_out = tuple(skipped)
    table = read_table(path, wanted.what)
    sheet, columns = choose_columns(table, names, left_out, wanted)
    raw = [_row(sheet, columns, line) for line in sheet.body]
    rows = read(raw) if len(columns.cells) == 1 else raw  # titles of one-hot columns are what they are
    short = len(rows) < LOOKED_AT  # then all names were looked up already
    lookup = sheet.lookup if short else Lookup(names, left_out, (row.file for row in rows))
    matching = _Matching(sheet, columns, lookup)
    for row in rows:
        matching.take(row)
    matching.check(wanted)
    missing = Counter(before.label for before, row in zip(raw, rows, strict=True) if not row.label)
    known = sum(i < len(names) for i in matching.chosen)
    said = [
        *_said(sheet, columns),
        *([f"{_rows(missing.total())} {wanted.without} ({_listed(missing, wanted)})"] if missing else []),
        *([f"{len(names) - known} of {len(names)} samples have no row"] if known < len(names) else []),
        *matching.said(),
    ]
    title = sheet.titles[columns.file] if sheet.titles else ""
    return Matched(matching.chosen, f"{path.name}: {'; '.join(said)}", title)


def _row(sheet: Sheet, columns: Columns, line: Line) -> Row:
    cells, width = line.cells, sheet.width
    if len(cells) <= max(columns.file, *columns.cells) or any(cells[width:]):
        raise UsageError(f"{sheet.table.path}, line {line.number}: {len(cells)} cells, {width} are expected")
    one, *others = columns.cells
    cell = _hot(sheet, columns, line) if others else sheet.table.readable(cells[one])
    return Row(line.number, cells[columns.file], cell)


def _hot(sheet: Sheet, columns: Columns, line: Line) -> str:
    """The title of the column that has the 1 of this row; "" if all are empty."""
    assert sheet.titles is not None
    cells = {c: line.cells[c].lower() for c in columns.cells}
    if all(cell in MISSING for cell in cells.values()):
        return ""
    strange = next((cell for cell in cells.values() if cell not in BINARY), None)
    ones = [c for c, cell in cells.items() if BINARY.get(cell)]
    if strange is None and len(ones) == 1:
        return sheet.titles[ones[0]]
    listed = f"of the columns {sheet.listed(columns.cells)}"
    found = f"{len(ones)} {listed} have a 1" if ones else f"none {listed} has a 1"
    if strange is not None:
        found = f"one {listed} has '{strange}'"
    raise UsageError(
        f"{sheet.table.path}, line {line.number}: {found}, and "
        "one-hot classes have a single 1 in each row: fix it, leave these cells empty (unlabelled), or name "
        "the column of the labels with --label-column"
    )


class _Matching:
    """The rows that were taken so far. chosen: by position. absent: those that name no sample."""

    def __init__(self, sheet: Sheet, columns: Columns, lookup: Lookup) -> None:
        self.path, self.sheet, self.file = sheet.table.path, sheet, columns.file
        self.lookup = lookup
        self.chosen: dict[int, Row] = {}
        self.absent: list[Row] = []
        self.first: Row | None = None
        self.dropped: dict[int, str] = {}
        self.longer = 0  # rows whose names have folders before those of the sample

    def take(self, row: Row) -> None:
        """Find the sample of a row.

        Raises:
            UsageError: there are several, or another row says something else of it.
        """
        self.first = self.first or row
        positions, dropped = self.lookup.find(row.file)
        if not positions:
            self.absent.append(row)
            return
        if len(positions) > 1:
            several = ", ".join(self.lookup.name(i) for i in positions[:3])
            raise UsageError(
                f"{self.path}, line {row.line}: '{row.file}' fits {len(positions)} samples ({several}): give "
                "the path"
            )
        at = positions[0]
        before = self.chosen.setdefault(at, row)
        if self.dropped.setdefault(at, dropped) != dropped:
            raise UsageError(
                f"{self.path}: lines {before.line} and {row.line} name two files, '{before.file}' and "
                f"'{row.file}', and only '{self.lookup.name(at)}' is there: open the folder that has both, "
                "or remove the rows of the others"
            )
        if before.label != row.label:
            raise UsageError(
                f"{self.path}: lines {before.line} and {row.line} disagree about '{row.file}': "
                f"'{before.label}' and '{row.label}'"
            )
        self.longer += bool(dropped)

    def check(self, wanted: Wanted) -> None:
        """Refuse rows that name no sample.

        Raises:
            UsageError: there are some.
        """
        if not self.absent:
            return
        first, more = self.absent[0], len(self.absent) - 1
        count = f" (so do {more} more rows)" if more else ""
        hint = did_you_mean(first.file, self.lookup.like(first.file))
        if self.sheet.titles is None and first is self.first:
            hint = f"{hint} (this line was not taken for a header)"
        elif not hint and self.sheet.width > 2 and wanted.file_column is None:
            hint = f" (column {self.sheet.said(self.file)} was taken; --file-column names another)"
        raise UsageError(f"{self.path}, line {first.line}: no sample is called '{first.file}'{count}{hint}")

    def said(self) -> list[str]:
        """Which liberties were taken with the names."""
        if not self.longer:
            return []
        at = next(i for i, dropped in self.dropped.items() if dropped)
        example = f"'{self.chosen[at].file}' is '{self.lookup.name(at)}'"
        return [f"folders before the name were left aside in {_rows(self.longer)} ({example})"]


def _said(sheet: Sheet, columns: Columns) -> list[str]:
    """The columns, and the encoding where it is an unusual one."""
    one, *others = columns.cells
    cells = f"one-hot columns {sheet.listed(columns.cells)}" if others else f"column {sheet.said(one)}"
    file = sheet.said(columns.file)
    encoding = sheet.table.encoding
    return [
        f"{cells} of {_rows(len(sheet.body))}",
        f"files in {'column ' if file.isdecimal() else ''}{file}",
        *([] if sheet.titles else ["there is no header"]),
        *([f"read as {encoding}, because it is not UTF-8"] if encoding else []),
    ]


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _listed(missing: Mapping[str, int], wanted: Wanted) -> str:
    """The spellings of missing cells, and what to do where one is not meant so."""
    shown = ", ".join(f"'{word}'" if word else "empty" for word in list(missing)[:_SHOWN])
    return f"{shown}; if that is a {wanted.kind}, rename it" if wanted.kind and any(missing) else shown
