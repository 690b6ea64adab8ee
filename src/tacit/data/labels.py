"""Labels that come apart from the samples: a CSV file, and splits that keep the classes' shares."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tacit.data.source import UNLABELLED
from tacit.errors import UsageError, did_you_mean
from tacit.rng import Rng

FILE_COLUMNS = ("file", "path", "name", "image", "filename", "image_path")
LABEL_COLUMNS = ("label", "class", "target", "grade", "y")
GROUP_COLUMNS = ("group", "subject", "patient", "participant", "subject_id", "patient_id")
_NO_LABEL = ("", "-1")
_WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")
_COMPARED = 20_000  # names that a wrong one is compared with; difflib takes about 1 s for so many


class Row(NamedTuple):
    """A row of a CSV file: its line, the sample's name as written, and the cell that belongs to it."""

    line: int
    file: str
    label: str


PickColumns = Callable[[Sequence[str]], tuple[int, int]]
"""The cells of the first line -> the column of the file, and that of what belongs to it."""
ReadRows = Callable[[list[Row]], list[Row]]


def sort_classes(classes: Iterable[str]) -> tuple[str, ...]:
    """The classes in the order of their numbers: as numbers if all are whole numbers, else as text."""
    classes = list(classes)
    if all(re.fullmatch(r"[+-]?\d+", name) for name in classes):
        return tuple(sorted(classes, key=lambda name: (int(name), name)))
    return tuple(sorted(classes))


