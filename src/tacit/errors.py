"""Errors that a user can act on: one line with what is wrong, where, and the mend."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType


def escaped(text: str) -> str:
    r"""The text with those bytes of a file's name that are not UTF-8 as `\xe9`: what any file can hold."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # other halves of characters, which are in no file's name
        return text.encode("utf-8", "backslashreplace").decode()


class TacitError(Exception):
    """Something failed that is not a bug. The command line prints the message alone and exits with 1."""

    exit_code = 1

    def __str__(self) -> str:
        """One line, whatever names or cells of files are in it."""
        return " ".join(escaped(super().__str__()).splitlines())


class UsageError(TacitError):
    """The request itself is wrong (a name, a type, a combination). The command line exits with 2."""

    exit_code = 2


class Interrupted(TacitError):
    """The user or the system asked to stop; what was done is saved. The exit code is 130 or 143."""

    exit_code = 130


class BadFile(TacitError):
    """One file cannot be used. `reason` says why, without the name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason} (fix or remove it, or pass --on-bad-file skip)")
        self.name = name
        self.reason = reason


class Unreadable(BadFile):
    """A file whose content could not be had: permission, a failing disk, too little memory.

    Another time it may be read, so that nothing may keep in mind that it was not.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'dcl'?"` if a known word is close, else an empty string."""
    spelled = {k.lower(): k for k in known}
    close = get_close_matches(word.lower(), spelled, n=1, cutoff=0.6)
    return f"; did you mean '{spelled[close[0]]}'?" if close else ""


def unknown(what: str, word: str, known: Iterable[str]) -> UsageError:
    """The error for a word that is not in a list, with the nearest one or, failing that, the list."""
    known = sorted(known)
    return UsageError(f"unknown {what} '{word}'{did_you_mean(word, known) or '; known: ' + ', '.join(known)}")


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say in one line how to install it.

    Raises:
        UsageError: the module is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        package = module.split(".")[0]
        raise UsageError(
            f"this needs the package '{package}', which is not installed: pip install 'tacit[{extra}]'"
        ) from None
