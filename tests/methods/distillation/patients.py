"""Small made-up patients: the same organs in everybody, at places and in sizes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tacit.data.source import Sample, Source, Spec

ORGANS = ((8, 8, 9, 3.5, 0.9), (22, 9, 12, 2.5, 0.6), (14, 22, 8, 4.5, 0.4), (20, 20, 20, 2.0, 1.0))
"""Centre, radius (voxels) and brightness of each in the first patient."""


@dataclass
class FakeVolume:
    """What `tacit.data.volume.volumes.Volume` offers of a scan, from memory."""

    voxels: Tensor  # (C, X, Y, Z)
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)
    shift: tuple[int, int, int] = (0, 0, 0)
    reads: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = self.voxels.shape[1:]
        return x, y, z

    @property
    def channels(self) -> int:
        return len(self.voxels)

    def read(self, start: Sequence[int], size: Sequence[int]) -> Tensor:
        self.reads.append(tuple(size))
        out = torch.zeros(self.channels, *size)
        low = [max(0, s) for s in start]
        high = [min(n, s + k) for n, s, k in zip(self.shape, start, size, strict=True)]
        if all(a < b for a, b in zip(low, high, strict=True)):
            source = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
            target = (slice(None), *(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True)))
            out[target] = self.voxels[source]
        return out


class FakeSample(Sample):
    """A sample whose voxels are read when asked for."""

    def __init__(self, volume: FakeVolume, index: int) -> None:
        super().__init__(torch.empty(0), index, name=f"patient {index}")
        self.volume = volume


class Patients(Source):
    """`count` volumes of about 30 voxels a side."""

    def __init__(self, count: int, seed: int = 0, side: int = 30, spacing: float = 2.0) -> None:
        super().__init__(Spec("volume", (1, 16, 16, 16)), [f"patient {i}" for i in range(count)])
        self.volumes = [patient(np.random.default_rng([seed, i]), side, spacing) for i in range(count)]

    def __getitem__(self, i: int) -> FakeSample:
        return FakeSample(self.volumes[i], i)


def patient(draw: np.random.Generator, side: int, spacing: float = 2.0) -> FakeVolume:
    sides = [side + int(draw.integers(0, 5)) for _ in range(3)]
    shift = tuple(int(s) for s in draw.integers(0, 4, 3))
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in sides), indexing="ij"), -1)
    voxels = np.zeros(sides)
    for *centre, radius, bright in ORGANS:
        far = np.linalg.norm(grid - np.array(centre) - shift, axis=-1) / (radius * draw.uniform(0.9, 1.1))
        voxels += bright * np.exp(-(far**4))
    body = np.linalg.norm((grid - 15 - shift) / 15, axis=-1) < 1
    voxels = np.where(body, 0.1 + 0.8 * voxels + 0.02 * draw.random(sides), 0).clip(0, 1)
    return FakeVolume(torch.from_numpy(voxels).float()[None], (spacing,) * 3, shift)
