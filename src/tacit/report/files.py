"""What a run folder's `run.yaml` and `metrics.csv` must be; anybody can have written them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tacit.checks import check_number, check_type, is_count, shortly, wrong
from tacit.errors import TacitError
from tacit.untrusted import first_line, mapping, read_text

_LARGEST = 256 * 2**20  # bytes of metrics.csv
_MOST_COLUMNS = 200
_LONGEST = 100  # characters of a column's name
_HIGHEST = 1e100
_STEP = re.compile(r"[0-9]{1,15}")
_COUNTS = {"data": ("samples", "labelled", "skipped"), "images": ("samples",), "labels": ("unlabelled",)}
_TEXTS = {"data": "fingerprint", "images": "fingerprint", "labels": "digest"}


def check_settings(values: Any) -> dict[str, Any]:
    """The values of a `run.yaml`: the method's name and options, arguments of `fit`, and what it ran on.

    The arguments' own types are known to those who take them.

    Raises:
        ValueError: names the field that is something else.
    """
    settings = mapping(values, "it")
    if "method" in settings:
        method = mapping(settings["method"], "its method")
        check_type("method.name", method.get("name"), str, "the name of a method")
    record = mapping(settings.get("record", {}), "its record")
    for part in ("data", "images", "labels", "recipe", "encoder", "versions"):
        found = mapping(record.get(part, {}), f"its record.{part}")
        for name in _COUNTS.get(part, ()):
            _check_count(f"record.{part}.{name}", found.get(name, 0))
        if part in _TEXTS and _TEXTS[part] in found:
            check_type(f"record.{part}.{_TEXTS[part]}", found[_TEXTS[part]], str, "a text")
    for name in ("learned", "held_out"):
        counts = record.get("labels", {}).get(name, {})
        check_type(f"record.labels.{name}", counts, dict, "numbers by class")
        for count in counts.values():
            _check_count(f"record.labels.{name}", count)
    return settings


def _check_count(name: str, value: object) -> None:
    check_number(name, value, is_count, "a whole number of at least 0")


@dataclass(frozen=True, slots=True)
class Rows:
    """A `metrics.csv`: its columns, and the text in each cell of each row, where there is any."""

    columns: Sequence[str]
    cells: list[dict[str, str]]

    def points(self, column: str) -> list[tuple[int, float]]:
        """Steps and values of a column, but for those that no axis has room for."""
        found = [(int(row["step"]), float(row[column])) for row in self.cells if row[column]]
        return [point for point in found if abs(point[1]) <= _HIGHEST]


def read_rows(path: Path) -> Rows:
    """The rows of a `metrics.csv`; one that a kill has cut short, the last, is left out.

    Raises:
        TacitError: it cannot be read, or something in it is not a number.
    """
    try:
        return _rows(read_text(path, _LARGEST))
    except OSError as error:
        raise TacitError(f"cannot read {path}: {first_line(error)}") from None
    except (ValueError, csv.Error) as error:
        raise TacitError(f"{path} is damaged: {first_line(error)}") from None


def _rows(text: str) -> Rows:
    lines = text.splitlines()
    reader = csv.reader(lines)
    columns = next(reader, [])
    if not columns:
        return Rows((), [])
    _check_columns(columns)
    cells = []
    for values in reader:
        try:
            cells.append(_row(columns, values))
        except ValueError as error:
            if reader.line_num == len(lines) and not text.endswith("\n"):
                break
            raise ValueError(f"line {reader.line_num}: {error}") from None
    return Rows(columns, cells)


def _check_columns(columns: Sequence[str]) -> None:
    if len(columns) > _MOST_COLUMNS or len(set(columns)) < len(columns) or "step" not in columns:
        raise ValueError(
            f"its columns are {shortly(columns)}, and must be {_MOST_COLUMNS} names or fewer, step among them"
        )
    for name in columns:
        if not (name.isprintable() and 0 < len(name) <= _LONGEST):
            raise ValueError(f"a column is named {shortly(name)}, and must have a name of one line")


def _row(columns: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    if len(values) != len(columns):
        raise ValueError(f"it has {len(values)} cells, and must have {len(columns)}")
    row = dict(zip(columns, values, strict=True))
    if not _STEP.fullmatch(row["step"]):
        raise wrong("step", row["step"], "a whole number")
    for name, cell in row.items():
        try:
            float(cell or 0)
        except ValueError:
            raise wrong(name, cell, "a number") from None
    return row
