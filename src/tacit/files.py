"""Files that appear whole or not at all, and what their text, JSON and CSV can hold."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tacit.errors import TacitError, escaped

_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four: wide =, +, - and @
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_QUOTED = re.compile(r"""[",;\t\r\n]|^\s|\s$""")


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
    return ",".join([*map(_cell, cells), *numbers]) + "\n"


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
