"""Which columns of a CSV file have the samples, and what belongs to them: by content, then by title."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tacit.data.lookup import Lookup, ending_of
from tacit.data.sheet import LOOKED_AT, Sheet, is_number
from tacit.data.table import Table
from tacit.errors import UsageError

FILE_COLUMNS = (
    *("file", "path", "name", "image", "filename", "image_path", "file_name", "file_path", "filepath"),
    *("image_id", "image_name", "image_file", "img", "images", "files", "scan"),
)
LABEL_COLUMNS = ("label", "class", "target", "grade", "y")
VALUE_COLUMNS = ("value", "target", "age", "y", "label")
GROUP_COLUMNS = ("group", "subject", "patient", "participant", "subject_id", "patient_id")
BINARY = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""Cells of one-hot columns, in lower case."""
_OTHERS = {*LABEL_COLUMNS, *VALUE_COLUMNS, *GROUP_COLUMNS}
_INDEX = re.compile(r"|(unnamed|level)_*:?_*\d+|index|idx|no|nr|#|row.*")  # titles of a row's number


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is looked for beside the files.

    what: in messages, in the singular. without: what rows without it are, in words. kind: what a word
    that may mean "missing" could be a name of; "" where it cannot. known: usual titles of its column.
    choose: how one of several is named, in words. column, file_column: those that the user named. lax:
    `file_column` may be of another file than this. classes: it may be spread over columns of 0 and 1,
    one per class. fits: whether a cell can be such a thing.
    """

    what: str
    without: str
    kind: str
    known: tuple[str, ...]
    choose: str
    column: str | None = None
    file_column: str | None = None
    lax: bool = False
    classes: bool = False
    fits: Callable[[str], bool] = field(default=bool)


class Columns(NamedTuple):
    """The columns that are read: of the files, and of what belongs to them; several of these are one-hot."""

    file: int
    cells: tuple[int, ...]


def choose_columns(
    table: Table, names: Sequence[str], skipped: Sequence[str], wanted: Wanted
) -> tuple[Sheet, Columns]:
    """The table as columns, and those to read.

    The files are in the column whose cells name samples. Plain numbers, which an index has too,
    stand back behind text and known titles. What belongs to them is in a column of a known title,
    or in the only one that is left beside empty ones, those that count the rows and those that name
    the samples again.

    Raises:
        UsageError: fewer than two columns, none of the title that was named, or more than one that can
            be meant.
    """
    if len(table.first) < 2:
        raise UsageError(f"{table.path}: two columns are needed, the file and its {wanted.what}")
    looked = table.lines[: LOOKED_AT + 1]
    lookup = Lookup(names, skipped, {cell for line in looked for cell in line.cells})
    sheet = Sheet(_with_row_names(table, lookup), lookup, header=len(table.lines) > 1)
    file = _file(sheet, wanted)
    sheet = Sheet(sheet.table, lookup, header=_has_header(sheet.table, lookup, file, wanted))
    return sheet, Columns(file, _cells(sheet, file, wanted))


def _with_row_names(table: Table, lookup: Lookup) -> Table:
    """With an empty title before the others where R leaves it out: rows are longer by their names."""
    body, width = table.lines[1:], len(table.first)
    if not body or any(len(line.cells) != width + 1 for line in body):
        return table

    def as_text(c: int) -> int:
        cells = (line.cells[c] for line in body[:LOOKED_AT])
        return sum(not is_number(cell) and bool(lookup.find(cell).positions) for cell in cells)

    if as_text(0) or not any(map(as_text, range(1, width + 1))):
        return table
    return table.starting(table.lines[0]._replace(cells=("", *table.first)))


def _file(sheet: Sheet, wanted: Wanted) -> int:
    """The column of the files."""
    if wanted.file_column is not None:
        named = sheet.at(wanted.file_column)
        if named is not None:
            return named
        if not wanted.lax:
            raise sheet.absent(wanted.file_column)
    taken = _taken(sheet, wanted)
    candidates = [c for c in range(sheet.width) if c not in taken]
    known = [c for title in FILE_COLUMNS for c in candidates if sheet.plain[c] == title]
    fit = [c for c in candidates if 2 * sheet.seen(c).text >= sheet.seen(c).filled > 0]
    fit = fit or [c for c in known if sheet.seen(c).named]
    if not fit and not known:
        fit = _numbers(sheet, candidates) or [c for c in candidates if sheet.seen(c).text]
    fit = _different(sheet, fit, known)
    titled = [c for c in fit if c in known]
    if len(fit) > 1 and len(titled) != 1:
        raise _several(sheet, "name the samples", fit, "name one with --file-column")
    return (titled or fit or known or candidates)[0]  # where it names none, a row will say so


def _taken(sheet: Sheet, wanted: Wanted) -> tuple[int, ...]:
    """The columns that the user named for something else; `_cells` refuses those that are not there."""
    try:
        return () if wanted.column is None else _named(sheet, wanted)
    except UsageError:
        return ()


def _numbers(sheet: Sheet, candidates: Sequence[int]) -> list[int]:
    """Columns of numbers all of which name a sample."""
    fit = [c for c in candidates if sheet.seen(c).numbers == sheet.seen(c).filled > 0]
    fit = [c for c in fit if sheet.plain[c] not in _OTHERS]
    fit = [c for c in fit if sheet.seen(c).distinct] or fit
    if sheet.width < 3:
        return fit
    rest = [c for c in fit if not (sheet.counts(c) and _INDEX.fullmatch(sheet.plain[c]))]
    fit = rest or fit
    if len(fit) == 1 and sheet.counts(fit[0]):
        raise UsageError(
            f"{sheet.table.path}: column {sheet.said(fit[0])} counts the rows, and its numbers name samples "
            "too, perhaps by chance: name the column of the files with --file-column"
        )
    return fit


def _different(sheet: Sheet, fit: Sequence[int], known: Sequence[int]) -> list[int]:
    """Without columns that name the same samples as a better one."""
    kept: list[int] = []
    for c in sorted(fit, key=lambda c: (-sheet.seen(c).named, c not in known)):
        if not any(sheet.seen(c).same(sheet.seen(k)) for k in kept):
            kept.append(c)
    return kept


def _has_header(table: Table, lookup: Lookup, file: int, wanted: Wanted) -> bool:
    """Whether the first line has titles, and no sample that may be absent."""
    sheet = Sheet(table, lookup, header=True)
    for word in (wanted.column, wanted.file_column):
        if word is not None and not word.isdecimal() and sheet.titled(word) is not None:
            return True
    cell, found = table.first[file], bool(lookup.find(table.first[file]).positions)
    if sheet.plain[file] in FILE_COLUMNS:
        others = [c for c in range(sheet.width) if c != file]
        titled = any(sheet.plain[c] in _OTHERS for c in others)
        return not found or titled or not any(table.first[c] in sheet.column(c) for c in others)
    return not found and not _alike(cell, sheet.column(file, LOOKED_AT))


def _alike(cell: str, others: Sequence[str]) -> bool:
    """Whether a cell is written as those below it are: with their extension, or digits in their places."""
    if not others:
        return bool(ending_of(cell))
    if (ending := ending_of(cell)) and any(ending == ending_of(other) for other in others):
        return True
    shape = re.sub(r"\d+", "0", cell)
    return any(map(str.isdigit, cell)) and any(shape == re.sub(r"\d+", "0", other) for other in others)


def _cells(sheet: Sheet, file: int, wanted: Wanted) -> tuple[int, ...]:
    """The column of what belongs to the files, or those that are one-hot."""
    if wanted.column is not None:
        named = _named(sheet, wanted)
        if file in named:
            raise UsageError(
                f"{sheet.table.path}: column {sheet.said(file)} has the files: name another for the "
                f"{wanted.what}"
            )
        return named
    known = [c for title in wanted.known for c in range(sheet.width) if sheet.plain[c] == title and c != file]
    if known and not (wanted.classes and _contradict(sheet, known)):
        return (known[0],)
    fit = known or _left(sheet, file, wanted)
    if len(fit) > 1 and wanted.classes and sheet.titles and not known and _one_hot(sheet, fit):
        return tuple(fit)
    if len(fit) > 1:
        raise _several(sheet, f"have the {wanted.what}s", fit, wanted.choose)
    return (fit[0],)


def _left(sheet: Sheet, file: int, wanted: Wanted) -> list[int]:
    """Columns that can be meant where none has a known title; at least one."""

    def is_index(c: int) -> bool:
        return bool(_INDEX.fullmatch(sheet.plain[c]) or sheet.plain[c] == "id") and sheet.counts(c)

    def is_file(c: int) -> bool:
        seen = sheet.seen(c)
        surely = seen.text or (seen.distinct and seen.filled > 2)  # 0 and 1 are of two classes
        return bool(surely) and 2 * seen.named > seen.filled and seen.same(sheet.seen(file))

    def fits(c: int) -> bool:
        cells = [cell for cell in sheet.column(c) if cell]
        return 2 * sum(map(wanted.fits, cells)) > len(cells)

    left = [c for c in range(sheet.width) if c != file]
    for refused in (lambda c: not any(sheet.column(c)), is_index, is_file, lambda c: not fits(c)):
        left = [c for c in left if not refused(c)] or left
    return left


def _contradict(sheet: Sheet, columns: Sequence[int]) -> bool:
    """Whether two columns divide the rows differently."""
    first, *others = (sheet.column(c) for c in columns)
    kinds = len({*first})
    return any(len({*other}) != kinds or len({*zip(first, other, strict=True)}) != kinds for other in others)


def _one_hot(sheet: Sheet, columns: Sequence[int]) -> bool:
    """Whether all cells are 0 or 1."""
    return all({cell.lower() for cell in sheet.column(c)} <= {"", *BINARY} for c in columns)


def _named(sheet: Sheet, wanted: Wanted) -> tuple[int, ...]:
    """The columns that the user named: one, or several one-hot ones with commas between them."""
    assert wanted.column is not None
    whole = sheet.at(wanted.column)
    if whole is not None:
        return (whole,)
    parts = [sheet.at(part.strip()) for part in wanted.column.split(",")] if wanted.classes else []
    known = tuple(part for part in parts if part is not None)
    if len(parts) > 1 and len(known) == len(parts):
        return known
    raise sheet.absent(wanted.column)


def _several(sheet: Sheet, verb: str, columns: Sequence[int], mend: str) -> UsageError:
    listed = sheet.listed(sorted(columns))
    return UsageError(f"{sheet.table.path} has several columns that may {verb} ({listed}): {mend}")
