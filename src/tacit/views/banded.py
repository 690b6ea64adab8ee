"""Linear maps of a batch of images in which each output pixel sees a short run of rows and columns.

Resampling is such a map, with other weights for every image. torch has no batched banded product, so
here the outputs are cut into tiles and the inputs of each tile are gathered; what remains is one dense
batched product per axis. The products of a 256 -> 224 px resampling of 32 images took 6 ms
so, gathering another 2 ms, and 39 ms with dense 224 x 256 matrices (two CPU cores).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_LARGEST = 16  # outputs per tile: of 16, 28 and 32 the fastest for 256 -> 224 px on the CPU
_UNCUT = 32  # outputs left in one tile: 256 views of 32 px take 6 instead of 8 ms so, of 96 px longer


class Band(NamedTuple):
    """Weights along one axis: output j of tile k is the sum over i of `weights[k, j, i] * x[first[k] + i]`.

    first: (B, K) int64, the first input of each of the K tiles, from 0 to inputs - taps.
    weights: (B, K, side, taps) float32.
    """

    first: Tensor
    weights: Tensor


def tile_side(size: int) -> int:
    """Outputs per tile for `size` outputs: the largest divisor from 8 to 16, or all if few or indivisible."""
    if size <= _UNCUT:
        return size
    side = max(side for side in range(1, _LARGEST + 1) if size % side == 0)
    return side if side >= _LARGEST // 2 else size


def banded_tiles(images: Tensor, rows: Band, columns: Band) -> Tensor:
    """Both axes of images mapped: (B, C, H, W) -> (B, L, K, C, side of rows, side of columns) float32.

    images: any type; computed in float32, also under autocast.
    K and L are the numbers of tiles per column and per row of the result; see `untile`.
    """
    with torch.autocast(images.device.type, enabled=False):
        if all(
            band.weights.shape[1::2] == (1, inputs)
            for band, inputs in zip((rows, columns), images.shape[2:], strict=True)
        ):
            return _dense(images, rows.weights[:, 0], columns.weights[:, 0])[:, None, None]
        tiles = _product(_product(images, rows), columns)
    return tiles.unflatten(1, (columns.first.shape[1], rows.first.shape[1], images.shape[1]))


def _dense(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """What one tile needs whole is not gathered; (B, C, t, u), in memory channel by channel."""
    batch, channels, height, width = images.shape
    wide = torch.bmm(images.reshape(batch, channels * height, width).float(), columns.mT)
    wide = wide.view(batch, channels, height, -1)
    result = wide.new_empty(channels, batch, rows.shape[1], columns.shape[1])
    for channel in range(channels):  # a broadcast product would copy the weights for every channel
        torch.bmm(rows, wide[:, channel], out=result[channel])
    return result.transpose(0, 1)


def untile(tiles: Tensor, out: Tensor | None = None) -> Tensor:
    """The images of `banded_tiles`, (B, C, K * side of rows, L * side of columns), in `out` if given."""
    batch, across, down, channels, height, width = tiles.shape
    if out is None:
        out = tiles.new_empty(batch, channels, down * height, across * width)
    cut = out.unflatten(3, (across, width)).unflatten(2, (down, height))
    cut.copy_(tiles.permute(0, 3, 2, 4, 1, 5))
    return out


def _product(x: Tensor, band: Band) -> Tensor:
    """(B, G, n, m) -> (B, K * G, m, side). The axes swap, at no cost, and so the next call maps the other."""
    batch, groups, n, m = x.shape
    tiles, side, taps = band.weights.shape[1:]
    start = torch.arange(batch * groups, device=x.device).view(batch, 1, 1, groups) * n
    runs = (band.first[:, :, None] + torch.arange(taps, device=x.device))[..., None] + start
    # uint8 images are gathered as they are: a quarter of the traffic
    inputs = x.reshape(-1, m).index_select(0, runs.flatten()).float()
    inputs = inputs.view(batch * tiles, taps, groups * m)
    product = torch.bmm(inputs.mT, band.weights.flatten(0, 1).mT)
    return product.view(batch, tiles * groups, m, side)
