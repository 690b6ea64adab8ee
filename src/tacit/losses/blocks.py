"""Log-sums of exponentials over all pairs of rows, tile by tile: exact, in memory linear in the rows.

The matrix of inner products is visited in tiles that stay in the processor's cache: a tile is summed and
dropped, and backward computes it again. Matrices of up to `KEEP` entries keep their tiles for backward
instead. Both ways do the same arithmetic in the same order.

Written by hand because autograd keeps several matrices of (N, N), in whatever order the sum is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

KEEP = 2**24
"""Entries of a matrix up to which backward finds the tiles of forward (N = 2048 in a batch of pairs: 32 MiB,
as half of a symmetric matrix is enough). Computing them again makes a loss slower by 1.35 at N = 256 and
2048 (one core, D = 128); the limit is what a training step never notices."""

TILE = 384
"""Longest side of a tile on a CPU. From 256 to 1024 times differ by less than 10 % (N = 2048 and 8192, one
core); this one cuts the matrix of N = 256 in two, so that its symmetry counts."""

TILE_ELSEWHERE = 4096
"""Longest side of a tile on other devices: 64 MiB in float32. Not measured."""

_SEARCH = 2**22
"""Entries of the part of a matrix that `largest_product` holds."""

_LOG2_E = math.log2(math.e)


def pair_terms(z: Tensor, temperature: float, longest: float = 1.0) -> tuple[Tensor, Tensor]:
    """The positive logit <a_i, b_i> / temperature of each pair, and log S of each row over other pairs' rows.

    z: (2N, D), all a_i, then all b_i; float32 or float64. longest: largest length of a row.
    Returns (N,) and (2N,); log S is -inf where N = 1. Once differentiable.

    The matrix is symmetric: only tiles on and above its diagonal are computed. Its entries are bounded, so
    exponentials are summed as they are, without a maximum of each row; where they could leave the range
    of their type, `log_negatives` takes over.
    """
    n = len(z) // 2
    if longest**2 / temperature <= math.log(torch.finfo(z.dtype).max) / 2:
        positive, negatives = _Pairs.apply(z, temperature, _keeps(len(z) ** 2, z))
        return positive, negatives
    positive = (z[:n] * z[n:]).sum(1) / temperature
    return positive, log_negatives(z, z, temperature, (0, n, -n))


def log_negatives(x: Tensor, y: Tensor, temperature: float, skip: tuple[int, ...] = ()) -> Tensor:
    """log sum_j exp(<x_i, y_j> / temperature) of each row i of x, over all j but i + s for s in `skip`.

    x: (N, D), float32 or float64. y: (M, D) of the same type.
    Returns (N,), -inf where no row is left. Exact whatever the temperature and the lengths of the rows,
    as each row has its own running maximum. Once differentiable; no work is done for the gradient of a
    side that needs none.
    """
    return _Rows.apply(x, y, temperature, skip, _keeps(len(x) * len(y), x, y))


@torch.no_grad()
def largest_product(x: Tensor, y: Tensor) -> Tensor:
    """For each row of x (N, D) the index of the row of y (M, D) with the largest inner product, (N,)."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.cat([(part @ y.T).argmax(1) for part in x.split(max(1, _SEARCH // len(y)))])


