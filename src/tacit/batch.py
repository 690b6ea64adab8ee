"""The words everyone shares: what a step gets (`Batch`) and where it stands in the run (`Step`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Modality = Literal["image", "volume", "recording", "series", "connectome", "pose"]
Target = Literal["class", "mask", "value", "keypoints"]
"""Kind of what is known of a labelled sample."""


@dataclass(slots=True)
class Batch:
    """One step's samples. `labelled` may be None: then learning is purely self-supervised.

    `extra` holds what the source measured and `views` needs, one row per sample. What belongs to
    the labelled part has the prefix `labelled_`. Images bring `true_size`, (U, 2) float32: height
    and width in pixels before the store made them square.
    """

    unlabelled: Tensor  # (U, C, *space)  images: uint8; other modalities: float32
    index: Tensor  # (U,) int64, position in the source
    labelled: Tensor | None = None  # (L, C, *space)
    target: Tensor | None = None  # (L,) classes; (L, *space) masks; (L, K, 3) keypoints x, y, visible
    length: Tensor | None = None  # (U,) valid frames, for ragged recordings and series
    source: str = ""  # which source of a mixed run
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of unlabelled samples, U."""
        return len(self.unlabelled)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by torch's DataLoader)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change) -> Batch:  # type: ignore[no-untyped-def]
        new = {
            f.name: change(value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **new, extra={name: change(value) for name, value in self.extra.items()})


class Step(NamedTuple):
    """Where the run stands. `index / total` is the progress from 0 to 1."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a step
    total: int
    epoch: int
    epochs: int
