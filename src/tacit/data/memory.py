"""Data that lie in memory rather than in files: what a kind of data has made of them."""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from tacit.data.frame import cells_of, is_frame
from tacit.data.labels import is_missing, sort_classes
from tacit.data.source import UNLABELLED, Source
from tacit.errors import UsageError

Data = str | os.PathLike[str] | Source | Any
"""What verbs take: a name or a folder, a source, or what lies in memory; see `taken`."""


class Held(ABC):
    """Data in memory, not yet in the form that an encoder wants.

    modality: their kind. labels, classes: (N,) int64 with -1 for unlabelled, and the classes' names; None and
    empty where the data bring none. notes: what a user could not expect.
    """

    modality: ClassVar[str]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def described(self) -> str:
        """What it is, in words for a protocol."""


def is_in_memory(where: Any) -> bool:
    """Whether data are neither named nor a source."""
    return not isinstance(where, str | os.PathLike | Source | Held)


def class_numbers(labels: Any, count: int, classes: Sequence[str] = ()) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N,) int64 class numbers with -1 for unlabelled, and the classes' names in order.

    labels: N whole numbers, names, or None, NaN and -1 for unlabelled; an array, a tensor or a list. count:
    N.
    classes: names for whole numbers, where the data bring them; else these are the names.

    Raises:
        UsageError: another number of labels, several for a sample, fractions, or a number without a name.
    """
    given = np.asarray(labels.cpu() if hasattr(labels, "cpu") else labels)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1 or len(given) != count:
        raise UsageError(f"labels have shape {given.shape}, and there are {count} samples: one label each")
    words = [_word(label) for label in given.tolist()]
    found = tuple(classes) or sort_classes({word for word in words if word is not None})
    number = {str(k) if classes else name: k for k, name in enumerate(found)}
    wrong = next((i for i, word in enumerate(words) if word is not None and word not in number), None)
    if wrong is not None:
        raise UsageError(f"label {words[wrong]} of sample {wrong} is none of the {len(found)} classes")
    return np.array([UNLABELLED if word is None else number[word] for word in words], np.int64), found


def _word(label: Any) -> str | None:
    """A label as text; None where there is none, by the rule of label files."""
    if isinstance(label, float) and np.isfinite(label):
        if label != round(label):
            raise UsageError(f"label {label:g} is a fraction: classes are whole numbers or names")
        label = int(label)
    return None if is_missing(str(label)) else str(label)


def with_labels(where: Held | Source, labels: Any) -> Held | Source:
    """The same data with other labels: N of them, as `class_numbers` takes them.

    Raises:
        UsageError: as `class_numbers`.
    """
    seen = copy.copy(where)
    numbers, classes = class_numbers(labels, len(where))
    if isinstance(seen, Held):
        seen.labels, seen.classes = numbers, classes
        return seen
    seen.labels, seen.values = numbers, None
    seen.spec = replace(seen.spec, classes=classes, target="class")
    return seen


def taken(where: Any, labels: Any = None) -> tuple[Any, Any]:
    """Data and labels as every verb goes on with them: names and sources as they are, all else as `Held`.

    Labels in memory become labels of the data; then None is left of them. For a frame they may be the name of
    a column.

    Raises:
        UsageError: nothing that is read; labels in memory for data in files.
    """
    from tacit.data.wings import all_wings

    if is_in_memory(where):
        held = next(
            (found for wing in all_wings().values() if (found := _held(wing, where)) is not None), None
        )
        if held is None:
            raise UsageError(
                f"data of type {type(where).__name__} are nothing that is read: name a folder, or pass an "
                "array (N, height, width[, channels]), a list of paths or pictures, a data set, or a Source"
            )
        if is_frame(where) and isinstance(labels, str) and labels != "none":
            labels, held.notes = cells_of(where, labels), ()
        where = held
    if labels is None or isinstance(labels, str | os.PathLike):
        return where, labels
    if not isinstance(where, Held | Source):
        raise UsageError("labels in memory go with data in memory: for files, name a CSV")
    return with_labels(where, labels), None


def described(where: Any) -> str:
    """Data in words for a protocol: the name of files, the kind of a source or of what lies in memory."""
    if isinstance(where, Held):
        return where.described()
    return type(where).__name__ if isinstance(where, Source) else os.fspath(where)


def _held(wing: Any, where: Any) -> Held | None:
    take = getattr(wing, "take", None)
    return None if take is None else take(where)
