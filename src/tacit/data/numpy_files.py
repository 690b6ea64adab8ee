"""NumPy's `.npy` and `.npz` files, of which nothing is allocated that they do not hold."""

from __future__ import annotations

from io import BytesIO
from math import prod
from typing import IO, Any, NamedTuple

import numpy as np

from tacit.data.limits import RATIO, check_memory, check_unpacked, size_in_words
from tacit.errors import BadFile


class ArrayHeader(NamedTuple):
    """What a `.npy` file declares. begin: the place of the first value, in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    begin: int

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return prod(self.shape) * self.dtype.itemsize


def read_array_header(file: IO[bytes]) -> ArrayHeader:
    """What a `.npy` file declares, before its values are read.

    Raises:
        ValueError: it is no such file, or its shape or dtype cannot be read.
    """
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if any(side < 0 for side in shape):
        raise ValueError(f"its shape is {shape}")
    return ArrayHeader(shape, dtype, file.tell())


def load_array(name: str, data: bytes) -> np.ndarray:
    """The array of a `.npy` file.

    Raises:
        BadFile: it declares more than it holds. ValueError: it holds objects, or as `read_array_header`.
    """
    header = read_array_header(BytesIO(data))
    _check_whole(name, header, len(data))
    return np.asarray(np.load(BytesIO(data), allow_pickle=False))


def member_header(archive: Any, member: str) -> ArrayHeader:
    """What an array of an opened `.npz` archive declares. archive: as `np.load` opens it.

    Raises:
        ValueError: as `read_array_header`. KeyError: there is no such array.
    """
    with archive.zip.open(f"{member}.npy") as file:
        return read_array_header(file)


def load_member(name: str, archive: Any, member: str, *, ratio: int = RATIO) -> np.ndarray:
    """An array of an opened `.npz` archive.

    name: what it is called in errors. ratio: see `check_unpacked`.

    Raises:
        BadFile: it declares more than the archive holds. Unreadable: there is too little memory.
        ValueError: it holds objects, or as `read_array_header`. KeyError: there is no such array.
    """
    header, entry = member_header(archive, member), archive.zip.getinfo(f"{member}.npy")
    _check_whole(name, header, entry.file_size)
    check_unpacked(name, header.nbytes, entry.compress_size, ratio)
    whole = header.dtype.kind == "u" and header.dtype.itemsize <= 2  # others are rounded, which is a copy
    check_memory(name, header.nbytes * (1 if whole else 2))
    return np.asarray(archive[member])


def _check_whole(name: str, header: ArrayHeader, held: int) -> None:
    if header.dtype.hasobject:
        raise ValueError("Object arrays are not loaded (it holds Python objects): save it as numbers")
    if header.nbytes > held - header.begin:
        raise BadFile(
            name,
            f"damaged: shape {header.shape} of {header.dtype} takes {size_in_words(header.nbytes)}, and it "
            f"holds {size_in_words(max(held - header.begin, 0))}",
        )
