"""One sample in its own geometry: where masks are predicted, graded and written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""(B, C, *patch) float32 -> (B, classes, *patch) probabilities."""
Grid = Sequence[float] | np.ndarray | None
"""Where voxels are: mm by axis; of sheared axes a matrix, column k the step along axis k in mm."""
OVERLAP = 0.5
"""Of neighbouring windows, along each axis."""


class Canvas(ABC):
    """What a task for masks sees of a sample; a kind of data that has masks offers one (`Form.canvas`).

    name: as in the source. shape: its sides, in voxels or pixels. spacing: of these in mm, None where it is
    unknown. ending: of the files that masks are written to. unit, element: in what the table counts the size
    of a class, and how much of it a voxel or pixel is. origin: the file of the sample itself, if it has one.
    """

    whole: bool = False  # whether one input of the network shows all of it, whatever its size
    ending: str
    unit: str
    name: str
    origin: Path | None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Sides of the sample."""

    @property
    @abstractmethod
    def spacing(self) -> Sequence[float] | None:
        """mm by axis."""

    @property
    def grid(self) -> Grid:
        """By which surface distances are measured; by default `spacing`."""
        return self.spacing

    @property
    @abstractmethod
    def element(self) -> float:
        """`unit`s that one voxel or pixel is."""

    @abstractmethod
    def mask(self) -> np.ndarray:
        """(*shape) int64, the true classes.

        Raises:
            UsageError: there is no mask.
        """

    @abstractmethod
    def predict(self, predict: Predict, device: torch.device | str, overlap: float = OVERLAP) -> Tensor:
        """(classes, *shape) float32 probabilities on the CPU.

        overlap: of neighbouring windows along each axis, in [0, 1), where the sample is larger than one.
        """

    @abstractmethod
    def windows(self, overlap: float = OVERLAP) -> int:
        """How many inputs `predict` takes through the network."""

    @abstractmethod
    def write(self, mask: np.ndarray, path: Path) -> None:
        """Write a mask (*shape) of whole numbers up to 255 as a file that lies over the sample's own."""
