"""How to decode, and where to keep what was decoded."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tacit.data.splits import Folders
from tacit.errors import TacitError, UsageError
from tacit.files import expanded

LARGEST_AUTOMATIC = 256  # pixels, by default
LARGEST_VIEW = 224  # pixels, where neither the user nor the encoder asks for a size


def store_limit(size: int) -> int:
    """Side of the stored images for an encoder that sees `size` pixels: 8/7 of it, as 256 is to 224."""
    return round(size * 8 / 7)


@dataclass(frozen=True, slots=True)
class Options:
    """How to decode and where to keep: the keyword arguments of `open_source`."""

    size: int | None = None
    channels: int | None = None
    on_bad_file: Literal["stop", "skip"] = "stop"
    cache: Path | None = None
    progress: bool = True
    workers: int | None = None
    max_size: int = LARGEST_AUTOMATIC
    white: int | None = None
    folders: Folders | None = None

    @property
    def threads(self) -> int:
        """Number of decoding threads: `workers`, or the processor cores that this process may use."""
        allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        return self.workers or len(allowed)

    @property
    def stores(self) -> Path:
        """The folder of all stores: below `cache`, or $TACIT_CACHE, or the user's cache folder."""
        user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        cache = self.cache or os.environ.get("TACIT_CACHE") or Path(user) / "tacit"
        try:
            return expanded(cache).absolute() / "images"
        except UsageError:
            raise UsageError(
                "no home folder is known for the cache of decoded files: set TACIT_CACHE or HOME, or pass "
                "--cache FOLDER"
            ) from None

    @property
    def aliases(self) -> Path:
        """The folder of files that are named by wishes (side, channels) and hold the name of a store."""
        return self.stores.with_name("aliases")

    @property
    def indices(self) -> Path:
        """The folder of listings of image folders."""
        return self.stores.with_name("indices")

    @property
    def locks(self) -> Path:
        """The folder of empty files that a process locks while it builds a store."""
        return self.stores.with_name("locks")


@contextmanager
def cache_errors(folder: Path, what: str) -> Iterator[None]:
    """Failing to write the cache becomes one line; files that cannot be read are `BadFile` already.

    what: is written to `folder`.

    Raises:
        TacitError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except (OSError, TacitError) as caught:
        error = caught if isinstance(caught, OSError) else caught.__cause__  # what `replacing` has met
        if not isinstance(error, OSError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cause = "the disk is full" if full else error.strerror or str(error)
        raise TacitError(
            f"cannot write the {what} to {folder}: {cause}; choose another folder with --cache or TACIT_CACHE"
        ) from None
