"""A store that is being written: what is whole in it is recorded, so that a killed build goes on there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from tacit.data.image.decoding import Decoded, Form
from tacit.data.image.store import FORMAT, find_store
from tacit.data.names import Names
from tacit.data.reading import fingerprint_of
from tacit.errors import BadFile, Unreadable
from tacit.files import write_atomically

_RECORD = "progress.json"
_LEFT_OUT = "left_out.jsonl"


class LeftOut(NamedTuple):
    """An original that is not in the store. passing: whether it could not be read, and perhaps can be now."""

    position: int
    name: str
    reason: str
    passing: bool


class UnfinishedStore:
    """Files that only grow, and a record of how long each was when all of it was on the disk.

    What lies behind the recorded length is cut off when the build goes on. Only one process may have it
    open.

    done: originals that are decoded or left out. left_out: the unusable ones.
    """

    def __init__(self, folder: Path, form: Form) -> None:
        self.folder, self.form = folder, form
        before = _recorded(folder)
        if before is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            before = {"done": 0, "left_out_bytes": 0}
        self.done = self.recorded = int(before["done"])
        with open(folder / _LEFT_OUT, "a+b") as file:
            file.truncate(before["left_out_bytes"])
            file.seek(0)
            self.left_out = [LeftOut(*json.loads(line)) for line in file]
        kept = self.done - len(self.left_out)
        self._left_out_file = open(folder / _LEFT_OUT, "ab")  # noqa: SIM115
        self._pixels = _Column(folder / "pixels.npy", "|u1", (form.channels, form.size, form.size), kept)
        self._true_size = _Column(folder / "true_size.npy", "<i4", (2,), kept)
        self._digests = _Column(folder / "digests.npy", "|u1", (16,), kept)

    @property
    def kept(self) -> int:
        """Images in the store so far."""
        return self.done - len(self.left_out)

    def add(self, result: Decoded | BadFile) -> None:
        """The next original's image, or why there is none."""
        if isinstance(result, BadFile):
            passing = isinstance(result, Unreadable)
            self.left_out.append(LeftOut(self.done, result.name, result.reason, passing))
            self._left_out_file.write(json.dumps(self.left_out[-1]).encode() + b"\n")
        else:
            self._pixels.file.write(result.pixels.data)
            self._true_size.file.write(np.array(result.true_size, "<i4").data)
            self._digests.file.write(result.digest)
        self.done += 1

    def go_back(self, position: int) -> None:
        """Forget what came of the originals from this position on."""
        self.left_out = [each for each in self.left_out if each.position < position]
        self.done = position
        self._left_out_file.truncate(0)
        self._left_out_file.writelines(json.dumps(each).encode() + b"\n" for each in self.left_out)
        for column in self._columns:
            column.cut(self.kept)
        self.record()

    def record(self) -> None:
        """From here a build that is killed later goes on."""
        for file in self._files():
            _flush(file)
        record = {"done": self.done, "left_out_bytes": self._left_out_file.tell()}
        write_atomically(self.folder / _RECORD, json.dumps(record))
        self.recorded = self.done

    def finish(self, names: Names, white: int) -> None:
        """Complete the files; `names` are those of all originals."""
        self.record()
        positions = [each.position for each in self.left_out]
        if positions:
            keep = np.delete(np.arange(len(names)), positions)
            names = Names.of(names[int(i)] for i in keep)
        names.save(self.folder / "names.safetensors")
        for column in self._columns:
            column.finish(self.kept)
        meta = {
            "format": FORMAT,
            "shape": [self.kept, self.form.channels, self.form.size, self.form.size],
            "white": white,
            "brightest": self.form.brightest,
            "fingerprint": fingerprint_of(names, _rows(self.folder / "digests.npy")),
            "skipped": [(each.name, each.reason) for each in self.left_out],
            "left_out": positions,
            "unreadable": [each.position for each in self.left_out if each.passing],
        }
        write_atomically(self.folder / "store.json", json.dumps(meta))

    @property
    def suffix(self) -> str:
        """What is added to the name of a store that lacks originals because they could not be read.

        Once they can be read, the complete store is built beside it, as processes may be reading this one.
        """
        passing = [each for each in self.left_out if each.passing]
        return f"-{blake2b(json.dumps(passing).encode(), digest_size=8).hexdigest()}" if passing else ""

    def publish(self, folder: Path) -> None:
        """Give the finished store its name. What is there is damaged from outside, or of another version."""
        self.close()
        if folder.exists() and find_store(folder) is None:
            shutil.rmtree(self.folder / "damaged", ignore_errors=True)
            os.rename(folder, self.folder / "damaged")
        try:
            os.rename(self.folder, folder)
        except OSError as error:  # where locks do not work, another process may have finished first
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        for left in (_RECORD, _LEFT_OUT, "digests.npy"):
            (folder / left).unlink(missing_ok=True)
        shutil.rmtree(folder / "damaged", ignore_errors=True)
        _flush_folder(folder.parent)

    def close(self) -> None:
        """Close all files; what was recorded stays, and nothing else if nothing was."""
        for file in self._files():
            try:
                file.close()
            except OSError:  # a full disk, which was reported already
                continue
        if not self.recorded:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _columns(self) -> tuple[_Column, ...]:
        return self._pixels, self._true_size, self._digests

    def _files(self) -> tuple[BinaryIO, ...]:
        return self._left_out_file, *(column.file for column in self._columns)


class _Column:
    """A `.npy` file that grows row by row."""

    def __init__(self, path: Path, dtype: str, row: tuple[int, ...], kept: int) -> None:
        self.dtype, self.row = dtype, row
        self.file: BinaryIO = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115
        self.cut(kept)

    def cut(self, kept: int) -> None:
        """Keep this many rows, and go on behind them."""
        self._write_header(0)
        length = self.file.tell() + kept * _row_bytes(self.dtype, self.row)
        self.file.truncate(length)
        self.file.seek(length)

    def finish(self, count: int) -> None:
        self._write_header(count)
        _flush(self.file)

    def _write_header(self, count: int) -> None:
        """numpy pads it so that its length does not depend on the count."""
        self.file.seek(0)
        header = {"descr": self.dtype, "fortran_order": False, "shape": (count, *self.row)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _recorded(folder: Path) -> dict[str, int] | None:
    """The record of a build that was stopped; None if it cannot be gone on with."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        with open(folder / _LEFT_OUT, "rb") as file:
            left_out = file.read(record["left_out_bytes"])
        lengths = {"left_out": len(left_out) == record["left_out_bytes"]}
        kept = record["done"] - left_out.count(b"\n")
        for name in ("pixels.npy", "true_size.npy", "digests.npy"):
            lengths[name] = _rows_written(folder / name) >= kept
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if all(lengths.values()) else None


def _rows_written(path: Path) -> int:
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return (path.stat().st_size - file.tell()) // _row_bytes(dtype.str, shape[1:])


def _row_bytes(dtype: str, row: tuple[int, ...]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(row))


def _rows(path: Path) -> Iterator[bytes]:
    rows = np.load(path, mmap_mode="r")
    return (row.tobytes() for row in rows)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
