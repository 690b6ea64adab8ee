"""What was left out of the data, in one line and in a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tacit.data.source import Skipped, Source
from tacit.errors import escaped
from tacit.files import csv_line, write_atomically

_NAMED = 3  # files that the line names
_HEAD = ",".join(Skipped._fields)


def skipped_line(skipped: Sequence[Skipped], used: int, listed: Path | None = None) -> str:
    """How many files were skipped, the first names with their reasons, and where all are listed.

    used: how many samples there are. listed: the file with all of them, if there is one.
    """
    named = "; ".join(f"{each.name}: {each.reason}" for each in skipped[:_NAMED])
    more = f"; and {len(skipped) - _NAMED:,} more" if len(skipped) > _NAMED else ""
    where = f"; all are listed in {listed}" if listed is not None else ""
    return escaped(f"note: skipped {len(skipped):,}, used {used:,}: {named}{more}{where}")


def report_skipped(source: Source, listed: Path | None) -> None:
    """Print the line to stderr and write the list, columns name and reason, if anything was skipped.

    listed: the file to write, or None. A list from an earlier time is removed when nothing was skipped.

    Raises:
        TacitError: it cannot be written.
    """
    skipped = source.skipped
    if skipped:
        if listed is not None:
            write_skipped(listed, skipped)
        print(skipped_line(skipped, len(source), listed), file=sys.stderr)
    elif listed is not None and _is_list(listed):
        listed.unlink(missing_ok=True)


def beside(out: Path | None) -> Path | None:
    """The list that belongs to results: `a.skipped.csv` of `a.csv`, `skipped.csv` in a folder; else None."""
    if out is None:
        return None
    return out / "skipped.csv" if out.is_dir() else out.with_suffix(".skipped.csv")


def write_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    r"""A CSV file with the columns name and reason; bytes of names that are not UTF-8 as `\xe9`.

    Raises:
        TacitError: it cannot be written.
    """
    write_atomically(path, "".join(map(csv_line, [Skipped._fields, *skipped])))


def _is_list(path: Path) -> bool:
    """Whether a list was written there before, rather than something else of that name."""
    try:
        with path.open("rb") as file:
            return file.read(len(_HEAD)) == _HEAD.encode()
    except OSError:
        return False
