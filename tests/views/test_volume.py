"""Views of volumes: boxes against the turned whole, crops that overlap, CutMix, what draws depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tacit.errors import UsageError
from tacit.losses.translation import overlap_ranges
from tacit.rng import Rng
from tacit.views.mix import draw_lambda
from tacit.views.volume import (
    Turn,
    apply_cutmix,
    brightness,
    cutmix_boxes,
    gaussian_noise,
    two_starts,
    uniform_noise,
)

RNG = Rng.of(0)("volumes")
few = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 10**6)
shapes = st.tuples(*[st.integers(1, 7)] * 3)
turns = st.builds(Turn, st.integers(0, 3), st.sampled_from([None, 0, 1]))


def ramp(*shape: int) -> Tensor:
    """No two voxels are alike, and none is 0."""
    return 1 + torch.arange(np.prod(shape), dtype=torch.float32).view(shape)


def read(volume: Tensor, start: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """(C, X, Y, Z) -> (C, *size), zeros outside."""
    out = torch.zeros(len(volume), *size)
    for place in np.ndindex(*size):
        at = tuple(s + p for s, p in zip(start, place, strict=True))
        if all(0 <= a < side for a, side in zip(at, volume.shape[1:], strict=True)):
            out[(slice(None), *place)] = volume[(slice(None), *at)]
    return out


# --- intensities --------------------------------------------------------------------------------------


def test_brightness_multiplies_each_sample_by_a_number_of_its_own():
    index = torch.arange(3000)
    x = torch.full((3000, 1, 2, 1, 1), 0.5)
    x[:, :, 1] = 0.9
    out = brightness(x, index, RNG)
    factor = 2 * out[:, 0, 0, 0, 0]
    assert factor.min() >= 0.75
    assert factor.max() <= 1.25
    assert factor.mean().item() == pytest.approx(1, abs=0.01)
    assert factor.std().item() == pytest.approx(0.5 / 12**0.5, abs=0.005)
    torch.testing.assert_close(out[:, 0, 1, 0, 0], (0.9 * factor).clamp(max=1))
    assert (out[:, 0, 1] == 1).any()
    # a sample's factor is its own, wherever it stands and whichever crop it is
    order = torch.tensor([7, 2, 2999])
    assert torch.equal(brightness(x[order], order, RNG), out[order])
    assert torch.equal(brightness(x, index, RNG, low=1, high=1), x)
    assert not torch.equal(brightness(x, index, RNG("other")), out)
    assert x[0, 0, 0, 0, 0] == 0.5


def test_uniform_noise():
    x = torch.full((2, 1, 40, 40, 10), 0.5)
    out = uniform_noise(x, RNG, amount=0.2, clamp=False)
    noise = out - x
    assert noise.abs().max() <= 0.2 + 1e-6
    assert noise.std().item() == pytest.approx(0.4 / 12**0.5, abs=0.002)
    assert noise.mean().item() == pytest.approx(0, abs=0.003)
    assert torch.equal(out, uniform_noise(x, RNG, amount=0.2, clamp=False))
    assert not torch.equal(out, uniform_noise(x, RNG("next"), amount=0.2, clamp=False))
    assert (x == 0.5).all()
    ends = torch.tensor([0.0, 1.0]).repeat(500)
    outside = uniform_noise(ends, RNG, amount=0.05, clamp=False)
    inside = uniform_noise(ends, RNG, amount=0.05, clamp=True)
    assert outside.min() < 0 < 1 < outside.max()
    assert torch.equal(inside, outside.clamp(0, 1))


def test_gaussian_noise():
    x = torch.full((2, 1, 40, 40, 10), 0.5)
    noise = gaussian_noise(x, RNG) - x
    assert noise.abs().max().item() == pytest.approx(0.2, abs=1e-6)
    assert (noise.abs() > 0.19999).float().mean().item() == pytest.approx(0.0455, abs=0.005)
    assert (noise.abs() < 0.1).float().mean().item() == pytest.approx(0.6827, abs=0.01)
    assert torch.equal(gaussian_noise(x, RNG), gaussian_noise(x, RNG))
    assert not torch.equal(gaussian_noise(x, RNG), gaussian_noise(x, RNG("next")))
    assert gaussian_noise(x, RNG, scale=1.0, limit=0.01).sub(x).abs().max().item() == pytest.approx(
        0.01, abs=1e-6
    )


# --- turns --------------------------------------------------------------------------------------------


def test_turns_by_hand():
    flat = torch.tensor([[1, 2, 3], [4, 5, 6]])[:, :, None]

    def turned(quarters: int, flip: int | None) -> list[list[int]]:
        return Turn(quarters, flip).apply(flat)[:, :, 0].tolist()

    assert turned(0, None) == [[1, 2, 3], [4, 5, 6]]
    assert turned(1, None) == [[3, 6], [2, 5], [1, 4]]
    assert turned(2, None) == [[6, 5, 4], [3, 2, 1]]
    assert turned(3, None) == [[4, 1], [5, 2], [6, 3]]
    assert turned(0, 0) == [[4, 5, 6], [1, 2, 3]]
    assert turned(0, 1) == [[3, 2, 1], [6, 5, 4]]
    assert turned(1, 0) == [[1, 4], [2, 5], [3, 6]]


@few
@given(turns, shapes, st.tuples(*[st.integers(-3, 6)] * 3), st.tuples(*[st.integers(1, 6)] * 3))
def test_a_box_of_the_turned_volume_is_the_turned_box(turn, shape, start, size):
    volume = ramp(2, *shape)
    whole = turn.apply(volume)
    assert tuple(whole.shape[1:]) == turn.shape(shape)
    at, sides = turn.box(start, size, shape)
    assert torch.equal(turn.apply(read(volume, at, sides)), read(whole, start, size))


def test_all_turns_are_drawn_and_each_always_flips():
    rng = np.random.default_rng(0)
    drawn = [Turn.draw(rng) for _ in range(4000)]
    counts = {turn: drawn.count(turn) for turn in set(drawn)}
    assert set(counts) == {Turn(k, flip) for k in range(4) for flip in (0, 1)}
    assert all(abs(n - 500) < 100 for n in counts.values())
    assert [Turn.draw(np.random.default_rng(5)) for _ in range(2)] == [
        Turn.draw(np.random.default_rng(5))
    ] * 2


def test_no_turn_is_no_change():
    volume = ramp(1, 2, 3, 4)
    assert torch.equal(Turn().apply(volume), volume)
    assert Turn().box((1, 2, 3), (4, 5, 6), (9, 9, 9)) == ((1, 2, 3), (4, 5, 6))
    for bad in ((4, None), (-1, 0), (0, 2)):
        with pytest.raises(UsageError, match="0 to 3 quarters"):
            Turn(*bad)


# --- two crops ----------------------------------------------------------------------------------------


def test_the_one_dimensional_example():
    line = torch.arange(10)
    main, second = overlap_ranges(torch.tensor([[5 - 3]]), [4])
    (a, b), (c, d) = main[0, 0].tolist(), second[0, 0].tolist()
    assert (a, b, c, d) == (0, 2, 2, 4)
    assert line[5:9][a:b].tolist() == line[3:7][c:d].tolist() == [5, 6]


@few
@given(seeds, shapes, st.tuples(*[st.integers(1, 6)] * 3), st.booleans(), turns)
def test_two_crops_share_voxels(seed, shape, patch, one_sided, turn):
    """Of the turned volume, as they are read: by boxes of the one that lies."""
    volume = ramp(1, *shape)
    frame = turn.shape(shape)
    starts = two_starts(frame, patch, np.random.default_rng(seed), one_sided=one_sided)
    crops = [turn.apply(read(volume, *turn.box(start, patch, shape))) for start in starts]
    ranges = overlap_ranges(torch.tensor([starts[0]]) - torch.tensor([starts[1]]), patch)
    shared = [
        crop[(slice(None), *(slice(*pair) for pair in found[0].tolist()))]
        for crop, found in zip(crops, ranges, strict=True)
    ]
    assert torch.equal(*shared)
    apart = [abs(s - t) for s, t in zip(*starts, strict=True)]
    assert shared[0].shape[1:] == tuple(p - o for p, o in zip(patch, apart, strict=True))
    assert shared[0].numel() > 0
    for side, p, s, t in zip(frame, patch, *starts, strict=True):
        if side <= p:
            assert s == t == (side - p) // 2
        else:
            assert 0 <= t <= side - p
            assert 0 <= s <= side - p
            if one_sided:
                assert t <= s < side - p
                assert t < s or s == 0 or p == 1
            else:
                assert p - abs(s - t) >= p / 2


def many(side: int, patch: int, *, one_sided: bool) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([two_starts((side,), (patch,), rng, one_sided=one_sided) for _ in range(4000)])[:, :, 0]


def test_symmetric_starts_reach_everything():
    s, t = many(20, 8, one_sided=False).T
    assert set(s) == set(t) == set(range(13))
    assert np.bincount(s).min() > 4000 / 13 * 0.75
    assert set(s - t) == set(range(-4, 5))
    assert abs((s - t).mean()) < 0.15


def test_one_sided_starts_are_those_of_the_released_code():
    s, t = many(20, 8, one_sided=True).T
    assert set(s) == set(range(12))
    assert set(t[s <= 8]) == set(range(8))
    assert (t[s == 0] == 0).all()
    # s = 11: t from 0 .. 10, and 11 - 4 for the four (0 .. 3) that are 8 or more apart
    last = t[s == 11]
    assert set(last) == set(range(4, 11))
    assert (last == 7).mean() == pytest.approx(5 / 11, abs=0.1)
    assert (s - t).max() == 7


def test_a_draw_is_a_function_of_the_generator():
    draws = [two_starts((30, 30, 30), (8, 8, 8), np.random.default_rng(k)) for k in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    with pytest.raises(UsageError, match="as many sides"):
        two_starts((3, 3), (2, 2, 2), np.random.default_rng(0))


# --- CutMix -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [("x", "y"), ("x", "y", "z"), ("z",)])
def test_cutmix_takes_a_box_from_the_partner(axes):
    patch, index = (16, 12, 8), torch.arange(6)
    x = ramp(6, 2, *patch)
    mask, permutation = cutmix_boxes(6, patch, RNG("step", 1), index, axes=axes)
    assert mask.shape == (6, 1, *patch)
    assert mask.dtype == torch.bool
    assert sorted(permutation.tolist()) == list(range(6))
    mixed = apply_cutmix(x, mask, permutation)
    for i, j in enumerate(permutation.tolist()):
        assert torch.equal(mixed[i][:, mask[i, 0]], x[j][:, mask[i, 0]])
        assert torch.equal(mixed[i][:, ~mask[i, 0]], x[i][:, ~mask[i, 0]])
    assert torch.equal(apply_cutmix(x, mask, index), x)
    for one in mask[:, 0]:
        # a box: the product of its shadows, and whole along the other axes
        shadows = one.any(2).any(1), one.any(2).any(0), one.any(1).any(0)
        assert torch.equal(one, shadows[0][:, None, None] & shadows[1][:, None] & shadows[2])
        for axis, shadow in zip("xyz", shadows, strict=True):
            assert shadow.all() or axis in axes
            assert (shadow.int().diff() != 0).sum() <= 2


def test_teacher_logits_obey_the_same_box():
    patch = (8, 8, 4)
    x, logits = torch.rand(4, 1, *patch), torch.randn(4, 3, *patch, requires_grad=True)
    mask, permutation = cutmix_boxes(4, patch, RNG("step", 3), torch.arange(4))
    both = apply_cutmix(torch.cat([x, logits], 1), mask, permutation)
    mixed = apply_cutmix(logits, mask, permutation)
    assert torch.equal(both[:, :1], apply_cutmix(x, mask, permutation))
    assert torch.equal(both[:, 1:], mixed)
    # every logit is used where its sample is kept and once more where it is a partner
    grad = torch.autograd.grad(mixed.sum(), logits)[0]
    used = (~mask).float().expand_as(logits) + mask.float().expand_as(logits)[permutation.argsort()]
    assert torch.equal(grad, used)


@pytest.mark.parametrize("axes", [("x", "y"), ("x", "y", "z")])
def test_the_size_of_boxes(axes):
    """One weight per batch: no box is larger than (1 - lam) of the patch, which is one half on average."""
    patch, most, shares = (24, 24, 24), [], []
    for step in range(200):
        rng = RNG("size", step)
        mask, _ = cutmix_boxes(8, patch, rng, torch.arange(8) + step, axes=axes)
        shares.append(mask[:, 0].flatten(1).float().mean(1))
        most.append(1 - draw_lambda(rng("weight"), alpha=4.0, fold=False))
    share, bound = torch.stack(shares), torch.stack(most)[:, None]
    assert (share <= bound + 1e-6).all()
    assert bound.mean().item() == pytest.approx(0.5, abs=0.04)
    assert 0.15 < share.mean() < 0.5
    # some boxes are not cut off; rounding to whole, even sides takes a little
    assert (share > 0.7 * bound).float().mean() > 0.1
    assert share.amax(1).unique().numel() > 8


def test_centres_and_sizes_by_formula():
    """A slow copy of the released code's arithmetic, from the same draws."""
    patch, index, rng = (20, 14, 3), torch.tensor([5, 9, 2]), RNG("formula")
    mask, _ = cutmix_boxes(3, patch, rng, index)
    lam = draw_lambda(rng("weight"), alpha=4.0, fold=False).item()
    uniform = rng("centre").uniform(index, 3)
    for i in range(3):
        expected = torch.zeros(patch, dtype=torch.bool)
        bounds = []
        for axis in (0, 1):
            side = patch[axis]
            box = int(side * (1 - lam) ** 0.5)
            centre = side // 8 + int(uniform[i, axis].item() * (side - side // 8))
            bounds.append((max(0, centre - box // 2), min(side, centre + box // 2)))
        (a, b), (c, d) = bounds
        expected[a:b, c:d] = True
        assert torch.equal(mask[i, 0], expected)


def test_a_box_depends_on_its_own_sample():
    patch, index = (16, 16, 4), torch.tensor([3, 8, 5, 11])
    mask, _ = cutmix_boxes(4, patch, RNG, index)
    again, _ = cutmix_boxes(2, patch, RNG, index[[2, 0]])
    assert torch.equal(again, mask[[2, 0]])
    assert not torch.equal(cutmix_boxes(4, patch, RNG("next"), index)[0], mask)
    orders = {tuple(cutmix_boxes(4, patch, RNG("order", k), index)[1].tolist()) for k in range(40)}
    assert len(orders) > 10


def test_wrong_use_of_cutmix():
    for axes in ((), ("x", "x"), ("x", "w")):
        with pytest.raises(UsageError, match="some of x, y and z"):
            cutmix_boxes(2, (4, 4, 4), RNG, torch.arange(2), axes=axes)
    with pytest.raises(UsageError, match="one number per sample, 2, got 3"):
        cutmix_boxes(2, (4, 4, 4), RNG, torch.arange(3))
