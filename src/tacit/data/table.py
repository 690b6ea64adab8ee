"""CSV files as spreadsheets, pandas and R save them: encodings, separators, quotes."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tacit.data.names import spelled
from tacit.errors import UsageError, did_you_mean
from tacit.files import plain_cell
from tacit.untrusted import TABLE_LIMIT, first_line, read_bytes

_SEPARATORS = ";\t,"  # of equals the first is taken: "a.png;3,5" has as many commas as semicolons
_ROWS = 50  # that are looked at to find the separator
_SEP = re.compile(r'"?sep=(.)"?[^\S\t]*(\r\n|\r|\n)', re.IGNORECASE)
_UNFIT = (b"\0", codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # in no text of one byte per character


class Line(NamedTuple):
    """A row: the line of the file at which it begins, from 1, and its cells without blanks around them."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a CSV file that have something in them; the first may be a header.

    Bytes that are not UTF-8 are kept as surrogates in the cells, because they may be those of a
    file's name; see `readable`. encoding: what was read where it is not UTF-8, else empty.
    """

    path: Path
    what: str
    lines: list[Line]
    encoding: str = ""

    @property
    def first(self) -> tuple[str, ...]:
        """The cells of the first line."""
        return self.lines[0].cells

    def starting(self, first: Line) -> Table:
        """The same with another first line."""
        return replace(self, lines=[first, *self.lines[1:]])

    def without_empty_columns(self) -> Table:
        """The same without columns at the end that have neither a title nor a cell."""
        width = max(_filled(line.cells) for line in self.lines)
        if width >= len(self.first):
            return self
        lines = [line._replace(cells=line.cells[:width]) for line in self.lines]
        return replace(self, lines=lines)

    def readable(self, cell: str) -> str:
        """A cell as a person reads it, composed; in Windows-1252, the usual one, if it is not UTF-8.

        Raises:
            UsageError: it is in another encoding.
        """
        if cell.isascii():
            return plain_cell(cell)
        try:
            cell.encode()
        except UnicodeEncodeError:
            cell = self._windows(cell)
        return spelled(plain_cell(cell))

    def _windows(self, cell: str) -> str:
        data = cell.encode("utf-8", "surrogateescape")
        try:
            if not any(bytes_ in data for bytes_ in _UNFIT):
                return data.decode("cp1252")
        except UnicodeDecodeError:
            pass
        raise UsageError(
            f"cannot read the {self.what}s file {self.path}: '{cell}' is neither UTF-8 nor Windows-1252: "
            "save it as UTF-8"
        )


def read_table(path: Path, what: str) -> Table:
    """The rows of a CSV file: UTF-8, UTF-16 or one byte per character; comma, semicolon or tab.

    A first line `sep=;`, as Excel writes it, names the separator. Otherwise it is the one that
    gives all rows the same number of cells, most of them if there are several, or failing that is
    most often in the first row.

    what: the file's content in messages, in the singular.

    Raises:
        UsageError: no such file, an unreadable one, or one with an open quote.
    """
    text, encoding = _text(path, what)
    separator, skipped = None, 0
    if named := _SEP.match(text):
        separator, skipped = named[1], 1
        text = text[named.end() :]
    separator = separator or _separator(text)
    lines = _lines(text, separator, path, skipped)
    if not lines:
        return Table(path, what, [Line(1, ())], encoding)
    return Table(path, what, lines, encoding).without_empty_columns()


def _filled(cells: tuple[str, ...]) -> int:
    """The number of cells without the empty ones at the end."""
    return next((k for k in range(len(cells), 0, -1) if cells[k - 1]), 0)


def _text(path: Path, what: str) -> tuple[str, str]:
    """The file's text, and its encoding if that is not UTF-8."""
    try:
        data = read_bytes(path, TABLE_LIMIT)
    except FileNotFoundError:
        near = [entry.name for entry in path.parent.glob("*")]
        raise UsageError(f"no {what}s file {path}{did_you_mean(path.name, near)}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the {what}s file {path}: {first_line(error)}") from None
    wide = _wide(data)
    try:
        if wide:
            return data.decode(wide).removeprefix("\ufeff"), "UTF-16"
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        if wide:
            raise UsageError(f"cannot read the {what}s file {path}: {error}") from None
    return data.decode("utf-8-sig", "surrogateescape"), "Windows-1252"


def _wide(data: bytes) -> str:
    """Which UTF-16 this is, by its mark or by the zeros of plain letters; empty if it is none."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(data) >= 2 and (data[0] == 0) != (data[1] == 0):
        return "utf-16-le" if data[1] == 0 else "utf-16-be"
    return ""


def _rows(text: str, separator: str, *, strict: bool) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line at which it begins."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=strict, skipinitialspace=True
    )
    begins = 1
    for cells in reader:
        if any(cells):
            yield begins, cells
        begins = reader.line_num + 1


def _separator(text: str) -> str:
    best, order = ",", (False, 0)
    for separator in _SEPARATORS:
        try:
            widths = [len(cells) for _, cells in islice(_rows(text, separator, strict=False), _ROWS)]
        except csv.Error:
            continue
        found = (len(set(widths)) == 1 and widths[0] > 1, widths[0] if widths else 0)
        if found > order:
            best, order = separator, found
    return best


def _lines(text: str, separator: str, path: Path, skipped: int) -> list[Line]:
    """The rows that have something in them. skipped: lines of the file before the text."""
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend(_rows(text, separator, strict=True))
    except csv.Error as error:
        loose = list(_loosely(text, separator))
        if not loose:
            after = f"after line {rows[-1][0] + skipped}" if rows else "line 1"
            raise UsageError(f"{path}, {after}: {error}: is a quote open?") from None
        rows = loose
    same: dict[str, str] = {}  # so that a label is kept once, not once per row
    found = []
    for line, cells in rows:
        stripped = tuple(same.setdefault(short, short) for short in map(str.strip, cells))
        if any(stripped):
            found.append(Line(line + skipped, stripped))
    return found


def _loosely(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Rows with more behind a quote, such as a blank; none where an open quote may have swallowed some."""
    try:
        rows = list(_rows(text, separator, strict=False))
    except csv.Error:
        return []
    sound = len({len(cells) for _, cells in rows}) == 1
    return rows if sound and not any("\n" in cell or "\r" in cell for _, row in rows for cell in row) else []
