"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tacit.tasks.registry import all_tasks

_BETWEEN_LINES = 5.0  # seconds


def _shown() -> tuple[str, ...]:
    """Of many values, those that tell most in one line."""
    return ("loss", "knn", *(task.score for task in all_tasks().values()), "effective_rank")


class ProgressBar:
    """Losses, the online probe, health, throughput and the time left, on standard error."""

    def __init__(self, total: int, start: int, *, quiet: bool) -> None:
        self.total = total
        self.start = start
        self.quiet = quiet
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal and not quiet
        self._values: dict[str, float] = {}
        self._began = time.monotonic()
        self._last_line = float("-inf")
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=self.console,
        )
        self._task = self._bar.add_task("learning", total=total, completed=start, values="")

    def __enter__(self) -> ProgressBar:
        if self.live:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self._bar.stop()

    def update(self, done: int, values: Mapping[str, float]) -> None:
        """Show that `done` steps are taken, and the newest values."""
        self._values.update(values)
        if self.live:
            self._bar.update(self._task, completed=done, values=self._line())

    def line(self, done: int, epoch: int, epochs: int) -> None:
        """Where there is no terminal: one line, if the last one is some seconds old or the run ends."""
        now = time.monotonic()
        if self.live or self.quiet or (now - self._last_line < _BETWEEN_LINES and done < self.total):
            return
        self._last_line = now
        passed = now - self._began
        left = passed / max(1, done - self.start) * (self.total - done)
        self.console.print(
            f"epoch {epoch}/{epochs}  step {done}/{self.total}  {self._line()}  {left:.0f} s left",
            soft_wrap=True,
            highlight=False,
        )

    def say(self, text: str) -> None:
        """One line above the bar, or between the lines; not if quiet."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """One line, also if quiet."""
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)

    def _line(self) -> str:
        shown = [f"{name} {self._values[name]:.4g}" for name in _shown() if name in self._values]
        if "samples_per_second" in self._values:
            shown.append(f"{self._values['samples_per_second']:,.3g} samples/s")
        return "  ".join(shown)
