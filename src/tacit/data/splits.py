"""How training, validation and test parts are called, and the parts without labels."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import numpy as np

from tacit.errors import UsageError

Folders = Literal["classes", "splits"]
"""What the folders of the first level are, where their names leave it open."""
SPLITS = ("train", "val", "test")
NO_LABELS = "unlabelled"
"""The part of the training samples that has no labels."""
EXTRA = "extra"
"""A part that is learned from beside the training part; its labels, if it has any, count."""

_WORDS = {
    "train": re.compile(r"(train(ing|val)?|labell?ed)(s|sets?)?"),
    "val": re.compile(r"(val(id(ation)?)?|dev(elopment)?|eval(uation)?)(s|sets?)?"),
    "test": re.compile(r"(test(ing)?|holdout)(s|sets?)?"),
    NO_LABELS: re.compile(r"unlab(ell?ed)?|unannotated|unsup(ervised)?"),
    EXTRA: re.compile(r"extras?"),
}
_SHORT = {"tr": "train", "va": "val", "ts": "test"}  # beside another word only, as in imagesTr
_GENERAL = re.compile(r"\d+|x|(data)?sets?|data|(image|img|picture|photo|file|sample|split|part|folder)s?")
_PORTION = re.compile(
    r"(fold|part|batch|chunk|shard|subset|split|folder|file|(data)?set|image|img|picture|photo)s?|data"
)
"""Words for a portion of one set, in names that differ in a number alone: images_001, fold_2."""
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+|\d+")
_JOINED = (
    (re.compile(r"(hold|held)[ _-]?out", re.IGNORECASE), " holdout "),
    (re.compile(r"(un|non?|not|without)[ _-]?label(l?ed|s)?", re.IGNORECASE), " unlabelled "),
    (re.compile(r"train[ _-]?val(?![a-z])", re.IGNORECASE), " train "),
)
_NAMED = 3  # folders of each kind in a message


def part_of(name: str, ignored: Collection[str] = ()) -> str | None:
    """The part that a folder, a split or an array is called as: train, val, test, unlabelled, extra, or None.

    Upper or lower case, plurals, numbers, and words such as `set` or `images` make no difference:
    `TrainSet`, `val2017`, `test_images`, `Un-labelled`.

    ignored: further words in lower case that say nothing.
    """
    tokens, found = _read(name)
    rest = [token for token in tokens if not _GENERAL.fullmatch(token) and token not in ignored]
    return None if rest or len(found) != 1 else next(iter(found))


def _read(name: str) -> tuple[list[str], set[str]]:
    """The words of a name that call no part, in lower case, and the parts that the others call."""
    for pattern, word in _JOINED:
        name = pattern.sub(word, name)
    tokens = [token.lower() for token in _TOKEN.findall(name)]
    found, rest = set(), []
    for token in tokens:
        part = next((part for part, word in _WORDS.items() if word.fullmatch(token)), None)
        part = part or (_SHORT.get(token) if len(tokens) > 1 else None)
        if part:
            found.add(part)
        else:
            rest.append(token)
    return rest, found - {"train"} if NO_LABELS in found else found


def parts_of(names: Collection[str], where: object, folders: Folders | None = None) -> dict[str, str]:
    """The part that each of these folders is, "" for one that is no part of a split; empty if none is one.

    A word that all names have in common (`seg_train`, `seg_test`) makes no difference. Folders without labels
    may lie beside classes. Names that differ in a number alone (`images_001`, `fold_2`) are portions of the
    training part.

    names: of the folders that lie beside one another. where: the folder that they lie in, for messages.
    folders: "classes": they are no splits; "splits": those that are called so are.

    Raises:
        UsageError: some are called as splits and others not, and `folders` does not say what they are.
    """
    if folders == "classes":
        return {}
    read = {name: _read(name) for name in names}
    common = set.intersection(*(set(tokens) for tokens, _ in read.values())) if len(names) > 1 else set()
    parts = {name: part_of(name, common) or "" for name in names}
    if _are_portions([tokens for tokens, _ in read.values()]) and not any(parts.values()):
        return dict.fromkeys(parts, "train")
    called = sorted(name for name, part in parts.items() if part)
    others = sorted(name for name, part in parts.items() if not part)
    words = set().union(*(found for _, found in read.values()))
    if not called and (len(words) < 2 or folders == "splits"):
        return {}
    if not others or folders == "splits" or {parts[name] for name in called} == {NO_LABELS}:
        return parts
    raise UsageError(_open_question(where, called, others))


def _are_portions(names: Sequence[Sequence[str]]) -> bool:
    """Whether names, word by word, differ in a number alone and call portions of one set."""
    kept = {tuple("#" if token.isdecimal() else token for token in tokens) for tokens in names}
    return (
        len(names) > 1
        and len(kept) == 1
        and "#" in next(iter(kept))
        and any(_PORTION.fullmatch(token) for token in next(iter(kept)))
    )


def _open_question(where: object, called: Sequence[str], others: Sequence[str]) -> str:
    if not called:
        return (
            f"the folders of {where} are called as splits and as something else ({_some(others)}): with "
            "--folders classes each is a class; for splits, put classes below train/ and test/"
        )
    return (
        f"some folders of {where} are called as splits ({_some(called)}), others are not ({_some(others)}): "
        f"with --folders splits the first are splits, with --folders classes all are classes"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def as_splits(parts: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Positions by split from positions by part; what has no labels, or is extra, is learned from.

    parts: names of parts, or others, which are kept, with positions, ascending. Parts of training alone are
    no split: nothing is set apart.
    """
    splits: dict[str, np.ndarray] = {}
    for part, positions in parts:
        name = "train" if part in (NO_LABELS, EXTRA, "") else part
        before = splits.get(name, np.empty(0, np.int64))
        splits[name] = np.sort(np.concatenate([before, positions]))
    order = [*SPLITS, *(name for name in splits if name not in SPLITS)]
    splits = {name: splits[name] for name in order if name in splits and len(splits[name])}
    return {} if splits.keys() == {"train"} else splits


def by_folder(first: Sequence[str], where: object, folders: Folders | None = None) -> dict[str, np.ndarray]:
    """Positions by split, from the first-level folder of each sample; "" where it lies in none.

    Empty if some lie in none, or if their folders are no splits.

    Raises:
        UsageError: as `parts_of`.
    """
    names = set(first)
    if "" in names or len(names) < 2:
        return {}
    parts = parts_of(names, where, folders)
    of = np.array([parts.get(name, "") for name in first])
    return as_splits(positions_of(of))


def positions_of(parts: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The positions of each name in (N,) names."""
    return [(str(part), np.flatnonzero(parts == part)) for part in np.unique(parts)]
