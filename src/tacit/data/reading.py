"""What readers of all kinds of files share: bytes, damage, fingerprints, and what is no data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from tacit.errors import BadFile

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


def read_bytes(path: Path, name: str) -> bytes:
    """The file's bytes.

    Raises:
        BadFile: it cannot be read, or it is empty.
    """
    try:
        data = path.read_bytes()
    except PermissionError:
        raise BadFile(name, "permission denied") from None
    except FileNotFoundError:
        raise BadFile(name, "a link to a file that does not exist, or just deleted") from None
    except OSError as error:
        raise BadFile(name, f"cannot be read: {error.strerror or error}") from None
    if not data:
        raise BadFile(name, "empty file (0 bytes)")
    return data


@contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file becomes a `BadFile` with a reason of one line."""
    try:
        yield
    except BadFile:
        raise
    except Image.DecompressionBombError:
        raise BadFile(name, "too many pixels to be decoded safely") from None
    except Exception as error:  # decoders meet damaged bytes with nearly every type of exception
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise BadFile(name, f"damaged: {cause}") from None


def fingerprint_of(names: Iterable[str], digests: Iterable[bytes]) -> str:
    """Hex digest of (name, digest) pairs: of the content, wherever it lies."""
    whole = blake2b(digest_size=16)
    for name, digest in zip(names, digests, strict=True):
        whole.update(os.fsencode(name) + b"\0" + digest)
    return whole.hexdigest()
