"""Which image files lie below a folder."""

from __future__ import annotations

import os
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tacit.data.image.decoding import Decoded, Form, Header, decode, peak, read_header
from tacit.data.image.originals import evenly
from tacit.data.names import Names
from tacit.data.reading import damage_named, is_system, read_bytes
from tacit.data.source import Skipped
from tacit.errors import BadFile

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".npy")
_ENCODED = frozenset(map(os.fsencode, EXTENSIONS))
_MAYBE_DEEP = (".png", ".tif", ".tiff", ".npy")


@dataclass
class Listing:
    """The image files below a folder, sorted by name (by code points), and the folders they lie in.

    names: (N,) paths below `root`. sizes, times: (N,) int64, bytes and ns; -1 and 0 if they cannot be had.
    folders: (F,) every folder that was looked into, below `root`: "" or "a/" or "a/b/".
    changed: (F, 2) int64, when each folder's content and its entry were changed, ns.
    folder_of: (N,) int32, the folder that each file lies in.
    began: when the listing began, ns since 1970.
    """

    root: Path
    names: Names
    sizes: np.ndarray
    times: np.ndarray
    folders: Names
    changed: np.ndarray
    folder_of: np.ndarray
    began: int
    others: Counter[str] = field(default_factory=Counter)  # other files by extension
    closed: list[Skipped] = field(default_factory=list)  # folders that may not be read

    @cached_property
    def digest(self) -> str:
        """Changes whenever place, names, sizes or times do."""
        whole = blake2b(os.fsencode(self.root) + b"\0", digest_size=16)
        for part in (self.names.text, self.names.ends, self.sizes, self.times):
            whole.update(np.ascontiguousarray(part).view(np.uint8).data)
        return whole.hexdigest()

    def only(self, rows: np.ndarray) -> Listing:
        """The same with some of the files: (n,) positions, ascending."""
        return replace(
            self,
            names=Names.of(self.names.encoded(int(i)) for i in rows),
            sizes=self.sizes[rows],
            times=self.times[rows],
            folder_of=self.folder_of[rows],
        )

    def identity(self) -> Iterator[bytes]:
        """Place, names, sizes and times."""
        yield f"folder {self.digest}".encode()

    def white_from(self) -> Sequence[int]:
        """Evenly spaced files whose kind allows more than 8 bits."""
        return evenly(np.flatnonzero(self.names.ending(_MAYBE_DEEP)))

    def header(self, i: int) -> Header:
        """The file's header; raises `BadFile`."""
        name = self.names[i]
        with damage_named(name), open(self.root / name, "rb") as file:
            return read_header(name, file)

    def peak(self, i: int) -> int:
        """The file's largest value, 0 if it has 8 bits or cannot be read."""
        name = self.names[i]
        try:
            return peak(name, read_bytes(self.root / name, name))
        except BadFile:
            return 0

    def decode(self, i: int, form: Form) -> Decoded:
        """The file's pixels; raises `BadFile`."""
        name = self.names[i]
        return decode(name, read_bytes(self.root / name, name), form)


def list_images(folder: Path) -> Listing:
    """All image files below `folder`, without what is no data (`is_system`). Links are followed."""
    return _Walk(folder).listing()


_File = tuple[bytes, int, int]  # name, size, time


class _Folder(NamedTuple):
    name: bytes  # with a slash behind it: sorted so, files and folders are in the order of whole paths
    path: bytes
    above: frozenset[tuple[int, int]]  # device and inode of the folders that it lies in


@dataclass(slots=True)
class _Content:
    number: int
    prefix: bytes
    files: list[_File] = field(default_factory=list)  # sorted
    folders: list[_Folder] = field(default_factory=list)  # sorted, the last one first
    added: int = 0  # files that are in the listing already


class _Walk:
    """Goes through the folders in the order of whole paths, so that a million of them need no sorting.

    Bytes are sorted as code points are in UTF-8.
    """

    def __init__(self, folder: Path) -> None:
        self.shown, self.root = folder, folder.resolve()
        self.text, self.lengths = bytearray(), array("q", [0])
        self.sizes, self.times, self.folder_of = array("q"), array("q"), array("i")
        self.folders: list[bytes] = []
        self.changed = array("q")
        self.others: Counter[str] = Counter()
        self.closed: list[Skipped] = []

    def listing(self) -> Listing:
        began = time.time_ns()
        self._walk()
        return Listing(
            root=self.root,
            names=Names(np.frombuffer(self.text, np.uint8), np.cumsum(self.lengths)),
            sizes=np.frombuffer(self.sizes, np.int64),
            times=np.frombuffer(self.times, np.int64),
            folders=Names.of(self.folders),
            changed=np.frombuffer(self.changed, np.int64).reshape(-1, 2),
            folder_of=np.frombuffer(self.folder_of, np.int32),
            began=began,
            others=self.others,
            closed=sorted(self.closed),
        )

    def _walk(self) -> None:
        stack = [self._entered(b"", _Folder(b"", os.fsencode(self.root), frozenset()))]
        while stack:
            content = stack[-1]
            if content.folders:
                folder = content.folders.pop()
                self._add(content, bisect_left(content.files, (folder.name,)))
                stack.append(self._entered(content.prefix + folder.name, folder))
            else:
                self._add(content, len(content.files))
                stack.pop()

    def _add(self, content: _Content, end: int) -> None:
        files = content.files[content.added : end]
        content.added = end
        if not files:
            return
        names, sizes, times = zip(*files, strict=True)
        self.text += b"".join([content.prefix + name for name in names])
        self.lengths.extend([len(content.prefix) + len(name) for name in names])
        self.sizes.extend(sizes)
        self.times.extend(times)
        self.folder_of.extend([content.number] * len(files))

    def _entered(self, prefix: bytes, folder: _Folder) -> _Content:
        """What the folder holds; nothing if it lies in itself, by a link."""
        content = _Content(len(self.folders), prefix)
        try:
            state = os.stat(folder.path)  # before it is read: a later change must not go unnoticed
            inode = state.st_dev, state.st_ino
            if inode in folder.above:
                return content
            self.folders.append(prefix)
            self.changed.extend((state.st_mtime_ns, state.st_ctime_ns))
            with os.scandir(folder.path) as entries:
                self._read(entries, content, folder.above | {inode})
        except OSError as error:
            name = os.fsdecode(prefix) or str(self.shown)
            self.closed.append(Skipped(name, f"folder cannot be read: {error.strerror}"))
        content.files.sort()
        content.folders.sort(reverse=True)
        return content

    def _read(
        self, entries: Iterable[os.DirEntry[bytes]], content: _Content, above: frozenset[tuple[int, int]]
    ) -> None:
        for entry in entries:
            name = entry.name
            if name.startswith(b"."):
                continue
            if _is_folder(entry):
                if is_system(os.fsdecode(name)):
                    continue
                content.folders.append(_Folder(name + b"/", entry.path, above))
                continue
            dot = name.rfind(b".")
            extension = name[dot:].lower() if dot > 0 else b""
            if extension not in _ENCODED:
                self.others[os.fsdecode(extension)] += 1
                continue
            try:
                if entry.is_file():
                    state = entry.stat()
                    content.files.append((name, state.st_size, state.st_mtime_ns))
                elif entry.is_symlink():
                    content.files.append((name, -1, 0))
            except OSError:  # just deleted, or its folder may be listed only: reading it will say which
                content.files.append((name, -1, 0))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
