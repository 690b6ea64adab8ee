"""How long a run will take and how much memory, from its own first steps."""

from __future__ import annotations

import statistics
import time

import torch

_SKIPPED = 2  # steps: the first ones allocate and compile
_MEASURED = 8


class Forecast:
    """Times the first steps without what is done between them, and then speaks once.

    The steps are those of the run itself: nothing is computed twice.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._times: list[float] = []
        self._since: float | None = None

    def begin(self) -> None:
        """A step begins."""
        if not self.ready:
            self._since = time.monotonic()

    def end(self) -> None:
        """A step has ended. Waits for the device during the first steps only."""
        if self.ready or self._since is None:
            return
        if self.device.type != "cpu":
            torch.accelerator.synchronize()
        self._times.append(time.monotonic() - self._since)

    @property
    def ready(self) -> bool:
        """Whether enough steps are measured."""
        return len(self._times) >= _SKIPPED + _MEASURED

    def seconds(self, steps: int) -> float:
        """Seconds that so many further steps take."""
        return steps * statistics.median(self._times[_SKIPPED:])


def duration(seconds: float) -> str:
    """`3 h 20 min`, `12 min`, `45 s`."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 72:
        return f"{hours} h {minutes} min"
    return f"{round(hours / 24)} days"
