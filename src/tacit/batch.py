"""The words everyone shares: what a step gets (`Batch`, `Samples`), and where it is in the run (`Step`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Modality = Literal["image", "volume", "recording", "series", "connectome", "pose"]
Target = Literal["class", "mask", "value", "keypoints"]
"""Kind of what is known of a labelled sample."""


@dataclass(slots=True)
class Samples:
    """N samples of one shape.

    extra: what the source measured or a method's `cut` added, one row per sample. Images have `true_size`,
        (N, 2) float32: height and width in pixels before the store made them square.
    """

    data: Tensor  # (N, C, *space)  images: uint8; other modalities: float32; ragged ones padded with 0
    index: Tensor  # (N,) int64, position in the source; in a stream, the number of the draw
    target: Tensor | None = None  # (N,) classes or values; (N, *space) masks; (N, K, 3) keypoints
    length: Tensor | None = None  # (N,) int64, valid frames of ragged samples
    domain: Tensor | None = None  # (N,) int64, which source of a mixed run
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.data)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Samples:
        """The same samples with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Samples:
        """The same samples in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Samples:
        new = {
            f.name: change(value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **new, extra={name: change(value) for name, value in self.extra.items()})


@dataclass(slots=True)
class Batch:
    """One step's samples. Without labelled ones learning is purely self-supervised.

    beside: samples of a second source, such as images beside volumes.
    """

    unlabelled: Samples
    labelled: Samples | None = None
    beside: Samples | None = None

    def __len__(self) -> int:
        """Number of unlabelled samples, U."""
        return len(self.unlabelled)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with every tensor on `device`."""
        return self._map(lambda samples: samples.to(device, non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by torch's DataLoader)."""
        return self._map(lambda samples: samples.pin_memory())

    def _map(self, change: Callable[[Samples], Samples]) -> Batch:
        beside = [None if part is None else change(part) for part in (self.labelled, self.beside)]
        return Batch(change(self.unlabelled), *beside)


class Step(NamedTuple):
    """Where the run stands. `index / total` is the progress from 0 to 1."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a step
    total: int
    epoch: int
    epochs: int
