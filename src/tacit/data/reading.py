"""What readers of all kinds of files share: bytes, damage, fingerprints, and what is no data."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import IO, BinaryIO

from PIL import Image

from tacit import untrusted
from tacit.data.limits import check_memory
from tacit.errors import BadFile, TacitError, Unreadable

_SYSTEM = {
    "__macosx",
    "@eadir",
    "$recycle.bin",
    "#recycle",
    "@recycle",
    "system volume information",
    "lost+found",
}


def is_system(name: str) -> bool:
    """Whether a file or folder of this name is no data, but of a system: hidden, rubbish or thumbnails."""
    return name.startswith(".") or name.lower() in _SYSTEM


_OF_CONTENT = (None, errno.EINVAL, errno.EOVERFLOW)  # what decoders give, and places that no file has


def open_file(path: Path, name: str) -> BinaryIO:
    """A regular file, or a link to one, opened for reading; nothing else is (see `tacit.untrusted`).

    Raises:
        BadFile: it is something else. Unreadable: it cannot be opened now.
    """
    try:
        return untrusted.open_file(path)
    except untrusted.NotAFile as error:
        raise BadFile(name, f"{error.kind}, and only files are read") from None
    except OSError as error:
        raise unreadable(name, error) from None


def unreadable(name: str, error: OSError) -> Unreadable:
    """Why the system does not give a file's content, which another time it may."""
    if isinstance(error, PermissionError):
        return Unreadable(name, "permission denied")
    if isinstance(error, FileNotFoundError):
        return Unreadable(name, "a link to a file that does not exist, or just deleted")
    return Unreadable(name, f"cannot be read: {error.strerror or error}")


def size_of(file: IO[bytes]) -> int:
    """Bytes of an open file, whose position is then its beginning."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def read_bytes(path: Path, name: str) -> bytes:
    """The file's bytes.

    Raises:
        BadFile: it is empty, or not a regular file. Unreadable: it cannot be read now.
    """
    with open_file(path, name) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            check_memory(name, size)
            data = file.read(size)
        except OSError as error:
            raise unreadable(name, error) from None
    if not data:
        raise BadFile(name, "empty file (0 bytes)")
    return data


@contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file becomes a `BadFile` with a reason of one line.

    What the system raises, or a lack of memory, becomes `Unreadable`.
    """
    try:
        yield
    except TacitError:
        raise
    except Image.DecompressionBombError:
        raise BadFile(name, "too many pixels to be decoded safely") from None
    except MemoryError:
        raise Unreadable(name, "too large for the memory") from None
    except Exception as error:  # decoders meet damaged bytes with nearly every type of exception
        if isinstance(error, OSError) and error.errno not in _OF_CONTENT:
            raise unreadable(name, error) from None
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise BadFile(name, f"damaged: {cause}") from None


def fingerprint_of(names: Iterable[str], digests: Iterable[bytes]) -> str:
    """Hex digest of (name, digest) pairs: of the content, wherever it lies."""
    whole = blake2b(digest_size=16)
    for name, digest in zip(names, digests, strict=True):
        whole.update(os.fsencode(name) + b"\0" + digest)
    return whole.hexdigest()
