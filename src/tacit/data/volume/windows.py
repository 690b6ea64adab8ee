"""Which voxel values become 0 and 1."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tacit.errors import UsageError, did_you_mean

PERCENTILES = (0.5, 99.5)
_NAMED = ("minmax", "percentile")


class Range(NamedTuple):
    """What is known of a volume's values: (C,) float64 each, one number a channel.

    lowest, highest: of all voxels. low, high: the 0.5 and 99.5 percentile.
    """

    lowest: np.ndarray
    highest: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, voxels: np.ndarray) -> Range:
        """The range of (C, X, Y, Z) voxels."""
        axes = (1, 2, 3)
        flat = (channel.ravel(order="K") for channel in voxels)
        low, high = np.array([np.percentile(values, PERCENTILES) for values in flat], np.float64).T
        return cls(voxels.min(axes).astype(np.float64), voxels.max(axes).astype(np.float64), low, high)


class Window(NamedTuple):
    """The values that become 0 and 1: by name, or the two numbers `low` and `high`."""

    name: str
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def parse(cls, text: str | None) -> Window:
        """The window that is meant; None is `minmax`.

        `minmax`: the volume's own extremes (the default is our choice: magnetic resonance has no units of
        its own, and nothing is cut off). `percentile`: its 0.5 and 99.5 percentile. `LOW,HIGH`: numbers in
        the file's units, such as `-125,225` Hounsfield units. Each channel has its own.

        Raises:
            UsageError: something else, or LOW is not below HIGH.
        """
        if text is None or text in _NAMED:
            return cls(text or _NAMED[0])
        try:
            low, high = (float(part) for part in text.strip(" ()[]").split(","))
        except ValueError:
            raise UsageError(
                f"the window is minmax, percentile or LOW,HIGH, not '{text}'{did_you_mean(text, _NAMED)}"
            ) from None
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(f"the window's first number must be below its second, not {low:g},{high:g}")
        return cls("range", low, high)

    def __str__(self) -> str:
        return f"{self.low!r},{self.high!r}" if self.name == "range" else self.name

    def limits(self, values: Range) -> tuple[np.ndarray, np.ndarray]:
        """The values that become 0 and 1, (C,) float64 each.

        Percentiles that are equal (a volume that is nearly all background) give way to the extremes.
        """
        if self.name == "range":
            channels = np.ones(len(values.lowest))
            return self.low * channels, self.high * channels
        if self.name == "percentile":
            same = values.low >= values.high
            return np.where(same, values.lowest, values.low), np.where(same, values.highest, values.high)
        return values.lowest, values.highest

    def shows_nothing(self, values: Range) -> str:
        """Why a volume of these values would be all 0 or all 1; "" if it is not."""
        low, high = self.limits(values)
        if ((values.highest > low) & (values.lowest < high)).any():
            return ""
        span = f"from {values.lowest.min():g} to {values.highest.max():g}"
        return f"its values, {span}, lie outside of the window {self.low:g},{self.high:g}"
