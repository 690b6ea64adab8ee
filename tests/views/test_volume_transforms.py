import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.volume_transforms import (
    SEVEN,
    VolumeChanges,
    bias_field,
    bias_powers,
    blur,
    coarsen,
    turn,
    two_different,
    two_views,
)

INDEX = torch.arange(64)


def volumes(count=4, shape=(9, 8, 7), channels=1, seed=0):
    return torch.rand(count, channels, *shape, generator=torch.Generator().manual_seed(seed))


def only(name, other, **strengths):
    """Every volume is changed by `name` in one view and by `other` in the other."""
    return VolumeChanges(changes=(name, other), **strengths)


def changed(x, name, **strengths):
    """All volumes as `name` alone changes them, from whichever view it is."""
    still = {"flip": 0.0} if name != "flip" else {}
    changes = only(name, "gamma" if name == "flip" else "flip", gamma=0.0, **still, **strengths)
    if name == "gamma":
        changes = only("gamma", "flip", flip=0.0, **strengths)
    index, rng = torch.arange(len(x)), Rng.of(0)
    a, b = two_views(x, index, rng, changes)
    first, _ = two_different(index, rng("which"), 2)
    return torch.where((first == 0).view(-1, 1, 1, 1, 1), a, b)


def test_the_two_transforms_always_differ_and_all_pairs_are_as_likely():
    index = torch.arange(42_000)
    first, second = two_different(index, Rng.of(0), 7)
    assert (first != second).all()
    counts = torch.bincount(first * 7 + second, minlength=49).view(7, 7)
    off = counts[~torch.eye(7, dtype=torch.bool)]
    assert off.sum() == 42_000
    assert (off - 1000).abs().max() < 5 * math.sqrt(1000)


def test_views_are_a_function_of_the_sample():
    x = volumes(12)
    index = torch.arange(12) + 5
    a, b = two_views(x, index, Rng.of(0))
    assert a.shape == b.shape == x.shape
    some = [7, 2]
    c, d = two_views(x[some], index[some], Rng.of(0))
    assert torch.allclose(a[some], c, atol=1e-5)
    assert torch.allclose(b[some], d, atol=1e-5)
    e, _ = two_views(x, index, Rng.of(1))
    assert not torch.allclose(a, e)
    assert torch.equal(x, volumes(12)), "the volumes themselves must stay"


def test_flip_reverses_the_slices_of_half_the_volumes():
    x = volumes(64)
    out = changed(x, "flip")
    flipped = torch.tensor([torch.equal(o, v.flip(-1)) for o, v in zip(out, x, strict=True)])
    same = torch.tensor([torch.equal(o, v) for o, v in zip(out, x, strict=True)])
    assert (flipped ^ same).all()
    assert 16 < flipped.sum() < 48


def test_gamma_raises_to_a_power_within_its_range():
    x = volumes(64) * 0.8 + 0.1
    power = changed(x, "gamma").log() / x.log()
    spread = power.flatten(1)
    assert torch.allclose(spread, spread[:, :1], atol=1e-4)
    assert spread.log().abs().max() <= 0.3 + 1e-4
    assert spread.log().abs().max() > 0.25


def test_noise_has_strengths_from_nothing_to_the_largest():
    x = torch.full((64, 1, 12, 12, 12), 0.5)
    std = (changed(x, "noise") - x).flatten(1).std(1)
    assert std.max() < 0.26
    assert std.max() > 0.2
    assert std.min() < 0.05
    assert std.mean() == pytest.approx(0.125, abs=0.03)


def test_a_whole_turn_of_90_degrees_moves_every_voxel():
    x = volumes(1, (6, 6, 6))
    for axis, planes in enumerate([(3, 4), (4, 2), (2, 3)]):
        degrees = torch.zeros(1, 3)
        degrees[0, axis] = 90.0
        assert torch.allclose(turn(x, degrees, torch.ones(1, 3)), x.rot90(1, planes), atol=1e-4)


def test_turns_equal_scipys_also_in_patches_that_are_no_cubes():
    x = volumes(2, (9, 12, 7))
    degrees = torch.tensor([[8.0, -5.0, 10.0], [0.0, 0.0, 0.0]])
    zoom = torch.tensor([[0.9, 1.1, 1.0], [1.0, 0.9, 1.0]])
    out = turn(x, degrees, zoom)
    for k in range(2):
        forward = np.eye(3)
        for axis in range(3):  # about the first axis first
            angle = math.radians(degrees[k, axis])
            a, b = (axis + 1) % 3, (axis + 2) % 3
            one = np.eye(3)
            one[a, a] = one[b, b] = math.cos(angle)
            one[b, a], one[a, b] = math.sin(angle), -math.sin(angle)
            forward = one @ forward
        back = np.linalg.inv(forward @ np.diag(zoom[k].numpy()))
        centre = (np.array(x.shape[2:]) - 1) / 2
        expected = affine_transform(
            x[k, 0].numpy(), back, centre - back @ centre, order=1, mode="grid-constant", cval=0.0
        )
        assert np.abs(out[k, 0].numpy() - expected).max() < 1e-4


