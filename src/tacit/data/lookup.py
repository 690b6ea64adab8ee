"""Samples by the names that rows of a file give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from tacit.data.names import spelled
from tacit.errors import escaped
from tacit.files import plain_cell

_COMPARED = 20_000  # names that a wrong one is compared with; difflib takes about 1 s for so many


class Found(NamedTuple):
    """Positions of the samples that a text can mean, and the folders before it that were left aside.

    Positions of skipped files follow those of the samples.
    """

    positions: Sequence[int] = ()
    dropped: str = ""


class Lookup:
    r"""Samples by path or file name, each with or without extension; only those that rows ask for.

    So a short file of labels for a million images takes little memory.

    A text means the sample whose path it is, else the one whose path ends in it, else the one whose
    whole path is the longest end of it (`/home/me/photos/a/1.png` means `a/1.png`). Letters that are
    one character or two (NFC, NFD) are the same, `\` is `/`, and a name that is not UTF-8 is found by
    its bytes and as we write it.
    """

    def __init__(self, names: Sequence[str], skipped: Sequence[str], wanted: Iterable[str]) -> None:
        """wanted: texts that `find` will be asked for."""
        self._names, self._skipped = names, skipped
        asked = {end for text in wanted for form in _forms(text) for end in _ends(form)}
        self._ways: tuple[dict[str, list[int]], ...] = ({}, {}, {}, {})
        paths, bare, ends, bare_ends = self._ways
        for i, name in enumerate(chain(names, skipped)):
            path = spelled(name)
            stem = path[: path.rfind("/") + 1] + stem_of(path[path.rfind("/") + 1 :])
            if path in asked:
                paths.setdefault(path, []).append(i)
            if stem in asked:
                bare.setdefault(stem, []).append(i)
            at = path.find("/") + 1
            while at:
                if (key := path[at:]) in asked:
                    ends.setdefault(key, []).append(i)
                if (key := stem[at:]) in asked:
                    bare_ends.setdefault(key, []).append(i)
                at = path.find("/", at) + 1

    def find(self, text: str) -> Found:
        """The samples that a text can mean in the first way that fits any."""
        for form in _forms(text):
            for end in _ends(form):
                whole = len(end) == len(form)
                for way in self._ways if whole else self._ways[:2]:
                    if end in way:
                        return Found(self._exactly(text, way[end]), form[: len(form) - len(end)])
        return Found()

    def _exactly(self, text: str, positions: Sequence[int]) -> Sequence[int]:
        """Of several samples whose names are the same but for the spelling, the one that is spelled so."""
        if len(positions) < 2 or text.isascii():
            return positions
        return [i for i in positions if text in self.name(i)] or positions

    def name(self, i: int) -> str:
        """The sample or skipped file at a position."""
        return self._names[i] if i < len(self._names) else self._skipped[i - len(self._names)]

    def like(self, text: str) -> list[str]:
        """Names to compare a wrong one with, in the way in which it was written."""
        names = islice(chain(self._names, self._skipped), _COMPARED)
        if "/" in text or "\\" in text:
            return list(names)
        return list(dict.fromkeys(name.rpartition("/")[2] for name in names))


def _forms(text: str) -> Iterator[str]:
    """What a text may have been before it was written down, as samples are spelled."""
    if text.isascii() and "\\" not in text and not text.startswith("'"):  # nearly all are
        yield _tidy(text)
        return
    for form in dict.fromkeys((text, plain_cell(text), _windows(text))):
        yield _tidy(spelled(form))
        if "\\" in form:
            yield _tidy(spelled(form.replace("\\", "/")))


def _windows(text: str) -> str:
    """Text of one byte per character that was not UTF-8, where it is some."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return text


def _tidy(path: str) -> str:
    if "//" in path or "/./" in path:
        path = re.sub(r"/(\./|/)+", "/", path)
    return path.removeprefix("./").removeprefix("/")


def _ends(path: str) -> Iterator[str]:
    """The path, and what is left of it without its first folders, the longest first."""
    yield path
    at = path.find("/")
    while at >= 0:
        yield path[at + 1 :]
        at = path.find("/", at + 1)


def stem_of(file: str) -> str:
    """A file's name without its extension, `.nii.gz` being one."""
    if file.lower().endswith(".nii.gz"):
        return file[: -len(".nii.gz")] or file
    dot = file.rfind(".")
    return file[:dot] if 0 < dot < len(file) - 1 else file


def ending_of(file: str) -> str:
    """The extension of the file that a text names, in lower case; empty where it has none."""
    found = re.search(r"(\.nii)?\.[a-z][a-z0-9]{0,5}$", escaped(file).lower())
    return found[0] if found else ""
