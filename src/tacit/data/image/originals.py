"""What a store is built from, and the form that its images are brought to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from tacit.data.image.decoding import FULL_WHITE, Decoded, Form, Header, white_above
from tacit.data.options import Options
from tacit.errors import BadFile, UsageError

LOOKED_AT = 256  # images that decide on size, channels and white


class Originals(Protocol):
    """What a store is built from: files of a folder, rows of a data set, arrays of an archive."""

    @property
    def names(self) -> Sequence[str]:
        """(N,) one name each, in order."""

    def identity(self) -> Iterable[bytes]:
        """What changes whenever the originals may have changed; cheap, nothing is decoded for it."""

    def white_from(self) -> Sequence[int]:
        """Positions whose `peak` fixes the white of images with more than 8 bits."""

    def header(self, i: int) -> Header:
        """Size and kind of one image; raises `BadFile`."""

    def peak(self, i: int) -> int:
        """The largest value of one image with more than 8 bits; 0 for any other."""

    def decode(self, i: int, form: Form) -> Decoded:
        """One image in the form of the store; raises `BadFile`."""


def evenly(positions: Sequence[int] | np.ndarray, most: int = LOOKED_AT) -> list[int]:
    """At most `most` of the positions, evenly spaced, the first and the last among them."""
    chosen = np.linspace(0, len(positions) - 1, min(len(positions), most)).round().astype(int)
    return [int(positions[i]) for i in chosen]


def plan(originals: Originals, options: Options, pool: ThreadPoolExecutor) -> Form:
    """Channels, side and white of the store, from the headers of evenly spaced images.

    The side is the median of sqrt(height x width), at most `max_size`. One channel if all are grey, three if
    some are coloured; arrays with other numbers of channels keep theirs.
    """
    chosen = evenly(range(len(originals.names)))
    headers = [h for h in pool.map(lambda i: _header_or_none(originals, i), chosen) if h]
    channels, size = options.channels, options.size
    if channels is None:
        counts = Counter(h.channels for h in headers) or Counter([3])
        common = counts.most_common(1)[0][0]
        channels = common if len(counts) == 1 else 3 if set(counts) <= {1, 3} else common
    elif channels not in (1, 3, 4) and all(h.channels != channels for h in headers):
        raise UsageError(f"channels must be 1, 3 or 4 for these images, not {channels}")
    if size is None:
        sides = [np.sqrt(h.height * h.width) for h in headers] or [options.max_size]
        size = min(round(float(np.median(sides))), options.max_size)
    highest = max(pool.map(originals.peak, originals.white_from()), default=0)
    white = options.white or (white_above(highest) if highest else FULL_WHITE)
    return Form(channels, size, white, highest)


def _header_or_none(originals: Originals, i: int) -> Header | None:
    try:
        return originals.header(i)
    except BadFile:
        return None
