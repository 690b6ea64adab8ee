"""What is asked of volumes only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tacit.data.volume.windows import Window
from tacit.errors import UsageError
from tacit.files import expanded


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
        place = None if masks is None else expanded(masks)
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
