"""The classes of true masks as a run numbers them: by name where both have names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tacit.data.names import spelled
from tacit.errors import UsageError

_FIX = "fix the masks, or pass --labels none"


class Numbering(NamedTuple):
    """numbers: (n,) int64, the run's number of each value of the masks. note: what a user should know."""

    numbers: np.ndarray
    note: str = ""


def numbering(found: Sequence[str], known: Sequence[str], held: Sequence[int]) -> Numbering:
    """How values of true masks become the classes of a run.

    Where both name a class beside the background, classes are matched by name; 0 is the background of both,
    whatever it is called. Where one has numbers alone, values are the run's numbers.

    found: names by value in the masks; a class without a name is called as its number. known: names by number
    in the run. held: the values that the masks hold; the others may have any name.

    Raises:
        UsageError: the masks hold a class that the run does not know.
    """
    if not _named(found) or not _named(known):
        return _by_number(found, known)
    of = {spelled(name): k for k, name in enumerate(known) if k}
    numbers = np.zeros(len(found), np.int64)
    for value, name in enumerate(found):
        if value:
            numbers[value] = of.get(spelled(name), -1)
    strange = [value for value in held if value and numbers[value] < 0]
    if strange:
        raise UsageError(
            f"the masks have the class '{found[strange[0]]}' ({strange[0]}), which the run does not know "
            f"(its classes are {_listed(known)}): name it in dataset.json as the run does, {_FIX}"
        )
    moved = [k for k in held if numbers[k] != k]
    pairs = ", ".join(f"{found[k]} is {k} in the data and {numbers[k]} in the run" for k in moved)
    return Numbering(numbers.clip(0), f"classes are matched by name: {pairs}" if moved else "")


def _by_number(found: Sequence[str], known: Sequence[str]) -> Numbering:
    if len(found) > len(known):
        raise UsageError(
            f"the masks have values up to {len(found) - 1}, and the run knows 0 to {len(known) - 1} "
            f"({', '.join(known)}): {_FIX}"
        )
    numbers = np.arange(len(found))
    if _named(found) == _named(known):
        return Numbering(numbers)
    have, lack, names = ("run", "data", known) if _named(known) else ("data", "run", found)
    return Numbering(
        numbers,
        f"the {lack}'s classes have no names: values are taken as the {have} numbers them ({_listed(names)})",
    )


def _named(classes: Sequence[str]) -> bool:
    """Whether a class beside the background has a name of its own."""
    return any(name != str(k) for k, name in enumerate(classes) if k)


def _listed(classes: Sequence[str]) -> str:
    shown = ", ".join(f"{k} {name}" for k, name in list(enumerate(classes))[:8])
    return f"{shown}, ..." if len(classes) > 8 else shown
