"""Files that appear whole or not at all, and values that their JSON can hold."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tacit.errors import TacitError, UsageError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file opened under a temporary name beside `path`; flushed to the disk and renamed at the end.

    Raises:
        TacitError: the disk is full, the folder cannot be written, or `path` is a device or a pipe, which a
            rename would remove; what was at `path` is untouched.
    """
    temporary = ""
    try:
        _check_ordinary(path)
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


def _check_ordinary(path: Path) -> None:
    """Refuse to replace what is no file; links count as what they lead to."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # not there, or not reachable, which creating it will show
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise TacitError(f"cannot write {path}: it is a device or a pipe; name a file")


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before what it is for is computed. Nothing is created.

    Raises:
        TacitError: it is a device or a pipe, or its folder cannot be written.
    """
    _check_ordinary(path)
    above = next((place for place in path.absolute().parents if place.exists()), None)
    if above is not None and not above.is_dir():
        raise TacitError(f"cannot write {path}: {above} is not a folder")
    if above is not None and not os.access(above, os.W_OK | os.X_OK):
        raise TacitError(f"cannot write {path}: {above} is read-only for you")


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with `~` replaced by the home folder.

    Raises:
        UsageError: there is no such home folder; HOME may not be set.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"no home folder is known for '{path}': set HOME, or write the whole path") from None


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
