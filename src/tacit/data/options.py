"""How to decode, and where to keep what was decoded."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tacit.data.windows import Window
from tacit.errors import UsageError

LARGEST_AUTOMATIC = 256  # pixels, by default


@dataclass(frozen=True, slots=True)
class Options:
    """How to decode and where to keep: the keyword arguments of `open_source`."""

    size: int | None = None
    channels: int | None = None
    on_bad_file: Literal["stop", "skip"] = "stop"
    cache: Path | None = None
    progress: bool = True
    workers: int | None = None
    max_size: int = LARGEST_AUTOMATIC

    @property
    def threads(self) -> int:
        """Number of decoding threads: `workers`, or the processor cores that this process may use."""
        allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        return self.workers or len(allowed)

    @property
    def stores(self) -> Path:
        """The folder of all stores: below `cache`, or $TACIT_CACHE, or the user's cache folder."""
        user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        cache = self.cache or os.environ.get("TACIT_CACHE") or Path(user) / "tacit"
        return Path(cache).expanduser().absolute() / "images"

    @property
    def aliases(self) -> Path:
        """The folder of files that are named by wishes (side, channels) and hold the name of a store."""
        return self.stores.with_name("aliases")

    @property
    def indices(self) -> Path:
        """The folder of listings of image folders."""
        return self.stores.with_name("indices")

    @property
    def locks(self) -> Path:
        """The folder of empty files that a process locks while it builds a store."""
        return self.stores.with_name("locks")


@dataclass(frozen=True, slots=True)
class VolumeOptions:
    """What is asked of volumes only: keyword arguments of `open_source`, checked."""

    masks: Path | None = None
    window: str | None = None
    spacing: tuple[float, ...] | None = None
    patch: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        masks: str | Path | None,
        window: str | None,
        spacing: str | float | Sequence[float] | None,
        patch: str | int | Sequence[int] | None,
    ) -> VolumeOptions:
        """The options; one number stands for all three axes, and "X,Y,Z" for three.

        Raises:
            UsageError: a window, spacing or patch that is none.
        """
        Window.parse(window)
        sides, patches = three("spacing", spacing), three("patch", patch)
        if sides and not all(math.isfinite(side) and side > 0 for side in sides):
            raise UsageError(f"spacing must be above 0 mm, not {','.join(f'{side:g}' for side in sides)}")
        if patches and not all(side == int(side) and side > 0 for side in patches):
            raise UsageError(
                f"patch must be whole numbers above 0, not {','.join(f'{side:g}' for side in patches)}"
            )
        place = None if masks is None else Path(masks).expanduser()
        return cls(place, window, sides, None if patches is None else tuple(map(int, patches)))

    @property
    def given(self) -> list[str]:
        """The names of the options that are not left to their defaults."""
        return [name for name in ("masks", "window", "spacing", "patch") if getattr(self, name) is not None]


def three(name: str, given: str | float | Sequence[float] | None) -> tuple[float, ...] | None:
    """Three numbers, from one that stands for all, from three, or from words such as "48,48,32".

    Raises:
        UsageError: something else.
    """
    if given is None:
        return None
    try:
        values = _numbers(given)
    except ValueError:
        raise UsageError(f"{name} is three numbers such as 48,48,32, or one, not '{given}'") from None
    if len(values) not in (1, 3):
        raise UsageError(f"{name} is three numbers, or one for all axes, not {len(values)}")
    return values * 3 if len(values) == 1 else values


def _numbers(given: str | float | Sequence[float]) -> tuple[float, ...]:
    if isinstance(given, str):
        return tuple(float(word) for word in given.strip("[]() ").split(","))
    return tuple(map(float, given)) if isinstance(given, Sequence) else (float(given),)
