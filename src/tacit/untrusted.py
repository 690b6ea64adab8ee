"""Files that anybody can have written: regular ones alone, read up to a limit, as plain values.

What reads a run folder, a configuration or a table of labels reads through this module. A link to a device, a
pipe or an endless file is refused before it is opened; JSON and YAML give plain values and nothing else, of
bounded size and depth; what is wrong with them is a `ValueError` of one line.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from typing import Any, BinaryIO

import yaml

from tacit.checks import shortly

SETTINGS_LIMIT = 4 * 2**20
"""Largest YAML file that is read, in bytes: the names of 100,000 classes; libyaml takes 2 s for it."""
CARD_LIMIT = 16 * 2**20
"""Largest JSON file that is read, in bytes: its values take 25 times as much memory at most."""
TABLE_LIMIT = 512 * 2**20
"""Largest CSV file that is read, in bytes: a row of 50 bytes for each of ten million samples."""
DEPTH = 32
"""Deepest nesting of YAML that is read; settings have five levels."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the base is chosen here
    """Plain values alone; what looks like a date is a text, and 1e-3 a number, as people mean it."""


class _PlainLoader(yaml.SafeLoader):
    """The same for names that libyaml cannot read, because they are not UTF-8."""


class _Whole:
    """Equal values are written out each time."""

    def ignore_aliases(self, data: Any) -> bool:
        """All."""
        return True


class _Dumper(_Whole, getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # as above
    """What `_Loader` reads as it was."""


class _PlainDumper(_Whole, yaml.SafeDumper):
    """The same for names that libyaml cannot write."""


_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+")
_NOT_UTF8 = re.compile(r"\\uDC[89A-F][0-9A-F]")
_SLOWLY = 2**16  # characters that a reader in Python may take
_Loader.yaml_implicit_resolvers = _PlainLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind in (_Loader, _PlainLoader, _Dumper, _PlainDumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


class NotAFile(OSError):
    """What is there is a folder, a pipe or the like. kind: what it is, in words."""

    def __init__(self, kind: str, path: str) -> None:
        super().__init__(errno.EINVAL, f"it is {kind}, and must be a file", path)
        self.kind = kind


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, or a link to one.

    Nothing else is opened: a pipe would make us wait, a device can be without end or do something.

    Raises:
        NotAFile: it is something else.
        OSError: there is none, or it may not be read; its `strerror` says why.
    """
    _check_regular(path, os.stat(path))  # before it is opened: opening some devices does something
    # a pipe that has taken the file's place since then must not make this wait
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(handle, "rb")
    try:
        _check_regular(path, os.fstat(handle))
    except OSError:
        file.close()
        raise
    return file


def _check_regular(path: str | os.PathLike[str], found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise NotAFile(kind, os.fspath(path))


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        OSError: as `open_file`.
        ValueError: it is larger.
    """
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size <= limit:
            content = file.read(limit + 1)  # files of /proc have a size of 0, whatever is in them
            if len(content) <= limit:
                return content
    raise ValueError(f"it is larger than {limit:,} bytes")


def read_text(path: str | os.PathLike[str], limit: int, encoding: str = "utf-8") -> str:
    """The same as text.

    Raises:
        OSError, ValueError: as `read_bytes`; it is not in this encoding.
    """
    return read_bytes(path, limit).decode(encoding)


def read_json(path: str | os.PathLike[str], limit: int = CARD_LIMIT, encoding: str = "utf-8") -> Any:
    """The values in a JSON file; numbers can be NaN and infinite.

    Raises:
        OSError: as `open_file`.
        ValueError: it is too large, nested too deeply, not in this encoding, or not JSON.
    """
    try:
        return json.loads(read_text(path, limit, encoding))
    except RecursionError as error:
        raise ValueError(f"it is nested too deeply: {first_line(error)}") from None


def read_yaml(path: str | os.PathLike[str], limit: int = SETTINGS_LIMIT) -> Any:
    """The values in a YAML file; see `parse_yaml`.

    Raises:
        OSError: as `open_file`.
        ValueError: it is too large, or as `parse_yaml`.
    """
    return parse_yaml(read_text(path, limit))


def parse_yaml(text: str) -> Any:
    """The mappings, sequences, texts, numbers, truth values and nulls of one YAML document.

    Raises:
        ValueError: it is not YAML, has aliases, other values, or more than `DEPTH` levels.
    """
    loader = _PlainLoader if len(text) <= _SLOWLY and _NOT_UTF8.search(text) else _Loader
    try:
        _check_events(text, loader)
        values = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError, OverflowError, ArithmeticError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    if (other := _other(values)) is not None:
        raise ValueError(f"it holds {other}, and may hold names, texts, numbers and lists of them")
    return values


def dump_yaml(values: Any) -> str:
    """Plain values as a YAML document that `parse_yaml` reads as they were."""
    try:
        text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    except UnicodeEncodeError:  # bytes of a name that are not UTF-8, which libyaml cannot write
        text = yaml.dump(values, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)
    return text


def _check_events(text: str, loader: Any) -> None:
    """Look at the document before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            # a few lines of aliases to aliases are values without end
            raise ValueError(f"it has an alias, *{event.anchor}: write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH:
                raise ValueError(f"it is nested more than {DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _other(values: Any) -> str | None:
    """The type of the first value that is not plain, if any."""
    todo = [values]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            todo += value
        elif not isinstance(value, str | int | float | None):
            return f"a {type(value).__name__}"
    return None


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, KeyError):
        return f"there is no {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def mapping(values: Any, what: str) -> dict[str, Any]:
    """The values, if they are names and values.

    Raises:
        ValueError: they are something else. what: whose they are, in words.
    """
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{what} holds {shortly(values)}, and must hold names and values")
    return values
