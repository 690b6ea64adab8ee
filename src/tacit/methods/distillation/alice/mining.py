"""Which place of which other volume shows what a place of this volume shows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.data.source import Source
from tacit.encoders.anatomy import AnatomyMatcher, Maps
from tacit.methods.distillation.alice.anatomy_training import SIDE, train_matcher
from tacit.methods.distillation.alice.boxes import Point, Scan, random_point

TRIES = 101
"""How often a place is drawn before one without a good match is taken (the released code)."""
_CELLS_AT_ONCE = 1 << 22  # of similarity volumes, over all places that are looked up together: 16 MiB


class Candidate(NamedTuple):
    """A volume and its position in the source, which is what its maps are remembered by."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a candidate
    volume: Scan


class Match(NamedTuple):
    """A pair of places.

    query, found: voxels of the query volume and of the key volume. key: position in the memory, or -1 for the
    query volume itself. score: how sure, in [-1, 1]; 0 where nothing was compared.
    """

    query: Point
    key: int
    found: Point
    score: float


class ViewMiner(Protocol):
    """Draws a place of a volume and finds its counterpart.

    `weights` is what it has learned, 1-D, possibly empty; setting it brings that back.
    """

    weights: Tensor

    def learn(self, source: Source, *, progress: bool = False) -> None:
        """Learn to find places, once; the same for the same source."""

    def mine(self, query: Candidate, memory: Sequence[Candidate], rng: np.random.Generator) -> Match:
        """A place of `query` and one in the memory's volumes, of which there is at least one."""


class _Untaught:
    """What miners that learn nothing have in common."""

    weights = torch.empty(0)

    def learn(self, source: Source, *, progress: bool = False) -> None:
        """Nothing to learn."""


class SameVolumeMiner(_Untaught):
    """Two random places of the same volume: what contrastive learning on volumes usually does. A baseline."""

    def mine(self, query: Candidate, memory: Sequence[Candidate], rng: np.random.Generator) -> Match:
        """Two independent draws."""
        return Match(random_point(query.volume, rng), -1, random_point(query.volume, rng), 0.0)


class RandomPairMiner(_Untaught):
    """A random place of a random other volume. A baseline."""

    def mine(self, query: Candidate, memory: Sequence[Candidate], rng: np.random.Generator) -> Match:
        """Two independent draws."""
        place, key = random_point(query.volume, rng), int(rng.integers(len(memory)))
        return Match(place, key, random_point(memory[key].volume, rng), 0.0)


