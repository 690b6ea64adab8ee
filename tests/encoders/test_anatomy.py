"""The anatomical embedding: unit vectors, and places found again in the same and in shifted volumes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.encoders.anatomy import AnatomyMatcher
from tacit.errors import UsageError
from tacit.rng import Rng, seeded


def matcher(**options) -> AnatomyMatcher:
    with seeded(Rng.of(0)("matcher")):
        return AnatomyMatcher(1, 8, 4, **options).eval()


def smooth(*sides: int, seed: int = 0) -> Tensor:
    """(1, *sides) in [0, 1] with structures of a few voxels."""
    raw = torch.rand(1, 1, *sides, generator=Rng.of(seed)("volume").torch())
    raw = F.avg_pool3d(raw, 3, 1, 1)[0]
    return (raw - raw.min()) / (raw.max() - raw.min())


@pytest.mark.parametrize("coarse", ["map", "global"])
def test_maps_are_unit_vectors_on_their_grids(coarse):
    found = matcher(coarse=coarse)
    maps = found.maps(smooth(21, 16, 30))
    assert maps.fine.shape == (8, 11, 8, 15)
    assert maps.coarse.shape == ((8, 3, 2, 4) if coarse == "map" else (8, 1, 1, 1))
    assert maps.length.shape == (11, 8, 15)
    for x in maps[:2]:
        torch.testing.assert_close(x.norm(dim=0), torch.ones(x.shape[1:]))
    assert maps.nbytes == sum(4 * x.numel() for x in maps)


@pytest.mark.parametrize("coarse", ["map", "global"])
def test_a_match_is_the_greatest_of_the_slow_similarities(coarse):
    found = matcher(coarse=coarse)
    a, b = found.maps(smooth(21, 16, 30)), found.maps(smooth(18, 24, 12, seed=1))
    points = torch.tensor([[0.0, 0.0, 0.0], [20.0, 15.0, 29.0], [7.3, 9.0, 11.9]], dtype=torch.float64)
    where, score = found.match(a, points, b)
    up = [found.upsampled(m.coarse[None], m.fine.shape[1:])[0] for m in (a, b)]
    for point, place, s in zip(points, where, score, strict=True):
        x, y, z = (int(p) // 2 for p in point)
        similar = torch.einsum("d,dxyz->xyz", a.fine[:, x, y, z], b.fine)
        similar = (similar + torch.einsum("d,dxyz->xyz", up[0][:, x, y, z], up[1])) / 2
        assert s.item() == pytest.approx(similar.max().item(), abs=1e-5)
        cell = torch.stack(torch.unravel_index(similar.argmax(), similar.shape))
        torch.testing.assert_close(place, point + 2.0 * (cell - torch.tensor([x, y, z])))
        assert -1 <= s <= 1


@pytest.mark.parametrize("coarse", ["map", "global"])
def test_a_volume_finds_itself(coarse):
    found, points = matcher(coarse=coarse), torch.tensor([[3.0, 4.0, 5.0], [0, 15, 29], [20, 0, 8]])
    maps = found.maps(smooth(21, 16, 30))
    where, score = found.match(maps, points, maps)
    assert torch.equal(where, points)
    torch.testing.assert_close(score, torch.ones(3))


def test_a_shifted_volume_is_found_shifted():
    """Far from the border, by whole coarse cells: the same structures surrounded by the same air."""
    organ, points = smooth(24, 24, 24), torch.tensor([[36.0, 38.0, 41.0], [40, 37, 35], [33, 45, 39]])
    found = matcher()

    def placed(x: int, y: int, z: int) -> Tensor:
        volume = torch.zeros(1, 80, 80, 80)
        volume[:, 28 + x : 52 + x, 28 + y : 52 + y, 28 + z : 52 + z] = organ
        return volume

    a = found.maps(placed(0, 0, 0))
    for shift in ((0, 0, 0), (8, 0, -8), (0, 8, 0)):
        where, score = found.match(a, points, found.maps(placed(*shift)))
        assert torch.equal(where, points + torch.tensor(shift)), shift
        assert score.min() > 0.999


def test_wrong_arguments():
    with pytest.raises(UsageError, match="unknown coarse 'maps'; did you mean 'map'"):
        AnatomyMatcher(coarse="maps")
    with pytest.raises(UsageError, match="at least 1, not 0"):
        AnatomyMatcher(0)
