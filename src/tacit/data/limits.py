"""How large a sample may be: what its file can really hold, and the memory there is.

A header can declare any number of pixels or voxels, and compressed zeros shrink a thousandfold. So before
anything is decoded or allocated its size is worked out from the header, and two rules hold for every reader.
They are our choice:

- **What the file can hold.** Anything may unpack to 256 MiB (89 million RGB pixels, from which Pillow warns
  too; 512 x 512 x 512 voxels of 16 bits). Beyond that to at most 200 times its size on the disk: scans and
  photographs shrink 2 to 20 times, and the emptiest real data that we know, the archive of dSprites, 116
  times. Masks are emptier: they may unpack to 1,032 times their size, which is all that deflate can do.
- **The memory there is.** What a sample needs while it is decoded, working copies included, must fit into
  three quarters of the memory that is free, and what all threads decode at a time must fit together. A sample
  that does not fit is `Unreadable`: it is tried again when the data are opened again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from tacit.errors import BadFile, Unreadable
from tacit.memory import free_memory

UNPACKED = 256 * 2**20
"""Bytes that any file may unpack to."""
RATIO, MASK_RATIO = 200, 1032
"""Beyond that, how many times its size on the disk a sample, or a mask, may have."""
SHARE = 0.75
"""Of the free memory, what is taken at most."""
_SMALL = 32 * 2**20  # bytes of memory that are not counted


def check_unpacked(name: str, unpacked: int, held: int, ratio: int = RATIO) -> None:
    """Refuse what declares more than a file of its size can hold.

    unpacked: bytes of pixels or voxels that the header declares. held: bytes of the file.

    Raises:
        BadFile: it is damaged, or made to fill the memory.
    """
    if unpacked > UNPACKED and unpacked > ratio * held:
        raise BadFile(
            name,
            f"it declares {size_in_words(unpacked)} in {size_in_words(held)}, which no real data need "
            f"(at most {ratio} times their size is unpacked): damaged, or made to fill the memory",
        )


def check_memory(name: str, needed: int) -> None:
    """Refuse what does not fit into the free memory.

    needed: bytes, with all working copies.

    Raises:
        Unreadable: it does not fit now.
    """
    free = free_memory() if needed > _SMALL else None
    if free is not None and needed > SHARE * free:
        raise Unreadable(
            name,
            f"too large for the memory: decoding it takes {size_in_words(needed)}, and "
            f"{size_in_words(free)} are free",
        )


class Room:
    """Memory that samples take while they are decoded, counted over all threads."""

    def __init__(self) -> None:
        self._held = 0
        self._changed = Condition()

    @contextmanager
    def taken(self, name: str, needed: int) -> Iterator[None]:
        """Within the block `needed` bytes are taken; before it, wait while other threads leave too little.

        A thread takes once at a time, or it would wait for itself.

        Raises:
            Unreadable: it would not fit even alone.
        """
        if needed <= _SMALL:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._fits(needed))
            check_memory(name, needed)
            self._held += needed
        try:
            yield
        finally:
            with self._changed:
                self._held -= needed
                self._changed.notify_all()

    def _fits(self, needed: int) -> bool:
        """Whether there is room beside what others have taken, of which some is not free any more."""
        free = free_memory()
        return free is None or needed + self._held <= SHARE * free


ROOM = Room()
"""The memory of this process."""


def size_in_words(count: int) -> str:
    """Bytes as GiB, MiB, KiB or bytes."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
