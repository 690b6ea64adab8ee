"""A small network that knows places of the body: each voxel gets a vector, the same place the same vector."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.errors import UsageError, unknown

STRIDE = 2
"""Voxels per cell of the fine map, along each axis."""
COARSE_STRIDE = 8
"""The same of the coarse map."""
Coarse = Literal["map", "global"]


class Maps(NamedTuple):
    """What an `AnatomyMatcher` keeps of one volume.

    fine: (D, x, y, z) unit vectors, one per cell of STRIDE voxels. coarse: (D, x', y', z') unit vectors.
    length: (x, y, z), how long the coarse vectors are after interpolation to the fine cells: the upsampled
        map itself would double the memory.
    """

    fine: Tensor
    coarse: Tensor
    length: Tensor

    @property
    def nbytes(self) -> int:
        """Memory of the three."""
        return sum(x.nbytes for x in self)


class AnatomyMatcher(nn.Module):
    """Self-supervised anatomical embedding, small (after SAM: Yan et al., 2022, arXiv 2012.02383).

    Two volumes on one grid of voxels (the original: 2 mm isotropic) get two maps each, and a point of one is
    found in the other as the cell x with the greatest

        sim(x) = (<f, F(x)> + <c, C(x)>) / 2

    f, F being the fine vectors, c, C the coarse ones interpolated to the fine cells and normalised again.

    The original is a ResNet-18 with a feature pyramid and 128 dimensions, its coarse map at strides of 4, 16
    and 16. Ours is three convolutions that halve the grid (kernel 4) with one more (kernel 3) at each
    resolution and a pyramid of two steps, each followed by BatchNorm: once frozen, what a cell gets depends
    only on what lies around it, and not on how much air a scan has. Vectors are centred by BatchNorm before
    they are normalised: at first they would all point one way, and at a temperature of 0.5 learn slowly to
    part. How it learns is not said here.

    channels: of the volume. dims: of a vector, 32; the original has 128. width: channels of the finest layer.
    coarse: "map" has the coarse vectors at a stride of 8; "global" one vector for the whole volume, for
        volumes so small that they show one organ: then the coarse part compares volumes, not places.

    Raises:
        UsageError: a number below 1 or an unknown word.
    """

    def __init__(self, channels: int = 1, dims: int = 32, width: int = 16, coarse: Coarse = "map") -> None:
        super().__init__()
        if min(channels, dims, width) < 1:
            raise UsageError(
                f"anatomy: channels, dims and width must be at least 1, not {channels}, {dims} and {width}"
            )
        if coarse not in get_args(Coarse):
            raise unknown("coarse", str(coarse), get_args(Coarse))
        self.coarse = coarse
        self.down = nn.ModuleList(
            [_Halve(channels, width), _Halve(width, 2 * width), _Halve(2 * width, 2 * width)]
        )
        self.across = nn.ModuleList(
            [nn.Conv3d(w, 2 * width, 1) for w in (width, 2 * width)]  # lateral connections of the pyramid
        )
        self.to_fine = _Centred(nn.Conv3d(2 * width, dims, 3, padding=1, bias=False), dims)
        self.to_coarse = _Centred(nn.Conv3d(2 * width, dims, 1, bias=False), dims)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, X, Y, Z) in [0, 1] -> fine (B, D, X/2, Y/2, Z/2) and coarse (B, D, X/8, Y/8, Z/8).

        Unit vectors. Sides are rounded up: what is missing is 0. With "global" the coarse map has one cell.
        """
        sides = x.shape[2:]
        x = F.pad(2 * x - 1, [p for n in reversed(sides) for p in (0, -n % COARSE_STRIDE)], value=-1.0)
        levels = []
        for step in self.down:
            x = step(x)
            levels.append(x)
        top = levels[-1]
        coarse = self.to_coarse(top if self.coarse == "map" else top.mean((2, 3, 4), keepdim=True))
        for level, across in zip(levels[-2::-1], reversed(list(self.across)), strict=True):
            top = F.interpolate(top, scale_factor=2, mode="nearest") + across(level)
        fine = self.to_fine(F.relu(top))
        x_, y_, z_ = (-(-n // STRIDE) for n in sides)
        return F.normalize(fine[..., :x_, :y_, :z_], dim=1), F.normalize(coarse, dim=1)

    @torch.no_grad()
    def maps(self, volume: Tensor) -> Maps:
        """(C, X, Y, Z) in [0, 1] -> what `match` needs of it."""
        fine, coarse = self(volume[None])
        return Maps(fine[0], coarse[0], self._spread(coarse, fine.shape[2:]).norm(dim=1)[0])

    @torch.no_grad()
    def match(self, query: Maps, points: Tensor, key: Maps) -> tuple[Tensor, Tensor]:
        """Where places of one volume are in another.

        query: of the volume that the points are in. points: (N, 3) voxels of the grid, need not be whole.
        key: of the volume to look in.
        Returns the points found, (N, 3), of the type of `points`, and how sure that is, (N,) in [-1, 1].

        A point keeps its place within its cell, where the released code takes the cell's centre: a point is
        then found exactly in its own volume, and in one that is shifted by whole cells (our choice).
        """
        sides = points.new_tensor(query.fine.shape[1:])
        cells = (points / STRIDE).floor().clamp_min(0).minimum(sides - 1).long()
        at = tuple(cells.T)
        fine = query.fine[(slice(None), *at)]  # (D, N)
        coarse = self._spread_at(query, cells)
        similar = torch.einsum("dn,dxyz->nxyz", fine, key.fine)
        rough = torch.einsum("dn,dxyz->nxyz", coarse, key.coarse)
        similar += self._spread(rough[None], similar.shape[1:])[0] / key.length.clamp_min(1e-6)
        score, best = (similar.flatten(1) / 2).max(1)
        found = torch.stack(torch.unravel_index(best, similar.shape[1:]), 1)
        return points + STRIDE * (found - cells).to(points.dtype), score.clamp(-1, 1)

    def upsampled(self, coarse: Tensor, sides: torch.Size) -> Tensor:
        """Coarse vectors (B, D, ...) at the fine cells (B, D, *sides), normalised again."""
        return F.normalize(self._spread(coarse, sides), dim=1)

    def _spread_at(self, maps: Maps, cells: Tensor) -> Tensor:
        """(D, N): the coarse vectors at fine cells, as `_spread` has them, without the whole map."""
        coarse = maps.coarse
        if coarse[0].numel() == 1:
            return coarse.flatten(1).expand(-1, len(cells))
        ratio = COARSE_STRIDE // STRIDE
        place = (cells + 0.5) / ratio - 0.5  # (N, 3) in coarse cells, as `interpolate` has it
        sides = torch.tensor(coarse.shape[1:])
        grid = (2 * place + 1) / sides - 1
        grid = grid.flip(1)[None, None, None].to(coarse.dtype)
        found = F.grid_sample(coarse[None], grid, padding_mode="border", align_corners=False)[0, :, 0, 0]
        return F.normalize(found, dim=0)

    def _spread(self, coarse: Tensor, sides: torch.Size) -> Tensor:
        """Trilinear from coarse cells to fine ones: (B, D, x', y', z') -> (B, D, *sides)."""
        if coarse[0, 0].numel() == 1:
            return coarse.expand(*coarse.shape[:2], *sides)
        ratio = COARSE_STRIDE // STRIDE
        x, y, z = sides
        return F.interpolate(coarse, scale_factor=ratio, mode="trilinear", align_corners=False)[
            ..., :x, :y, :z
        ]


class _Halve(nn.Sequential):
    """A convolution of kernel 4 halves the grid: cell i is centred at voxel 2 i + 1/2. Then one more."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Conv3d(before, after, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm3d(after),
            nn.ReLU(inplace=True),
            nn.Conv3d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm3d(after),
            nn.ReLU(inplace=True),
        )


class _Centred(nn.Sequential):
    """A convolution whose outputs have mean 0 and variance 1 in each dimension."""

    def __init__(self, convolution: nn.Module, dims: int) -> None:
        super().__init__(convolution, nn.BatchNorm3d(dims, affine=False))