def test_coarse_voxels_are_nearest_ones_and_linear_between_them():
    x = torch.arange(8.0).view(1, 1, 8, 1, 1)
    # 4 coarse voxels hold elements 1, 3, 5, 7; fine ones lie a quarter of a coarse one off their middles
    expected = [1, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7]
    assert coarsen(x, 2, torch.tensor([2.0])).flatten().tolist() == pytest.approx(expected)
    assert torch.equal(coarsen(x, 2, torch.tensor([1.0])), x)
    assert coarsen(x, 2, torch.tensor([100.0])).unique().numel() == 1
    y = volumes(3)
    for axis in (2, 3, 4):
        out = coarsen(y, axis, torch.tensor([1.0, 2.0, 3.0]))
        assert torch.equal(out[0], y[0])
        alone = coarsen(y[2:], axis, torch.tensor([3.0]))
        assert torch.equal(out[2:], alone)
        moved = coarsen(y.transpose(2, axis), 2, torch.tensor([1.0, 2.0, 3.0])).transpose(2, axis)
        assert torch.equal(out, moved)


def test_anisotropy_changes_one_axis_only():
    x = volumes(24, (8, 8, 8))
    out = changed(x, "anisotropy")
    kinds = set()
    for before, after in zip(x, out, strict=True):
        for axis in (1, 2, 3):
            # lines along other axes are mixed, those across keep a linear map of this axis alone
            a, b = before.movedim(axis, 0).flatten(1).double(), after.movedim(axis, 0).flatten(1).double()
            solution = torch.linalg.lstsq(a.T, b.T)
            if torch.allclose(a.T @ solution.solution, b.T, atol=1e-5):
                kinds.add(axis)
                break
        else:
            raise AssertionError("more than one axis was changed")
    assert kinds == {1, 2, 3}


def test_blur_equals_scipys():
    x = volumes(2, (10, 9, 8), channels=2)
    sigma = torch.tensor([[2.0, 0.5, 1.0], [0.0, 1.2, 0.3]])
    out = blur(x, sigma)
    for k in range(2):
        for c in range(2):
            width = sigma[k].numpy()
            expected = gaussian_filter(x[k, c].numpy().astype(np.float64), width, mode="nearest", radius=8)
            assert np.abs(out[k, c].numpy() - expected).max() < 1e-5
    assert torch.equal(blur(x, torch.zeros(2, 3)), x)


def test_the_bias_field_is_the_exponential_of_a_polynomial():
    powers = bias_powers(3)
    assert len(powers) == 20
    assert max(map(sum, powers)) == 3
    coefficients = torch.zeros(2, 20)
    coefficients[0, powers.index((0, 0, 0))] = 0.3
    coefficients[1, powers.index((2, 0, 1))] = 0.5
    field = bias_field(coefficients, powers, (5, 4, 3))
    assert torch.allclose(field[0], torch.full((5, 4, 3), math.exp(0.3)))
    x, z = torch.linspace(-1, 1, 5)[:, None, None], torch.linspace(-1, 1, 3)
    assert torch.allclose(field[1], (0.5 * x**2 * z).exp().expand(5, 4, 3))


def test_bias_brightens_smoothly_and_alike_in_all_channels():
    x = volumes(8, (8, 8, 8), channels=2) + 0.1
    ratio = changed(x, "bias") / x
    assert torch.allclose(ratio[:, 0], ratio[:, 1], atol=1e-4)
    assert ((ratio - 1).abs().flatten(1).amax(1) > 0.05).all()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"changes": ("flip",)}, "changes"),
        ({"changes": ("flip", "flip")}, "changes"),
        ({"changes": ("flip", "flop")}, "flip"),
        ({"flip": 1.5}, "flip"),
        ({"zoom": 1.0}, "zoom"),
        ({"noise": -1.0}, "noise"),
        ({"coarsen": (0.5, 2.0)}, "coarsen"),
    ],
)
def test_numbers_out_of_range_are_one_line(changes, name):
    with pytest.raises(UsageError, match=name) as error:
        VolumeChanges(**changes)
    assert "\n" not in str(error.value)


def test_all_seven_are_used_in_their_time():
    x = volumes(64)
    a, b = two_views(x, INDEX, Rng.of(3), SEVEN)
    same = sum(torch.equal(v, w) for v, w in zip(torch.cat([a, b]), torch.cat([x, x]), strict=True))
    assert same < 20  # only flips leave a volume as it is, half of a seventh
    assert torch.isfinite(a).all()
    assert torch.isfinite(b).all()
