"""How volumes and their masks are called."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from tacit.data.names import spelled
from tacit.data.volume.files import extension_of

SUFFIXES = "_seg, _mask, _msk, _label, _gt, _dseg or _segmentation"
"""In messages: what is behind a volume's name in that of its mask."""
_PART = r"(?:[ _-]?(?P<part>tr(?:ain(?:ing)?)?|ts|test(?:ing)?|va|val(?:idation)?))?"
_IMAGE_FOLDER = re.compile(rf"(?:images?|imgs?|volumes?|scans?){_PART}", re.IGNORECASE)
_MASK_FOLDER = re.compile(
    rf"(?:labels?|masks?|segs?|segmentations?|annotations?|gts?|ground[ _-]?truths?){_PART}", re.IGNORECASE
)
_SUFFIX = re.compile(r"(?<=[^/])[._-](?:seg|dseg|segmentation|masks?|msk|labels?|gt)$", re.IGNORECASE)
_OF_IMAGES = re.compile(r"(?<=[^/])_(?:img|image)$", re.IGNORECASE)
_WORD = re.compile(
    r"(?<![a-z])(?:d?segs?|segmentations?|masks?|msk|labels?|rois?|gt|ground_?truth|truth|annotations?|contours?|"
    r"lesions?|aseg|aparc)(?![a-z])",
    re.IGNORECASE,
)
_SEPARATORS = "._-+"


class Key(NamedTuple):
    """What a volume and its mask have in common: val or test of a Decathlon, and the path without kinds."""

    part: str
    path: str

    @property
    def last(self) -> str:
        """The file's name in it."""
        return self.path.rpartition("/")[2]

    @property
    def bare(self) -> Key:
        """The key without the suffix of a mask."""
        return self._replace(path=_SUFFIX.sub("", self.path))

    @property
    def plain(self) -> Key:
        """The key without the suffix of an image, as in `a_img` beside `a_msk`."""
        return self._replace(path=_OF_IMAGES.sub("", self.path))


def stem_of_volume(name: str) -> str:
    """A path without the extension of a volume, in one spelling."""
    return spelled(name[: len(name) - len(extension_of(name))])


def sorted_out(names: Iterable[str]) -> tuple[dict[str, Key], dict[str, Key]]:
    """The files outside and inside of folders for masks, with their keys.

    Names of folders for volumes and masks are left out of keys, at whatever level they are. A folder that
    holds both kinds (`masks/images`, `masks/labels`) is neither, whatever it is called.
    """
    parts = {name: stem_of_volume(name).split("/") for name in names}
    plain = _holding_both(parts.values())
    images: dict[str, Key] = {}
    masks: dict[str, Key] = {}
    for name, path in parts.items():
        kept, part, is_mask = [], "", False
        for level, folder in enumerate(path[:-1]):
            mask, image = _MASK_FOLDER.fullmatch(folder), _IMAGE_FOLDER.fullmatch(folder)
            found = mask or image
            if found is None or tuple(path[: level + 1]) in plain:
                kept.append(folder)
                continue
            is_mask |= mask is not None
            part = _part(found) or part
        (masks if is_mask else images)[name] = Key(part, "/".join([*kept, path[-1]]))
    return images, masks


def _holding_both(paths: Iterable[list[str]]) -> set[tuple[str, ...]]:
    below: dict[tuple[str, ...], set[bool]] = {}
    for path in paths:
        for level, folder in enumerate(path[1:-1], 1):
            if _MASK_FOLDER.fullmatch(folder) or _IMAGE_FOLDER.fullmatch(folder):
                below.setdefault(tuple(path[:level]), set()).add(bool(_MASK_FOLDER.fullmatch(folder)))
    return {place for place, kinds in below.items() if len(kinds) == 2}


def _part(found: re.Match[str]) -> str:
    part = (found["part"] or "").lower()
    return "test" if part.startswith(("ts", "te")) else "val" if part.startswith("va") else ""


def is_among_volumes(name: str) -> bool:
    """Whether a file is in a folder for volumes: `images/a`, `imagesTs/a`."""
    return any(_IMAGE_FOLDER.fullmatch(folder) for folder in name.split("/")[:-1])


def has_mask_word(name: str) -> bool:
    """Whether a file is called as a mask, in any way that people use."""
    return bool(_WORD.search(stem_of_volume(name).rpartition("/")[2]))


def extends(name: str, other: str) -> bool:
    """Whether a stem is another one with something behind: `a_roi` and `a`."""
    return name.startswith(other) and name[len(other) : len(other) + 1] in tuple(_SEPARATORS)
