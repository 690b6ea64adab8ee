"""Names of the Brain Imaging Data Structure: `sub-01_ses-2_T1w` has the segmentation `sub-01_ses-2_dseg`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_NAME = re.compile(r"(?P<entities>sub-[a-zA-Z0-9]+(?:_[a-z]+-[a-zA-Z0-9]+)*)_(?P<suffix>[a-zA-Z0-9]+)")
_MASKS = ("dseg", "mask", "seg")
_OF_MASKS = ("label", "desc", "atlas", "seg")  # entities that a mask may have and its volume not


def entities_of(stem: str) -> tuple[dict[str, str], str] | None:
    """Entities and suffix of a file's name without its extension; None if it is not such a name."""
    found = _NAME.fullmatch(stem)
    if found is None:
        return None
    return dict(word.split("-", 1) for word in found["entities"].split("_")), found["suffix"]


def is_bids_mask(stem: str) -> bool:
    """Whether it is called as a mask."""
    found = entities_of(stem)
    return found is not None and found[1] in _MASKS


def bids_owners(mask: str, stems: Mapping[str, str]) -> list[str]:
    """The volumes that a mask can belong to: those of the same subject, session, space and the like.

    mask: its stem. stems: of the volumes, by name, wherever they are.
    """
    found = entities_of(mask)
    if found is None:
        return []
    own = found[0]
    wanted = _apart_from(own, _OF_MASKS)
    fits = [name for name, other in _parsed(stems.items()) if _apart_from(other, _OF_MASKS) == wanted]
    desc = {name: other.get("desc") for name, other in _parsed((n, stems[n]) for n in fits)}
    same = [name for name in fits if desc[name] == own.get("desc")] or [n for n in fits if desc[n] is None]
    return same if len(fits) > 1 and same else fits


def _parsed(stems: Iterable[tuple[str, str]]) -> list[tuple[str, dict[str, str]]]:
    parsed = ((name, entities_of(stem)) for name, stem in stems)
    return [(name, found[0]) for name, found in parsed if found is not None]


def _apart_from(entities: Mapping[str, str], words: Iterable[str]) -> dict[str, str]:
    return {word: value for word, value in entities.items() if word not in words}
