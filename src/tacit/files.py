"""Files that appear whole or not at all, and what their text, JSON and CSV can hold."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tacit.errors import TacitError, UsageError, escaped

_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four: wide =, +, - and @
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_QUOTED = re.compile(r"""[",;\t\r\n]|^\s|\s$""")


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
    """Write `content` to `path` as `replacing` does; text as UTF-8, escaped where it has none."""
    with replacing(path) as file:
        file.write(escaped(content).encode() if isinstance(content, str) else content)


@contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """A path of the file in UTF-8, which safetensors needs: its own, or that of its open descriptor."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        with open(path, "rb") as file:
            yield f"/dev/fd/{file.fileno()}"
    else:
        yield text


def without_nan(value: Any) -> Any:
    """Nested dicts, lists and tuples as JSON can hold them: None for NaN, and text `escaped`."""
    if isinstance(value, dict):
        return {without_nan(name): without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    if isinstance(value, str):
        return escaped(value)
    return None if value != value else value


def csv_line(cells: Iterable[object], numbers: Iterable[str] = ()) -> str:
    r"""A line of a CSV file that no spreadsheet executes, with its line break.

    A spreadsheet takes text that begins with =, +, - or @ for a formula, quoted or not, and a name can be
    chosen by a stranger: such text gets an apostrophe before it, which `plain_cell` takes away again. Text is
    `escaped`. It is quoted where it has a comma, and, which Python's csv module cannot be asked for, where it
    has a semicolon or a tab, at which a spreadsheet of another country would begin a new cell.

    cells: None is an empty one. numbers: cells behind them, which are written as they are.
    """
    line = ",".join([*map(_cell, cells), *numbers])
    return (line or '""') + "\n"  # a line of nothing would be no row


def _cell(value: object) -> str:
    text = "" if value is None else escaped(str(value))
    if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    if _QUOTED.search(text):
        text = text.replace('"', '""')
        return f'"{text}"'
    return text


def plain_cell(text: str) -> str:
    """What `csv_line` was given for this cell."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(_FORMULA) else text
