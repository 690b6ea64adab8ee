"""A progress bar for work on many files, or in many steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """How many per second over the last seconds."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s")


def counted(
    items: Iterable[T],
    total: int,
    shown: bool,
    what: str = "decoding",
    begun: int = 0,
    unit: str = "files",
) -> Iterator[T]:
    """Pass the items on under a bar on stderr with their rate and the time left; no bar off a terminal.

    total: all there is to do; begun: how much of it was done before the first item. unit: what is counted.
    """
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield from items
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield from bar.track(items, total=total, completed=begun)
