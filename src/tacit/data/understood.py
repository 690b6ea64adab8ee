"""What was understood of the data, in words: classes, splits, groups, and what has no label."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from tacit.data.source import UNLABELLED, Source

_CLASSES = 8
"""Classes that are named with their counts."""
_MANY = 10
"""Labels from which on as many classes are strange."""
_SKIPPED = 3
"""Files left out that are named."""


def understood(source: Source) -> list[str]:
    """Lines to show before anything is done with the data.

    For instance "data: 68 images; 2 classes: cat 24, dog 24; 20 without a label; splits: train 44, test 24".
    """
    parts = [
        f"{len(source):,} {source.spec.modality}{'s' if len(source) != 1 else ''}",
        source.understood or _labels(source),
        _splits(source),
        "" if source.groups is None else f"{len(np.unique(source.groups)):,} groups",
    ]
    lines = ["data: " + "; ".join(filter(None, parts))]
    lines += [f"data: {note}" for note in (source.label_note, source.group_note) if note]
    if source.skipped:
        lines.append(f"data: {_left_out(source)}")
    return [*lines, *(f"note: {note}" for note in (*source.notes, *straddling(source), *_lonely(source)))]


def say(source: Source) -> None:
    """Print what was understood to stderr."""
    for line in understood(source):
        print(line, file=sys.stderr)


def _lonely(source: Source) -> list[str]:
    """A note where nearly every label is a class of its own, as numbers and names are."""
    known = source.labelled
    if source.spec.target != "class" or source.values is not None or len(known) < _MANY:
        return []
    classes = len(np.unique(source.labels[known]))
    if 2 * classes <= len(known):
        return []
    return [
        f"{classes:,} classes for {len(known):,} labels: if these are numbers to learn, such as ages, pass "
        "the file with --values"
    ]


def _labels(source: Source) -> str:
    known = source.labelled
    rest = len(source) - len(known)
    if not len(known):
        return "no labels"
    without = f"; {rest:,} without a label" if rest else ""
    if source.values is not None:
        low, high = source.values[known].min(), source.values[known].max()
        return f"{len(known):,} values from {low:g} to {high:g}{without}"
    if source.spec.target != "class":
        return f"{len(known):,} with a {source.spec.target}{without}"
    return _classes(source) + without


def _classes(source: Source) -> str:
    counts = np.bincount(source.labels[source.labels != UNLABELLED])
    names: Sequence[str] = source.spec.classes or [str(c) for c in range(len(counts))]
    counts = np.pad(counts, (0, len(names) - len(counts)))
    first = ", ".join(f"{name} {count:,}" for name, count in list(zip(names, counts, strict=True))[:_CLASSES])
    more = f" and {len(names) - _CLASSES:,} more" if len(names) > _CLASSES else ""
    return f"{len(names):,} class{'es' if len(names) != 1 else ''}: {first}{more}"


def _splits(source: Source) -> str:
    if not source.splits:
        return ""
    return "splits: " + ", ".join(f"{name} {len(part):,}" for name, part in source.splits.items())


def _left_out(source: Source) -> str:
    first = ", ".join(f"{bad.name} ({bad.reason})" for bad in source.skipped[:_SKIPPED])
    more = f" and {len(source.skipped) - _SKIPPED:,} more" if len(source.skipped) > _SKIPPED else ""
    return f"{len(source.skipped):,} left out: {first}{more}"


def straddling(source: Source) -> list[str]:
    """A note where groups are in two splits of the data, so that what is measured on one flatters."""
    if source.groups is None:
        return []
    owners = {name: np.unique(source.groups[part]) for name, part in source.splits.items()}
    shared = {(a, b): len(np.intersect1d(owners[a], owners[b])) for a, b in combinations(owners, 2)}
    return [
        f"{count:,} group(s) are in {a} and in {b}: what is measured on {b} flatters"
        for (a, b), count in shared.items()
        if count
    ]
