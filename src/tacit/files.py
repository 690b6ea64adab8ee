"""Files that appear whole or not at all, and values that their JSON can hold."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tacit.errors import TacitError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file opened under a temporary name beside `path`; flushed to the disk and renamed at the end.

    Raises:
        TacitError: the disk is full, or the folder cannot be written; what was at `path` is untouched.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise TacitError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` as `replacing` does; text as UTF-8."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def without_nan(value: Any) -> Any:
    """Nested dicts, lists and tuples with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if value != value else value