@dataclass(slots=True)
class AnatomyMiner:
    """The place with the most similar anatomical embedding (Jiang et al., 2023, arXiv 2302.05615; its code).

    A random place p of the query volume is looked up in every volume of the memory. While the best score is
    not above the threshold, another p is drawn, at most 101 in all; then the last match counts, whatever its
    score. (The released code has a memory of one volume.)

    matcher: frozen but in `learn`; it stays on the CPU, because it works in the loader's processes.
    steps: how long it learns, on crops of `side` voxels of the grid. seed: of its learning.
    spacing: mm of the isotropic grid that volumes are resampled to for matching (2 in the original); 0 leaves
        them as they are. Trilinear, without smoothing.
    threshold: cosine; 0.7 in the paper's code. tries: 101 there.
    room: bytes of maps of volumes that are remembered, per process. More would be faster where volumes come
        back before they are forgotten; nothing else changes.
    """

    matcher: AnatomyMatcher
    steps: int = 1000
    seed: int = 0
    spacing: float = 2.0
    side: int = SIDE
    threshold: float = 0.7
    tries: int = TRIES
    room: int = 256 << 20
    _maps: OrderedDict[int, Maps] = field(default_factory=OrderedDict, repr=False)

    def __post_init__(self) -> None:
        """A miner that is given its weights needs no learning."""
        self.matcher.requires_grad_(False).eval()

    @property
    def weights(self) -> Tensor:
        """All numbers of the matcher, BatchNorm's statistics among them, (n,) float64, a copy."""
        return torch.cat([x.flatten().double() for x in self.matcher.state_dict().values()])

    @weights.setter
    def weights(self, values: Tensor) -> None:
        state = self.matcher.state_dict()
        parts = values.cpu().split([x.numel() for x in state.values()])
        for x, part in zip(state.values(), parts, strict=True):
            x.copy_(part.view_as(x))
        self._maps.clear()

    def learn(self, source: Source, *, progress: bool = False) -> None:
        """Let the matcher learn on random overlapping crops of the source."""
        train_matcher(
            self.matcher,
            source,
            steps=self.steps,
            seed=self.seed,
            spacing=self.spacing,
            side=self.side,
            progress=progress,
        )
        self._maps.clear()

    @torch.no_grad()
    def mine(self, query: Candidate, memory: Sequence[Candidate], rng: np.random.Generator) -> Match:
        """The first match above the threshold, or the last one."""
        mine, theirs = self.maps_of(query), [self.maps_of(other) for other in memory]
        at_once = max(1, _CELLS_AT_ONCE // max(m.length.numel() for m in theirs))
        tried = 0
        while True:
            count = min(at_once if tried else 1, self.tries - tried)
            places = [random_point(query.volume, rng) for _ in range(count)]
            tried += count
            found, score = self._look_up(query.volume, mine, places, memory, theirs)
            best, key = score.max(0)
            good = torch.nonzero(best > self.threshold)[:, 0]
            if len(good) or tried >= self.tries:
                i = int(good[0]) if len(good) else count - 1
                k = int(key[i])
                return Match(places[i], k, _nearest(found[k, i], memory[k].volume), float(best[i]))

    def _look_up(
        self, scan: Scan, mine: Maps, places: list[Point], memory: Sequence[Candidate], theirs: list[Maps]
    ) -> tuple[Tensor, Tensor]:
        """Places in each volume of the memory: voxels (M, N, 3) and scores (M, N)."""
        points = to_grid(torch.tensor(places, dtype=torch.float64), scan, self.spacing)
        matches = [self.matcher.match(mine, points, maps) for maps in theirs]
        voxels = [
            to_voxels(found, other.volume, self.spacing)
            for (found, _), other in zip(matches, memory, strict=True)
        ]
        return torch.stack(voxels), torch.stack([score for _, score in matches])

    def maps_of(self, candidate: Candidate) -> Maps:
        """The maps of a volume, remembered while there is room; the one used longest ago goes first."""
        maps = self._maps.pop(candidate.index, None)
        if maps is None:
            maps = self.matcher.maps(on_grid(candidate.volume, self.spacing))
        self._maps[candidate.index] = maps
        while len(self._maps) > 1 and sum(m.nbytes for m in self._maps.values()) > self.room:
            self._maps.popitem(last=False)
        return maps


def on_grid(scan: Scan, spacing: float) -> Tensor:
    """The whole volume, (C, X, Y, Z), resampled to isotropic voxels of `spacing` mm; 0 leaves it."""
    voxels = scan.read((0, 0, 0), scan.shape)
    sides = grid_sides(scan, spacing)
    if sides == tuple(scan.shape):
        return voxels
    return F.interpolate(voxels[None], size=sides, mode="trilinear", align_corners=False)[0]


def grid_sides(scan: Scan, spacing: float) -> tuple[int, ...]:
    """The sides of `on_grid`."""
    if not spacing:
        return tuple(scan.shape)
    return tuple(max(1, round(n * mm / spacing)) for n, mm in zip(scan.shape, scan.spacing, strict=True))


def to_grid(points: Tensor, scan: Scan, spacing: float) -> Tensor:
    """(N, 3) float64 voxels of a volume as voxels of `on_grid`; voxel i reaches from i - 1/2 to i + 1/2."""
    return (points + 0.5) * _ratio(scan, spacing) - 0.5


def to_voxels(points: Tensor, scan: Scan, spacing: float) -> Tensor:
    """The inverse of `to_grid`."""
    return (points + 0.5) / _ratio(scan, spacing) - 0.5


def _ratio(scan: Scan, spacing: float) -> Tensor:
    return torch.tensor(grid_sides(scan, spacing), dtype=torch.float64) / torch.tensor(
        scan.shape, dtype=torch.float64
    )


def _nearest(point: Tensor, scan: Scan) -> Point:
    x, y, z = (min(max(round(p), 0), n - 1) for p, n in zip(point.tolist(), scan.shape, strict=True))
    return x, y, z