def read_labels(
    path: str | Path, names: Sequence[str], skipped: Collection[str] = ()
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels from a CSV file (comma, semicolon or tab) for samples of these names.

    The file is in the column `file`, `path`, `name`, `image`, `filename` or `image_path`, else in the
    first; the label in `label`, `class`, `target`, `grade` or `y`, else in the second. A row is matched
    by the path as in `names`, or by the file's name, both with or without extension, where that is
    unique. An empty label or -1 means unlabelled, and so does having no row. Whole numbers that a
    spreadsheet has turned into `2.0` are whole numbers again.

    names: (N,) the samples. skipped: names of unusable files; their rows are passed over.

    Returns:
        (N,) int64 class numbers with -1 for unlabelled, and the classes in order, sorted (as numbers
        if all are whole numbers).

    Raises:
        UsageError: no such file, no label in it, a row that names no sample or several, or two rows
            that disagree about one sample.
    """
    path = Path(path)
    chosen = match_rows(path, names, skipped, partial(_columns, known=LABEL_COLUMNS))
    classes = sort_classes({row.label for row in chosen.values()} - set(_NO_LABEL))
    if not classes:
        raise UsageError(f"{path} holds no label: every row is empty or -1")
    number = {name: k for k, name in enumerate(classes)}
    labels = np.full(len(names) + len(skipped), UNLABELLED, np.int64)
    labels[list(chosen)] = [number.get(row.label, UNLABELLED) for row in chosen.values()]
    return labels[: len(names)], classes


def read_groups(where: str | Path, names: Sequence[str], skipped: Collection[str] = ()) -> np.ndarray:
    """Groups of samples that belong together, such as the images of one patient.

    where: a CSV file as `read_labels` takes it, the group in the column `group`, `subject`, `patient`, ...,
        else in the second; or `re:PATTERN`, a regular expression that finds the group in a sample's name:
        its first group in parentheses, else all that it matches. Samples without a row are groups of
        their own.

    Returns:
        (N,) int64 group numbers.

    Raises:
        UsageError: as `read_labels`; a pattern that is none, or that finds nothing in a name.
    """
    text = str(where)
    if text.startswith("re:"):
        found = _found_groups(text.removeprefix("re:"), names)
    else:
        chosen = match_rows(Path(where), names, skipped, partial(_columns, known=GROUP_COLUMNS))
        found = [f"group {chosen[i].label}" if i in chosen else f"alone {i}" for i in range(len(names))]
    return np.unique(np.array(found, str), return_inverse=True)[1].astype(np.int64)


def _found_groups(pattern: str, names: Sequence[str]) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"groups: '{pattern}' is not a regular expression: {error}") from None
    found = []
    for name in names:
        match = compiled.search(name)
        if match is None:
            raise UsageError(f"groups: the pattern '{pattern}' finds nothing in '{name}'")
        found.append(match[1] if compiled.groups else match[0])
    return found


def match_rows(
    path: Path,
    names: Sequence[str],
    skipped: Collection[str],
    columns: PickColumns,
    *,
    read: ReadRows | None = None,
    what: str = "label",
    delimiters: str = ",;\t",
) -> dict[int, Row]:
    """The row of each sample that has one; positions of skipped files follow those of the samples.

    read: rewrites the cells of all rows before two rows of one sample are compared; by default `2.0` becomes
        `2` where all are whole numbers. what: the cell's name in messages. delimiters: the one that the first
        line has most often is taken, of equals the first.

    Raises:
        UsageError: as `read_labels`, and what `columns` and `read` raise.
    """
    header, rows = _read_rows(path, columns, what, delimiters)
    lookup = _Lookup(names, tuple(skipped), {row.file for row in (header, *rows)})
    if lookup.find(header.file):  # no header: this is a sample already
        rows.insert(0, header)
    rows = (read or _whole_numbers)(rows)
    chosen: dict[int, Row] = {}
    absent: list[Row] = []
    for row in rows:
        found = lookup.find(row.file)
        if not found:
            absent.append(row)
        elif len(found) > 1:
            several = ", ".join(lookup.name(i) for i in found[:3])
            raise UsageError(
                f"{path}, line {row.line}: '{row.file}' fits {len(found)} samples ({several}): give the path"
            )
        elif (before := chosen.setdefault(found[0], row)).label != row.label:
            raise UsageError(
                f"{path}: lines {before.line} and {row.line} disagree about '{row.file}': "
                f"'{before.label}' and '{row.label}'"
            )
    if absent:
        count = f" (so do {len(absent) - 1} more rows)" if len(absent) > 1 else ""
        raise UsageError(
            f"{path}, line {absent[0].line}: no sample is called '{absent[0].file}'{count}"
            f"{did_you_mean(absent[0].file, lookup.like(absent[0].file))}"
        )
    return chosen


def stratified_split(labels: np.ndarray, fractions: Sequence[float], rng: Rng) -> tuple[np.ndarray, ...]:
    """Split the labelled positions into parts that have the classes' shares alike.

    Every class with as many samples as there are parts is in each part; a smaller one is in as many
    parts as it has samples. Beyond that, part p gets `fractions[p]` of each class to within one sample,
    and what rounding takes in one class is given back in the next, so that the parts' totals fit too.

    Written by hand because scikit-learn's `StratifiedShuffleSplit` makes two parts only, refuses
    classes with one sample, and leaves classes of two samples out of a part.

    labels: (N,) int64; unlabelled positions (-1) are in no part.
    fractions: of each part, above 0; if their sum is below 1 the rest is left out.

    Returns:
        For each part its positions, ascending, int64.

    Raises:
        UsageError: a fraction is not above 0, or the sum is above 1.
    """
    shares = np.asarray(fractions, float)
    if not len(shares) or (shares <= 0).any() or shares.sum() > 1 + 1e-9:
        raise UsageError(f"fractions must be above 0 with a sum of at most 1, not {list(fractions)}")
    shares = np.append(shares, max(1 - shares.sum(), 0.0))  # the last part is left out
    owed = np.zeros(len(shares))
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    for label in np.unique(labels[labels != UNLABELLED]):
        members = np.flatnonzero(labels == label)
        members = rng("class", int(label)).numpy().permutation(members)
        wanted = len(members) * shares + owed
        counts = _apportion(wanted, len(members))
        owed = wanted - counts
        for part, chosen in zip(parts, np.split(members, counts.cumsum()[:-1])[:-1], strict=True):
            part.append(chosen)
    empty = [np.zeros(0, np.int64)]
    return tuple(np.sort(np.concatenate(part or empty)) for part in parts)


def _apportion(wanted: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers near `wanted` with this sum, by largest remainders, none of the parts left empty.

    The last entry is the part that is left out; it may be empty.
    """
    counts = np.floor(wanted).clip(0).astype(np.int64)
    counts[:-1] = counts[:-1].clip(1)
    while (change := total - counts.sum()) != 0:
        if change > 0:
            counts[np.argmax(wanted - counts)] += 1
        else:
            spare = counts > np.append(np.ones(len(counts) - 1), 0)
            if not spare.any():  # fewer samples than parts
                spare = counts > 0
            counts[np.argmin(np.where(spare, wanted - counts, np.inf))] -= 1
    return counts


class _Lookup:
    """Samples by path or file name, each with or without extension; only those that rows ask for.

    So a short file of labels for a million images takes little memory.
    """

    def __init__(self, names: Sequence[str], skipped: Sequence[str], wanted: Iterable[str]) -> None:
        self._names, self._skipped = names, skipped
        asked = frozenset(map(_written, wanted))
        self._ways: tuple[dict[str, list[int]], ...] = ({}, {}, {}, {})
        for i, name in enumerate(chain(names, skipped)):
            for way, key in zip(self._ways, _keys(name), strict=True):
                if key in asked:
                    way.setdefault(key, []).append(i)

    def find(self, file: str) -> list[int]:
        """Positions that this text fits in the first way that fits any; skipped ones follow the samples."""
        file = _written(file)
        return next((way[file] for way in self._ways if file in way), [])

    def name(self, i: int) -> str:
        """The sample or skipped file at a position."""
        return self._names[i] if i < len(self._names) else self._skipped[i - len(self._names)]

    def like(self, file: str) -> list[str]:
        """Names to compare a wrong one with, in the way in which it was written."""
        names = islice(chain(self._names, self._skipped), _COMPARED)
        return list(names) if "/" in file else list(dict.fromkeys(_keys(name)[2] for name in names))


def _keys(name: str) -> tuple[str, str, str, str]:
    """The path, the path without extension, the file's name, and that without extension."""
    folder, slash, file = name.rpartition("/")
    dot = file.rfind(".")
    stem = file[:dot] if 0 < dot < len(file) - 1 else file
    if file.lower().endswith(".nii.gz"):
        stem = file[: -len(".nii.gz")] or file
    return name, f"{folder}{slash}{stem}", file, stem


def _written(file: str) -> str:
    return file.replace("\\", "/").removeprefix("./")


def _read_rows(path: Path, columns: PickColumns, what: str, delimiters: str) -> tuple[Row, list[Row]]:
    """The first row, which may be a header, and the others."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = [entry.name for entry in path.parent.glob("*")]
        raise UsageError(f"no {what}s file {path}{did_you_mean(path.name, near)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the {what}s file {path}: {error}") from None
    lines = text.splitlines()
    delimiter = max(delimiters, key=lines[0].count) if lines else ","
    reader = csv.reader(lines, delimiter=delimiter)
    first = [cell.strip() for cell in next(reader, [])]
    if len(first) < 2:
        raise UsageError(f"{path}: two columns are needed, the file and its {what}")
    file_column, cell_column = columns(first)
    rows = []
    for cells in reader:
        if not any(cells):
            continue
        if len(cells) <= max(file_column, cell_column) or any(cells[len(first) :]):
            raise UsageError(f"{path}, line {reader.line_num}: {len(cells)} cells, {len(first)} are expected")
        rows.append(Row(reader.line_num, cells[file_column].strip(), cells[cell_column].strip()))
    return Row(1, first[file_column], first[cell_column]), rows


def _columns(header: Sequence[str], known: Sequence[str]) -> tuple[int, int]:
    file = find_column(header, FILE_COLUMNS)
    file = 0 if file is None else file
    cell = find_column(header, known)
    return file, (0 if file == 1 else 1) if cell is None else cell


def find_column(header: Sequence[str], known: Sequence[str]) -> int | None:
    """The column that has the first of the known names, in upper or lower case; None if none has."""
    lower = [cell.lower() for cell in header]
    return next((lower.index(name) for name in known if name in lower), None)


def _whole_numbers(rows: Iterable[Row]) -> list[Row]:
    """`2.0` as `2`, if all labels are whole numbers (spreadsheets write them so beside empty cells)."""
    rows = list(rows)
    matches = [_WHOLE.fullmatch(row.label) for row in rows]
    if all(match or not row.label for match, row in zip(matches, rows, strict=True)):
        return [
            row._replace(label=match[1]) if match else row for match, row in zip(matches, rows, strict=True)
        ]
    return rows
