"""A table seen as columns: their titles, and what their cells have to do with the samples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tacit.data.lookup import Lookup
from tacit.data.table import Line, Table
from tacit.errors import UsageError, did_you_mean

LOOKED_AT = 1000
"""Rows whose cells are compared with the samples' names to choose the columns."""
_PLAIN = re.compile(
    r"[+-]?(0|[1-9]\d*)(\.0*)?", re.ASCII
)  # a number, which names a sample by chance at times
_SHOWN = 12  # columns in a message


class Seen(NamedTuple):
    """What the first rows of a column have to do with the samples.

    filled: cells. text, numbers: how many of them name a sample, as text and as plain numbers.
    found: positions of each row's samples. distinct: whether no cell is there twice.
    """

    filled: int
    text: int
    numbers: int
    found: tuple[Sequence[int], ...]
    distinct: bool

    @property
    def named(self) -> int:
        """How many cells name a sample."""
        return self.text + self.numbers

    def same(self, other: Seen) -> bool:
        """Whether two columns name the same samples, wherever both name some."""
        pairs = [(a, b) for a, b in zip(self.found, other.found, strict=True) if a and b]
        return bool(pairs) and all(list(a) == list(b) for a, b in pairs)


class Sheet:
    """A table, with the first line as titles or as a row like the others.

    body: the rows. titles: (C,) of the columns, or None. plain: (C,) the titles in lower case, with
    _ for blanks, "" without titles.
    """

    def __init__(self, table: Table, lookup: Lookup, *, header: bool) -> None:
        self.table, self.lookup = table, lookup
        self.body: list[Line] = table.lines[1:] if header else table.lines
        self.width = len(table.first)
        self.titles = tuple(map(table.readable, table.first)) if header else None
        self.plain = tuple(map(plain_title, self.titles or ("",) * self.width))
        self._seen: dict[int, Seen] = {}

    def column(self, c: int, rows: int | None = None) -> list[str]:
        """The cells of a column, of the first rows or of all."""
        return [line.cells[c] if c < len(line.cells) else "" for line in self.body[:rows]]

    def seen(self, c: int) -> Seen:
        """The column beside the samples."""
        if c not in self._seen:
            self._seen[c] = self._look(self.column(c, LOOKED_AT))
        return self._seen[c]

    def _look(self, cells: Sequence[str]) -> Seen:
        found = tuple(self.lookup.find(cell).positions if cell else () for cell in cells)
        text = sum(bool(f) and not is_number(cell) for f, cell in zip(found, cells, strict=True))
        filled = [cell for cell in cells if cell]
        return Seen(len(filled), text, sum(map(bool, found)) - text, found, len({*filled}) == len(filled))

    def counts(self, c: int) -> bool:
        """Whether its cells are 0, 1, 2, ... or 1, 2, 3, ..."""
        cells = self.column(c)
        if len(cells) < 2 or cells[0] not in ("0", "1"):
            return False
        return all(cell == str(int(cells[0]) + k) for k, cell in enumerate(cells))

    def said(self, c: int) -> str:
        """A column in words."""
        return f"'{self.titles[c]}'" if self.titles and self.titles[c] else str(c + 1)

    def listed(self, columns: Sequence[int]) -> str:
        """Several columns in words."""
        names = [self.titles[c] if self.titles and self.titles[c] else str(c + 1) for c in columns[:_SHOWN]]
        return ", ".join(names) + (", ..." if len(columns) > _SHOWN else "")

    def titled(self, word: str) -> int | None:
        """The column of this title, or failing that of one in other capitals."""
        titles = self.titles or ()
        folded = [title.lower() for title in titles]
        if word in titles:
            return titles.index(word)
        return folded.index(word.lower()) if word.lower() in folded else None

    def at(self, word: str) -> int | None:
        """The column of this title, or of this number, from 1.

        Raises:
            UsageError: it is the title of one and the number of another.
        """
        found = self.titled(word)
        number = int(word) - 1 if word.isdecimal() and 1 <= int(word) <= self.width else None
        if None not in (found, number) and found != number:
            raise UsageError(
                f"{self.table.path}: '{word}' is the title of one column and the number of another: give one "
                "of them another title"
            )
        return number if found is None else found

    def absent(self, word: str) -> UsageError:
        """The error for a column that is not there."""
        titles = [title for title in self.titles or () if title]
        has = f"; it has {self.listed(range(self.width))}"
        return UsageError(f"{self.table.path} has no column '{word}'{did_you_mean(word, titles)}{has}")


def plain_title(title: str) -> str:
    """A title in lower case, with _ for what stands between words."""
    return re.sub(r"[\s.-]+", "_", title.strip().lower())


def is_number(cell: str) -> bool:
    """Whether a cell is a whole number without zeros before it, as an index has them."""
    return bool(_PLAIN.fullmatch(cell))
