"""Keeping what was learned: when a checkpoint is written, and that a good one is always there."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tacit.errors import TacitError
from tacit.files import replacing
from tacit.training.checkpoint import Checkpoint
from tacit.training.run import Run

SAVE_EVERY = 300.0  # seconds after which any step writes a checkpoint
_AT_EPOCH = 20.0  # seconds after which an epoch's end writes one, if this is the shorter time


class Keeper:
    """Writes `last.pt`, and keeps the one before it as `good.pt` until `last.pt` is known to be good.

    A collapse is seen some time after it began, so the newest checkpoint can be spoilt already. It
    counts as good once a later look finds the run healthy; until then the one before it stays too.
    """

    def __init__(self, run: Run, every: float) -> None:
        """every: seconds between checkpoints, 0 for one at each step."""
        self.run = run
        self.every = every
        self._at = float("-inf")  # the first step saves: from then on the folder is a run to go on with

    def due(self, *, at_epoch: bool) -> bool:
        """Whether this step should write a checkpoint."""
        passed = time.monotonic() - self._at
        return passed > self.every or (at_epoch and passed > min(_AT_EPOCH, self.every))

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the last checkpoint.

        Raises:
            TacitError: it cannot be written; those that are there stay as they are.
        """
        with resumable(self.run):
            if self.run.last.is_file() and not self.run.good.is_file():
                self._second_name()
            checkpoint.save(self.run.last)
        self._at = time.monotonic()

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint with the best online probe; raises as `save` does."""
        with resumable(self.run):
            checkpoint.save(self.run.best)

    def _second_name(self) -> None:
        """Give the newest checkpoint the name `good.pt` too; where there are no hard links, a copy."""
        try:
            os.link(self.run.last, self.run.good)
        except OSError:
            with self.run.last.open("rb") as old, replacing(self.run.good) as new:
                shutil.copyfileobj(old, new)

    def confirm(self) -> None:
        """The run was found healthy after the last checkpoint: that is now the good one."""
        with suppress(OSError):  # a file too many does no harm
            self.run.good.unlink()

    def fall_back(self, *, spoilt: bool) -> str:
        """Make the last good checkpoint the last one; says where it is.

        spoilt: whether what was saved after the last healthy look may be bad, too.
        """
        kept = self.run.last
        if self.run.good.is_file() and spoilt:
            try:
                os.replace(self.run.good, self.run.last)
            except OSError:
                kept = self.run.good
        else:
            self.confirm()
        if not kept.is_file():
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {kept} (step {Checkpoint.load(kept).step})"


@contextmanager
def resumable(run: Run) -> Iterator[None]:
    """Adds to the error of a write that failed what is kept, and how to go on.

    Raises:
        TacitError: the disk is full, or the target is read-only or gone.
    """
    try:
        yield
    except TacitError as error:
        if not isinstance(error.__cause__, OSError) or not run.last.is_file():
            raise
        raise TacitError(
            f"{error}; the last checkpoint is kept ({run.last}): when it can be written again, go on with "
            f"{run.resuming()}"
        ) from error.__cause__
