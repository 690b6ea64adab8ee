"""Names of many samples in little memory."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from tacit.errors import escaped
from tacit.files import utf8_path, write_atomically

_AT_ONCE = 4096  # names that are decoded together while iterating


def spelled(name: str) -> str:
    r"""The one spelling of a name: composed (NFC), with bytes that are not UTF-8 as `\xe9`.

    An accented letter can be one character or two, and systems differ in which they write: `spelled` makes
    both one, so that names from a folder and from a file can be compared.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", escaped(name))


class Names(Sequence[str]):
    """(N,) strings, kept as one array of bytes and decoded when they are asked for.

    A million paths of 20 characters take 28 MB, which may lie in a mapped file, instead of 77 MB of
    Python objects. `names[i]` is a string, `names[a:b]` a list of strings. A mapped one is pickled as
    the place of its file.

    text: (bytes,) uint8, all names one after another, encoded as the file system does.
    ends: (N + 1,) int64, where each begins and ends.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text, self.ends = text, ends
        self._path: Path | None = None

    @classmethod
    def of(cls, names: Iterable[str | bytes]) -> Names:
        """Pack these."""
        text, lengths = bytearray(), [0]
        for name in names:
            encoded = os.fsencode(name)
            text += encoded
            lengths.append(len(encoded))
        return cls(np.frombuffer(text, np.uint8), np.cumsum(lengths, dtype=np.int64))

    @classmethod
    def load(cls, path: Path) -> Names:
        """Map what `save` has written.

        Raises:
            OSError, ValueError: absent or damaged.
        """
        arrays, _ = load_arrays(path)
        names = cls(arrays["text"], arrays["ends"])
        names._path = path
        return names

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        write_atomically(path, save({"text": self.text, "ends": self.ends}))

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        return os.fsdecode(self.encoded(range(len(self))[i]))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            ends = self.ends[start : start + _AT_ONCE + 1].tolist()
            text = self.text[ends[0] : ends[-1]].tobytes()
            for a, b in pairwise(ends):
                yield os.fsdecode(text[a - ends[0] : b - ends[0]])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Names({self[:3]}{f' and {len(self) - 3} more' if len(self) > 3 else ''})"

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Names.load, (self._path,)) if self._path else (Names, (self.text, self.ends))

    def encoded(self, i: int) -> bytes:
        """Name i as it is kept, for 0 <= i < N."""
        return self.text[self.ends[i] : self.ends[i + 1]].tobytes()

    def starting(self, prefix: str) -> np.ndarray:
        """(N,) bool: which begin with these characters."""
        return self._having(os.fsencode(prefix), self.ends[:-1])

    def ending(self, suffixes: Iterable[str]) -> np.ndarray:
        """(N,) bool: which end with one of these, given in lower case, in upper or lower case."""
        found = np.zeros(len(self), bool)
        for suffix in map(os.fsencode, suffixes):
            found |= self._having(suffix, self.ends[1:] - len(suffix), lower=True)
        return found

    def _having(self, wanted: bytes, start: np.ndarray, *, lower: bool = False) -> np.ndarray:
        found = self.ends[1:] - self.ends[:-1] >= len(wanted)
        for k, letter in enumerate(wanted):
            at = np.flatnonzero(found)
            letters = self.text[start[at] + k]
            if lower and ord("a") <= letter <= ord("z"):
                letters = letters | 0x20
            found[at] = letters == letter
        return found


class Chosen(Sequence[str]):
    """Some of the names of a longer sequence; nothing is copied."""

    def __init__(self, names: Sequence[str], positions: np.ndarray) -> None:
        self.names, self.positions = names, positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self.names[int(j)] for j in self.positions[i]]
        return self.names[int(self.positions[i])]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a safetensors file, mapped rather than read, and its notes.

    Through torch's reader, because safetensors' own for numpy copies (240 MB of a 240 MB file, against
    none).

    Raises:
        OSError, ValueError: absent or damaged.
    """
    try:
        with utf8_path(path) as place, safe_open(place, framework="pt") as file:
            return {name: file.get_tensor(name).numpy() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError:
        raise
    except Exception as error:  # SafetensorError derives from Exception alone
        raise ValueError(f"{path}: {error}") from None
