"""How much memory there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def machine_memory() -> Iterator[tuple[int, int]]:
    """(used, total) bytes of the machine, and of the container if it has a limit; Linux only."""
    try:
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        held = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}
        yield held["MemTotal"] - held["MemAvailable"], held["MemTotal"]
    except (OSError, KeyError, ValueError):
        pass
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        files = {words[0]: int(words[1]) for words in lines}
        yield used - files["active_file"] - files["inactive_file"], limit  # the page cache is given back
    except (OSError, KeyError, ValueError):  # no limit is the word "max"
        return


def free_memory() -> int | None:
    """Bytes that this process can still take; None where that is not known."""
    return min((max(0, total - used) for used, total in machine_memory()), default=None)
