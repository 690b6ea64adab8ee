"""Standard output and error as the command line needs them: what is computed never depends on who listens."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Lasting:
    """A text stream that remembers the first error of a write, raises none, and drops what comes after it.

    A run may take hours: it is not lost because its terminal was closed or its log's disk is full.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write the text if that is still possible; its length."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        """From here on what the stream still holds goes nowhere, so that its end raises nothing, too."""
        self.failure = error
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting() -> Iterator[Lasting]:
    """Within the block both streams are `Lasting`; one that the process began without (`>&-`) goes nowhere.

    Gives standard output, whose `failure` is known after the block.
    """
    before = sys.stdout, sys.stderr
    out, err = (Lasting(_or_nowhere(stream)) for stream in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _or_nowhere(stream: Any) -> Any:
    return open(os.devnull, "w", encoding="utf-8") if stream is None else stream
