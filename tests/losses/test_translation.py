"""Translation consistency: overlaps against coordinates, hand-worked numbers, gradients, both variants."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tacit.errors import UsageError
from tacit.losses.translation import (
    negative_entropy,
    overlap_ranges,
    overlaps,
    translation_consistency,
)
from tacit.rng import Rng

few = settings(max_examples=40, deadline=None)
A = torch.tensor([[2.0, -1.0], [0.2, 0.4]], dtype=torch.float64).view(1, 2, 2, 1, 1)
B = torch.tensor([[0.5, 0.1], [-3.0, 0.9]], dtype=torch.float64).view(1, 2, 2, 1, 1)
NONE = torch.zeros(1, 3, dtype=torch.int64)


def maps(*shape: int, seed: int = 0, scale: float = 1.0, grad: bool = False) -> Tensor:
    made = scale * torch.randn(*shape, generator=Rng.of(seed).torch(), dtype=torch.float64)
    return made.requires_grad_(grad)


def two_crops(volume: Tensor, main: list[int], second: list[int], side: int) -> tuple[Tensor, Tensor, Tensor]:
    """(1, C, P, P, P) twice and the offset, from (C, X, Y, Z)."""

    def crop(start: list[int]) -> Tensor:
        x, y, z = (slice(s, s + side) for s in start)
        return volume[None, :, x, y, z]

    return crop(main), crop(second), torch.tensor([main]) - torch.tensor([second])


def test_the_one_dimensional_example():
    """Crops of 4 from 5 and from 3: both hold 5 and 6."""
    main, second = overlap_ranges(torch.tensor([[2]]), [4])
    assert main.tolist() == [[[0, 2]]]
    assert second.tolist() == [[[2, 4]]]
    main, second = overlap_ranges(torch.tensor([[-2], [0], [4], [-9]]), [4])
    assert main.tolist() == [[[2, 4]], [[0, 4]], [[0, 0]], [[4, 4]]]
    assert second.tolist() == [[[0, 2]], [[0, 4]], [[4, 4]], [[0, 0]]]


@few
@given(
    st.lists(st.tuples(*[st.integers(-7, 7)] * 3), min_size=1, max_size=4),
    st.tuples(*[st.integers(1, 6)] * 3),
)
def test_ranges_hold_the_same_coordinates(offsets, patch):
    main, second = overlap_ranges(torch.tensor(offsets), patch)
    for sample, offset in enumerate(offsets):
        for axis, (o, side) in enumerate(zip(offset, patch, strict=True)):
            shared = sorted(set(range(o, o + side)) & set(range(side)))
            start, stop = main[sample, axis].tolist()
            assert [o + i for i in range(start, stop)] == shared
            start, stop = second[sample, axis].tolist()
            assert list(range(start, stop)) == shared
            assert len(shared) == max(0, side - abs(o))


@few
@given(st.integers(0, 1000), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_overlaps_hold_the_same_voxels(seed, starts):
    volume = maps(2, 7, 7, 7, seed=seed)
    main, second, offset = two_crops(volume, starts[:3], starts[3:], 4)
    ((a, b),) = overlaps(main, second, offset)
    assert torch.equal(a, b)
    assert a.shape == (2, *(4 - abs(o) for o in offset[0].tolist()))


def test_the_hand_example():
    assert translation_consistency(A, B, NONE).item() == pytest.approx(0.054364, abs=5e-7)
    assert translation_consistency(A, B, NONE, compat="official").item() == pytest.approx(0.023921, abs=5e-7)
    assert negative_entropy([A[0], B[0]], clamp=True).item() == pytest.approx(-0.643658, abs=1e-6)


def slow_kl(a: Tensor, b: Tensor, axis: int) -> float:
    """Sum over all values of p log(p / q), p and q normalised along the axis; a, b without a batch."""
    total = 0.0
    for x, y in zip(
        a.movedim(axis, -1).reshape(-1, a.shape[axis]).tolist(),
        b.movedim(axis, -1).reshape(-1, a.shape[axis]).tolist(),
        strict=True,
    ):
        q, p = ([math.exp(v) / sum(map(math.exp, row)) for v in row] for row in (x, y))
        total += sum(s * math.log(s / t) for s, t in zip(p, q, strict=True))
    return total


@few
@given(
    st.integers(0, 1000),
    st.integers(2, 4),
    st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=3, max_size=3),
)
def test_both_variants_are_the_slow_sum(seed, classes, offsets):
    main, second = (maps(3, classes, 3, 2, 3, seed=seed + s, scale=2) for s in (0, 1))
    of_main, of_second = overlap_ranges(torch.tensor(offsets), (3, 2, 3))
    each, official = [], []
    for i in range(3):
        a, b = (
            one[i][(slice(None), *(slice(*pair) for pair in ranges[i].tolist()))]
            for one, ranges in ((main, of_main), (second, of_second))
        )
        if a.numel():
            each.append(slow_kl(a, b, 0) / a[0].numel())
            official.append(slow_kl(a.clamp(1e-6, 1), b.clamp(1e-6, 1), 1) / a.numel())
    offset = torch.tensor(offsets)
    expected = sum(each) / len(each) if each else 0
    assert translation_consistency(main, second, offset).item() == pytest.approx(
        expected, rel=1e-9, abs=1e-13
    )
    found = translation_consistency(main, second, offset, compat="official").item()
    assert found == pytest.approx(sum(official), rel=1e-9, abs=1e-13)


def test_the_second_crop_is_the_target():
    """KL(second || main): a main crop that is sure of the wrong class costs more than the other way round."""
    sure, unsure = A * 0 + torch.tensor([5.0, 0.0]).view(1, 2, 1, 1, 1), A * 0
    there, back = translation_consistency(sure, unsure, NONE), translation_consistency(unsure, sure, NONE)
    q = torch.tensor([5.0, 0.0]).double().softmax(0).tolist()
    assert there.item() == pytest.approx(sum(0.5 * math.log(0.5 / x) for x in q))
    assert back.item() == pytest.approx(sum(x * math.log(x / 0.5) for x in q))


@pytest.mark.parametrize("compat", [False, "official"])
def test_equal_crops_cost_nothing(compat):
    z = maps(2, 3, 4, 4, 2, grad=True)
    loss = translation_consistency(z, z * 1, torch.zeros(2, 3, dtype=torch.int64), compat=compat)
    assert abs(loss.item()) < 1e-15
    assert torch.autograd.grad(loss, z)[0].abs().max() < 1e-15


@pytest.mark.parametrize("starts", [([1, 2, 0], [0, 0, 1]), ([0, 3, 3], [3, 0, 2])])
def test_a_network_that_sees_one_voxel_is_consistent_and_one_that_sees_the_border_is_not(starts):
    volume = maps(1, 7, 7, 7)
    main, second, offset = two_crops(volume, *starts, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        point, wide = (nn.Conv3d(1, 2, k, padding=k // 2).double() for k in (1, 3))
    assert abs(translation_consistency(point(main), point(second), offset).item()) < 1e-15
    assert translation_consistency(wide(main), wide(second), offset).item() > 1e-4


@pytest.mark.parametrize("compat", [False, "official"])
def test_samples_without_overlap_are_left_out(compat):
    main, second = maps(3, 2, 3, 3, 3, grad=True), maps(3, 2, 3, 3, 3, seed=1, grad=True)
    offset = torch.tensor([[1, 0, -1], [0, 3, 0], [0, -2, 1]])
    loss = translation_consistency(main, second, offset, compat=compat)
    kept = [0, 2]
    torch.testing.assert_close(
        loss, translation_consistency(main[kept], second[kept], offset[kept], compat=compat)
    )
    for grad in torch.autograd.grad(loss, (main, second)):
        assert not grad[1].any()
        assert grad[0].any()
    nothing = translation_consistency(main, second, torch.full((3, 3), -5), compat=compat)
    assert nothing.item() == 0
    assert not torch.autograd.grad(nothing, main)[0].any()


def test_gradient_reaches_both_crops_unless_detached():
    main, second = maps(2, 3, 3, 2, 2, grad=True), maps(2, 3, 3, 2, 2, seed=1, grad=True)
    offset = torch.tensor([[1, 0, 0], [0, -1, 1]])

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return translation_consistency(a, b, offset)

    assert torch.autograd.gradcheck(loss, (main, second))
    assert all(g.any() for g in torch.autograd.grad(loss(main, second), (main, second)))
    of_main, of_second = torch.autograd.grad(
        translation_consistency(main, second, offset, detach_target=True), (main, second), allow_unused=True
    )
    assert of_second is None
    torch.testing.assert_close(of_main, torch.autograd.grad(loss(main, second), main)[0])
    # nothing outside of the overlap: along x the first sample's main crop shares its first two planes
    assert not of_main[0, :, 2].any()
    assert of_main[0, :, :2].all()


def test_the_official_variant_has_no_gradient_outside_of_its_bounds():
    main, second = maps(1, 2, 3, 2, 2, scale=2, grad=True), maps(1, 2, 3, 2, 2, seed=1, scale=2)
    loss = translation_consistency(main, second, NONE, compat="official")
    (grad,) = torch.autograd.grad(loss, main)
    outside = (main < 1e-6) | (main > 1)
    assert 0 < outside.sum() < outside.numel()
    assert not grad[outside].any()
    assert grad[~outside].all()


def test_two_spatial_axes():
    flat = translation_consistency(A[..., 0], B[..., 0], NONE[:, :2])
    assert flat.item() == translation_consistency(A, B, NONE).item()


def test_negative_entropy():
    assert negative_entropy([torch.zeros(3, 2, 2)]).item() == pytest.approx(-math.log(3))
    sure = torch.tensor([100.0, 0.0]).view(2, 1, 1, 1)
    assert negative_entropy([sure]).item() == pytest.approx(0, abs=1e-6)
    p = math.exp(1) / (1 + math.exp(1))
    most = p * math.log(p) + (1 - p) * math.log(1 - p)
    assert most == pytest.approx(-0.5822, abs=5e-5)
    assert negative_entropy([sure], clamp=True).item() == pytest.approx(most, abs=1e-5)
    # a mean of means: the small map counts as much as the large one
    large, small = torch.zeros(2, 4, 4, 4), sure
    assert negative_entropy([large, small]).item() == pytest.approx(-math.log(2) / 2, abs=1e-6)
    assert negative_entropy([]).item() == 0
    z = maps(3, 2, 2, 1, grad=True)
    assert torch.autograd.gradcheck(lambda x: negative_entropy([x, 2 * x[:, :1]]), (z,))
    # a step down raises entropy
    (grad,) = torch.autograd.grad(negative_entropy([z]), z)
    assert negative_entropy([(z - 0.1 * grad).detach()]) < negative_entropy([z])


def test_half_precision_is_computed_in_float32():
    main, second = (maps(2, 2, 3, 3, 3, seed=s).bfloat16() for s in (0, 1))
    offset = torch.tensor([[1, 0, 0], [0, 0, -1]])
    for compat in (False, "official"):
        found = translation_consistency(main, second, offset, compat=compat)
        assert found.dtype == torch.float32
        exact = translation_consistency(main.double(), second.double(), offset, compat=compat).item()
        assert found.item() == pytest.approx(exact, rel=1e-5)


def test_wrong_use():
    with pytest.raises(UsageError, match="one row of 3 numbers per sample, got"):
        overlap_ranges(torch.zeros(2, 2, dtype=torch.int64), (4, 4, 4))
    for main, second, offset in ((A, B[:, :, :1], NONE), (A, B, NONE[:0]), (A, B, NONE.expand(2, 3))):
        with pytest.raises(UsageError, match="one shape and one offset per sample"):
            translation_consistency(main, second, offset)
    with pytest.raises(UsageError, match="unknown compat 'offical'; did you mean 'official'"):
        translation_consistency(A, B, NONE, compat="offical")