class _Pairs(torch.autograd.Function):
    """p and log S from the triangle of E = exp(logits).

    With the gradient g of log S, W_ij = E_ij (g_i / S_i + g_j / S_j) is symmetric, too, and log S sends
    back W z / temperature.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float, keep: bool) -> tuple[Tensor, Tensor]:
        n = len(z) // 2
        tiles = _Tiles(z, z, temperature, (0, n, -n))
        buffer = None if keep else tiles.buffer()
        sums, kept = z.new_zeros(2 * n), []
        for rows, columns in tiles.on_and_above_the_diagonal():
            e = tiles.logits(rows, columns, buffer).exp2_()
            sums[rows] += e.sum(1)
            if rows != columns:
                sums[columns] += e.sum(0)
            if keep:
                kept.append(e)
        ctx.temperature = temperature
        ctx.save_for_backward(z, sums, *kept)
        return (z[:n] * z[n:]).sum(1) / temperature, sums.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_positive: Tensor, grad_negatives: Tensor) -> tuple[Tensor | None, ...]:
        z, sums, *kept = ctx.saved_tensors
        n, scale = len(z) // 2, 1 / ctx.temperature
        tiles = _Tiles(z, z, ctx.temperature, (0, n, -n))
        buffer, spare = None if kept else tiles.buffer(), tiles.buffer()
        # The sum of a row without negatives is 0, and 0 / 0 would spread.
        share = grad_negatives / sums.clamp_min(torch.finfo(z.dtype).tiny)
        grad = torch.cat([z[n:], z[:n]]).mul_((grad_positive * scale).repeat(2)[:, None])
        for i, (rows, columns) in enumerate(tiles.on_and_above_the_diagonal()):
            e = kept[i] if kept else tiles.logits(rows, columns, buffer).exp2_()
            w = torch.add(share[rows, None], share[columns], out=_like(e, spare)).mul_(e)
            grad[rows].addmm_(w, z[columns], alpha=scale)
            if rows != columns:
                grad[columns].addmm_(w.T, z[rows], alpha=scale)
        return grad, None, None


class _Rows(torch.autograd.Function):
    """log S of rows; with P_ij = g_i exp(logit_ij - log S_i) / temperature, it sends back P y and P^T x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, temperature: float, skip: tuple[int, ...], keep: bool
    ) -> Tensor:
        tiles = _Tiles(x, y, temperature, skip)
        buffer, spare = None if keep else tiles.buffer(), tiles.buffer()
        # Not -inf: a tile may have nothing but left out entries, and -inf - -inf is not a number.
        lowest = torch.finfo(x.dtype).min
        top, sums, kept = x.new_full((len(x), 1), lowest), x.new_zeros(len(x), 1), []
        for rows, columns in tiles.all():
            logits = tiles.logits(rows, columns, buffer)
            new = torch.maximum(top[rows], logits.amax(1, keepdim=True))
            e = torch.sub(logits, new, out=_like(logits, spare)).exp2_()
            sums[rows] = sums[rows] * (top[rows] - new).exp2_() + e.sum(1, keepdim=True)
            top[rows] = new
            if keep:
                kept.append(logits)
        total = sums.log2() + top
        ctx.temperature, ctx.skip = temperature, skip
        ctx.save_for_backward(x, y, total.clamp_min(lowest), *kept)
        return (total / _LOG2_E).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, total, *kept = ctx.saved_tensors
        tiles = _Tiles(x, y, ctx.temperature, ctx.skip)
        buffer, spare = None if kept else tiles.buffer(), tiles.buffer()
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        grad_y = torch.zeros_like(y) if ctx.needs_input_grad[1] else None
        grad = grad[:, None] / ctx.temperature
        for i, (rows, columns) in enumerate(tiles.all()):
            logits = kept[i] if kept else tiles.logits(rows, columns, buffer)
            p = torch.sub(logits, total[rows], out=_like(logits, spare)).exp2_()
            p.mul_(grad[rows])
            if grad_x is not None:
                grad_x[rows].addmm_(p, y[columns])
            if grad_y is not None:
                grad_y[columns].addmm_(p.T, x[rows])
        return grad_x, grad_y, None, None, None


class _Tiles:
    """The tiles of the (N, M) matrix <x_i, y_j> / temperature, in units of log 2.

    Those units because exp2 takes half the time of exp (0.38 and 0.68 ns an entry on two CPU cores).
    All matrix products write in place: those are left alone by autocast.
    """

    def __init__(self, x: Tensor, y: Tensor, temperature: float, skip: tuple[int, ...]) -> None:
        self.x, self.y, self.skip = x, y, skip
        self.scale = _LOG2_E / temperature
        self.longest = TILE if x.device.type == "cpu" else TILE_ELSEWHERE

    def all(self) -> Iterator[tuple[slice, slice]]:
        for rows in self._cut(len(self.x)):
            for columns in self._cut(len(self.y)):
                yield rows, columns

    def on_and_above_the_diagonal(self) -> Iterator[tuple[slice, slice]]:
        return ((rows, columns) for rows, columns in self.all() if rows.start <= columns.start)

    def buffer(self) -> Tensor:
        """Memory for one tile."""
        return self.x.new_empty(self._side(len(self.x)) * self._side(len(self.y)))

    def logits(self, rows: slice, columns: slice, buffer: Tensor | None) -> Tensor:
        """One tile, in the buffer if there is one; what is left out is -inf."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        tile = self.x.new_empty(shape) if buffer is None else buffer[: math.prod(shape)].view(shape)
        tile.addmm_(self.x[rows], self.y[columns].T, beta=0, alpha=self.scale)
        for shift in self.skip:
            offset = rows.start + shift - columns.start
            if -shape[0] < offset < shape[1]:
                tile.diagonal(offset).fill_(-torch.inf)
        return tile

    def _side(self, length: int) -> int:
        return math.ceil(length / max(1, math.ceil(length / self.longest)))

    def _cut(self, length: int) -> list[slice]:
        side = self._side(length)
        return [slice(start, min(start + side, length)) for start in range(0, length, side)]


def _like(tile: Tensor, buffer: Tensor) -> Tensor:
    return buffer[: tile.numel()].view_as(tile)


def _keeps(entries: int, *inputs: Tensor) -> bool:
    return entries <= KEEP and torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
