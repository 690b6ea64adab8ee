"""Banded products against dense ones."""

import pytest
import torch

from tacit.rng import Rng
from tacit.views.banded import Band, banded_tiles, tile_side, untile


def noise(*shape):
    return torch.rand(*shape, generator=Rng.of(0)("noise").torch())


def test_tiles_divide_the_size():
    assert {size: tile_side(size) for size in (1, 32, 64, 96, 97, 224, 150)} == {
        1: 1, 32: 32, 64: 16, 96: 16, 97: 97, 224: 16, 150: 15
    }  # fmt: skip


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"), [(9, 7, (2, 3), (1, 7)), (6, 6, (1, 4), (1, 5))]
)
def test_banded_product_is_the_sum_it_says(height, width, rows, columns):
    images = noise(2, 3, height, width).double()
    bands, matrices = [], []
    for (tiles, side), inputs in ((rows, height), (columns, width)):
        taps = inputs if tiles == 1 and inputs == 6 else inputs - 2
        first = torch.arange(2)[:, None] + torch.arange(tiles)
        first = first.clamp(max=inputs - taps)
        weights = noise(2, tiles, side, taps)
        dense = torch.zeros(2, tiles * side, inputs, dtype=torch.float64)
        for b in range(2):
            for k in range(tiles):
                start = first[b, k]
                dense[b, k * side : (k + 1) * side, start : start + taps] = weights[b, k].double()
        bands.append(Band(first, weights))
        matrices.append(dense)
    exact = torch.einsum("biy,bcyx,bjx->bcij", matrices[0], images, matrices[1])
    torch.testing.assert_close(untile(banded_tiles(images, *bands)).double(), exact, atol=1e-4, rtol=1e-5)
