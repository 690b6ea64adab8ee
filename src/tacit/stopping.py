"""SIGINT and SIGTERM, which ask a process to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tacit.errors import Interrupted

STOPS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], Any]


class Terminated(KeyboardInterrupt):
    """SIGTERM came, where SIGINT would raise a `KeyboardInterrupt`."""


@contextmanager
def hearing(handler: Handler, numbers: tuple[int, ...] = STOPS) -> Iterator[None]:
    """Within the block `handler` is called for these signals; without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


def terminate(number: int, frame: FrameType | None) -> None:
    """A handler that raises what Python raises for SIGINT, or `Terminated`."""
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def interrupted(why: BaseException | int, message: str) -> Interrupted:
    """The error of a stop, with the exit code of its signal: 130 or 143.

    why: the number of the signal, or what was raised because of it.
    """
    number = why if isinstance(why, int) else _number(why)
    error = Interrupted(message)
    error.exit_code = 128 + number
    return error


def _number(why: BaseException) -> int:
    if isinstance(why, Interrupted):
        return why.exit_code - 128
    return signal.SIGTERM if isinstance(why, Terminated) else signal.SIGINT
