"""What the names of folders say of the images in them: classes, and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tacit.data.labels import sort_classes
from tacit.data.names import spelled
from tacit.data.source import UNLABELLED
from tacit.data.splits import NO_LABELS, Folders, part_of, parts_of
from tacit.errors import UsageError

Path = tuple[str, ...]
"""The names of a folder and of those that it lies in, from the top."""


class Tree(NamedTuple):
    """What F folders say.

    classes: the classes' names, in order. labels: (F,) int64, -1 where the folder is no class. parts: the
    part of the data that each folder is, as `part_of` calls it; "" where it is none. notes: what a reader
    could not expect.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    parts: list[str]
    notes: tuple[str, ...] = ()


def read_tree(
    folders: Sequence[str], where: object = ".", reading: Folders | None = None, *, aside: bool = False
) -> Tree:
    """Classes and splits from folders that hold images, such as "cats/" or "train/cats/"; see `open_folder`.

    Names in two normal forms of Unicode are one class. Whole numbers are sorted as numbers.

    folders: as `Listing.folders` has them, "" for the one that was opened. where: that, for messages.
    reading: what the first level is, where names leave it open. aside: look for splits alone, because labels
    come from elsewhere.

    Raises:
        UsageError: as `parts_of`; or parts whose classes have nothing in common.
    """
    paths: list[Path] = [tuple(map(spelled, f.split("/")[:-1])) for f in folders]
    above, paths = _unwrapped(paths)
    first = _names(paths)
    parts = parts_of(first, where, reading) if first else {}
    if any(parts.values()):
        of = [parts[path[0]] if path else "" for path in paths]
        classes = [""] * len(paths) if aside else _below(paths, parts, where)
    else:
        whole = next((part for name in above if (part := part_of(name))), "")
        of = [whole] * len(paths)
        known = len(first) > 1 and whole != NO_LABELS and not aside
        classes = [path[0] if path and known else "" for path in paths]
    notes = [f"classes are the folders in {'/'.join(above)}/"] if above and any(classes) else []
    names = sort_classes(set(classes) - {""})
    numbers = {name: k for k, name in enumerate(names)}
    labels = np.array([numbers.get(name, UNLABELLED) for name in classes], np.int64)
    return Tree(names, labels, of, (*notes, *_alike(names)))


def _unwrapped(paths: list[Path], known: Iterable[str] = ()) -> tuple[Path, list[Path]]:
    """Without the folders that all lie in and that are no class, and those."""
    above: list[str] = []
    known = set(known)
    while paths and all(paths) and len({path[0] for path in paths}) == 1 and paths[0][0] not in known:
        if all(len(path) == 1 for path in paths):
            break
        above.append(paths[0][0])
        paths = [path[1:] for path in paths]
    return tuple(above), paths


def _below(paths: list[Path], parts: dict[str, str], where: object) -> list[str]:
    """The class of each folder: in a split the folder below, or beside splits a folder that is none."""
    inside = {name: [path[1:] for path in paths if path and path[0] == name] for name in parts}
    labelled = [name for name, part in parts.items() if part != NO_LABELS]
    several = {name: _names(_unwrapped(inside[name])[1]) for name in labelled if parts[name]}
    known = {found for names in several.values() if len(names) > 1 for found in names}
    if not known:  # the parts have no classes: those are the folders beside them
        return [path[0] if path and not parts[path[0]] else "" for path in paths]
    found: dict[Path, str] = {}
    for name in labelled:
        above, rest = _unwrapped(inside[name], known)
        names = _names(rest)
        if parts[name] and (len(names) > 1 or names & known):
            found |= {(name, *above, *path): path[0] for path in rest if path}
    _check(found, parts, where)
    return [found.get(path, "") for path in paths]


def _names(paths: Iterable[Path]) -> set[str]:
    return {path[0] for path in paths if path}


def _check(found: dict[Path, str], parts: dict[str, str], where: object) -> None:
    """Refuse a part whose classes are none of the training part."""
    classes: dict[str, set[str]] = {}
    for path, name in found.items():
        classes.setdefault(parts[path[0]], set()).add(name)
    train = classes.get("train", set())
    for part, names in classes.items():
        if train and not names & train:
            raise UsageError(
                f"in {where} the folders of the {part} part ({_some(names)}) are none of the classes of the "
                f"train part ({_some(train)}): name them alike, or leave folders aside with --labels none"
            )


def _some(names: Iterable[str]) -> str:
    ordered = sort_classes(names)
    return ", ".join(ordered[:3]) + (", ..." if len(ordered) > 3 else "")


def _alike(names: Sequence[str]) -> list[str]:
    """A note on classes that differ in upper and lower case alone."""
    alike = Counter(name.casefold() for name in names)
    pairs = [name for name in names if alike[name.casefold()] > 1]
    return (
        [f"classes {', '.join(pairs)} differ in upper and lower case alone: are they one?"] if pairs else []
    )
