"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tacit.tasks.registry import all_tasks
from tacit.training.forecast import duration
from tacit.training.loader import Plan

_BETWEEN_LINES = 5.0  # seconds, at the ends of epochs
_LATE = 60.0  # seconds after which a line comes in the middle of an epoch, too


def _shown() -> tuple[str, ...]:
    """Of many values, those that tell most in one line."""
    return ("loss", "knn", *(task.score for task in all_tasks().values()), "effective_rank")


class ProgressBar:
    """Method, epoch, step, time left, losses, the online probe, health and throughput, on standard error.

    Steps are the optimiser steps of the whole run, those before it was resumed among them.
    """

    def __init__(self, method: str, plan: Plan, start: int, *, quiet: bool) -> None:
        """method: its slug. start: steps that were taken before."""
        self.method, self.plan, self.start = method, plan, start
        self.quiet = quiet
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal and not quiet
        self._values: dict[str, float] = {}
        self._done, self._epoch = start, 0
        self._first: tuple[int, float] | None = None  # step and time from which the pace is measured
        self._last_line = float("-inf")
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("step {task.completed}/{task.total}"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[values]}"),
            console=self.console,
        )
        self._task = self._bar.add_task(method, total=plan.total, completed=start, values="", left="")

    def __enter__(self) -> ProgressBar:
        if self.live:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self._bar.stop()

    def at(self, done: int, epoch: int) -> None:
        """Show that `done` steps are taken, the last one in this epoch, counted from 1."""
        self._done, self._epoch = done, epoch
        if self._first is None:  # the first step is slow: it allocates
            self._first = done, time.monotonic()
        if self.live:
            self._bar.update(self._task, completed=done, description=self._where(), left=self._left())

    def show(self, values: Mapping[str, float]) -> None:
        """Show the newest values."""
        self._values.update(values)
        if self.live:
            self._bar.update(self._task, values=self._line())

    def line(self) -> None:
        """Where there is no terminal: one line, if the last one is some seconds old or the run ends."""
        if self._since_line() >= _BETWEEN_LINES or self._done == self.plan.total:
            self._print()

    def line_if_late(self) -> None:
        """Where there is no terminal: one line, if the last one is a minute old."""
        if self._last_line == float("-inf"):
            self._last_line = time.monotonic()
        if self._since_line() >= _LATE:
            self._print()

    def _since_line(self) -> float:
        return time.monotonic() - self._last_line

    def _print(self) -> None:
        if self.live or self.quiet:
            return
        self._last_line = time.monotonic()
        parts = [self._where(), f"step {self._done}/{self.plan.total}", self._line(), self._left()]
        self.console.print("  ".join(filter(None, parts)), soft_wrap=True, highlight=False, markup=False)

    def _where(self) -> str:
        return f"{self.method}  epoch {self._epoch}/{self.plan.epochs}"

    def _left(self) -> str:
        """The time left, at the mean pace since the first step; "" before it is known."""
        if self._first is None or self._done == self._first[0]:
            return ""
        if self._done == self.plan.total:
            return "0 s left"
        pace = (time.monotonic() - self._first[1]) / (self._done - self._first[0])
        return f"about {duration(pace * (self.plan.total - self._done))} left"

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
