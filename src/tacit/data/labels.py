"""Labels that come apart from the samples: a CSV file, and splits that keep the classes' shares."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tacit.data.columns import GROUP_COLUMNS, LABEL_COLUMNS, Wanted
from tacit.data.match import MISSING, Row, match_rows
from tacit.data.names import spelled
from tacit.data.source import UNLABELLED
from tacit.errors import UsageError
from tacit.rng import Rng

_WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")
_MINUS_ONE = re.compile(r"-1(\.0*)?")


class Labelled(NamedTuple):
    """Labels of N samples from a file.

    labels: (N,) int64 class numbers with -1 for unlabelled. classes: in order, sorted (as numbers
    if all are whole numbers). said: in words, what was read. file_column: the title of the column
    of the files, "" without one.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    said: str
    file_column: str


class Grouped(NamedTuple):
    """Groups of N samples, (N,) int64 numbers; what was read, in words; the title of the files' column."""

    groups: np.ndarray
    said: str = ""
    file_column: str = ""


def sort_classes(classes: Iterable[str]) -> tuple[str, ...]:
    """The classes in the order of their numbers: as numbers if all are whole numbers, else as text."""
    classes = list(classes)
    if all(re.fullmatch(r"[+-]?\d+", name) for name in classes):
        return tuple(sorted(classes, key=lambda name: (int(name), name)))
    return tuple(sorted(classes))


def read_labels(
    path: str | Path,
    names: Sequence[str],
    skipped: Collection[str] = (),
    *,
    label_column: str | None = None,
    file_column: str | None = None,
    lax: bool = False,
) -> Labelled:
    """Labels of samples from a CSV file (comma, semicolon or tab; UTF-8, UTF-16 or Windows-1252).

    The files are in the column whose cells name samples (see `tacit.data.columns`). The label is in
    the column `label`, `class`, `target`, `grade` or `y`, else in the only one that is left, else
    in several of 0 and 1 with a single 1 in each row, whose titles are the classes then. A row is
    matched by the path as in `names`, or by the file's name, both with or without extension, where
    that is unique; folders before it are left aside.

    An empty label, -1, `NA`, `nan`, `None` (not `none`), `null` or `?` means unlabelled, and so does
    having no row. Whole numbers that a spreadsheet has turned into `2.0` are whole numbers again.

    names: (N,) the samples. skipped: names of unusable files; their rows are passed over.
    label_column, file_column: the columns, by title or by number from 1; one-hot ones with commas
        between them.
    lax: whether `file_column` need not be there.

    Raises:
        UsageError: no such file or column, more than one column that can be meant, no label in it, a
            row that names no sample or several, or two rows that disagree about one sample.
    """
    path = Path(path)
    wanted = Wanted(
        what="label",
        without="unlabelled",
        kind="class",
        known=LABEL_COLUMNS,
        choose="name one with --label-column",
        column=label_column,
        file_column=file_column,
        lax=lax,
        classes=True,
    )
    found = match_rows(path, names, skipped, wanted, _classes)
    classes = sort_classes({row.label for row in found.rows.values()} - {""})
    if not classes:
        raise UsageError(f"{path} holds no label: every row is empty or -1 ({found.said})")
    number = {name: k for k, name in enumerate(classes)}
    labels = np.full(len(names) + len(skipped), UNLABELLED, np.int64)
    labels[list(found.rows)] = [number.get(row.label, UNLABELLED) for row in found.rows.values()]
    return Labelled(labels[: len(names)], classes, found.said, found.file_column)


def read_groups(
    where: str | Path,
    names: Sequence[str],
    skipped: Collection[str] = (),
    *,
    file_column: str | None = None,
    lax: bool = False,
) -> Grouped:
    """Groups of samples that belong together, such as the images of one patient.

    where: a CSV file as `read_labels` takes it, the group in the column `group`, `subject`,
        `patient`, ..., else in the only one that is left; or `re:PATTERN`, a regular expression
        that finds the group in a sample's name: its first group in parentheses, else all that it
        matches. Samples without a row, or with an empty cell in it, are groups of their own.
    file_column, lax: as for `read_labels`.

    Raises:
        UsageError: as `read_labels`; a pattern that is none, or that finds nothing in a name.
    """
    text = str(where)
    if text.startswith("re:"):
        return _numbered(_found_groups(text.removeprefix("re:"), names))
    wanted = Wanted(
        what="group",
        without="without a group",
        kind="group",
        known=GROUP_COLUMNS,
        choose="call the one that has them 'group'",
        file_column=file_column,
        lax=lax,
    )
    chosen, said, column = match_rows(Path(where), names, skipped, wanted, _groups)
    labels = (chosen[i].label if i in chosen else "" for i in range(len(names)))
    found = [f"group {label}" if label else f"alone {i}" for i, label in enumerate(labels)]
    return _numbered(found)._replace(said=said, file_column=column)


def _numbered(groups: Sequence[str]) -> Grouped:
    return Grouped(np.unique(np.array(groups, str), return_inverse=True)[1].astype(np.int64))


def _found_groups(pattern: str, names: Sequence[str]) -> list[str]:
    try:
        compiled = re.compile(spelled(pattern))
    except re.error as error:
        raise UsageError(f"groups: '{pattern}' is not a regular expression: {error}") from None
    found = []
    for name in names:
        match = compiled.search(spelled(name))
        group = match and match[1 if compiled.groups else 0]
        if group is None:
            raise UsageError(f"groups: the pattern '{pattern}' finds nothing in '{name}'")
        found.append(group)
    return found


def is_missing(label: str) -> bool:
    """Whether this is written where there is no label: -1, nothing, `NA`, `nan`, `None`, `null` or `?`.

    `None` counts in Python's own spelling alone: people call a class `none`, such as the lowest of a
    severity (our choice).
    """
    word = label.strip()
    if word.lower() == "none":
        return word == "None"
    return word.lower() in MISSING or bool(_MINUS_ONE.fullmatch(word))


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


def _groups(rows: list[Row]) -> list[Row]:
    """As `_classes`, and `none` is missing, too."""
    return [row._replace(label="") if row.label.lower() in MISSING else row for row in _classes(rows)]


def _classes(rows: Iterable[Row]) -> list[Row]:
    """Missing labels as "", and `2.0` as `2` if all are whole numbers (spreadsheets write them so)."""
    rows = [row._replace(label="") if is_missing(row.label) else row for row in rows]
    matches = [_WHOLE.fullmatch(row.label) for row in rows]
    if all(match or not row.label for match, row in zip(matches, rows, strict=True)):
        return [
            row._replace(label=match[1]) if match else row for match, row in zip(matches, rows, strict=True)
        ]
    return rows
