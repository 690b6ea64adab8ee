"""Banded products against dense ones."""

import pytest
import torch

from tacit.rng import Rng
from tacit.views.banded import Band, banded_product


def noise(*shape):
    return torch.rand(*shape, generator=Rng.of(0)("noise").torch())


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),  # outputs, taps
    [(9, 7, (6, 7), (7, 5)), (6, 6, (4, 6), (5, 6)), (5, 8, (11, 2), (3, 8)), (1, 1, (2, 1), (1, 1))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_banded_product_is_the_sum_it_says(height, width, rows, columns, channels):
    images = noise(2, channels, height, width).double()
    bands, matrices = [], []
    for (outputs, taps), inputs in ((rows, height), (columns, width)):
        # not the same for both images, not in order, the last place included
        first = (torch.arange(2)[:, None] * 3 + torch.arange(outputs) * 5) % (inputs - taps + 1)
        weights = noise(2, outputs, taps) - 0.3
        dense = torch.zeros(2, outputs, inputs, dtype=torch.float64)
        for b in range(2):
            for j in range(outputs):
                dense[b, j, first[b, j] : first[b, j] + taps] = weights[b, j].double()
        bands.append(Band(first, weights))
        matrices.append(dense)
    exact = torch.einsum("biy,bcyx,bjx->bcij", matrices[0], images, matrices[1])
    result = banded_product(images, *bands)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    torch.testing.assert_close(result.double(), exact, atol=1e-4, rtol=1e-5)


def test_part_of_a_band_maps_part_of_the_images():
    images, band = noise(4, 2, 6, 6), Band(torch.arange(20).view(4, 5) % 4, noise(4, 5, 3))
    whole = banded_product(images, band, band)
    some = slice(1, 3)
    assert torch.equal(banded_product(images[some], band.of(some), band.of(some)), whole[some])
