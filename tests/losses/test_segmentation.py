"""Losses on maps: hand-worked numbers, slow references, gradients, limits, precision and wrong use."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses.ramps import gaussian_ramp
from tacit.losses.segmentation import (
    cbc,
    confident_cross_entropy,
    crc,
    cross_pseudo_supervision,
    masked_squared_difference,
    predictive_entropy,
    pyramid_consistency,
    segmentation_loss,
    soft_dice,
    uncertainty_threshold,
)
from tacit.rng import Rng

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10**6)
spaces = st.sampled_from([(2, 3), (2, 1, 3)])


def maps(*shape: int, seed: int = 0, scale: float = 1.0, grad: bool = False) -> Tensor:
    made = scale * torch.randn(*shape, generator=Rng.of(seed).torch(), dtype=torch.float64)
    return made.requires_grad_(grad)


def masks(*shape: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, shape, generator=Rng.of(seed)("mask").torch())


def voxels(*rows: tuple[float, ...]) -> Tensor:
    """Logits (1, K, N, 1, 1) of voxels with these probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log().T[None, :, :, None, None].contiguous()


def slow_softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(x - max(logits)) for x in logits]
    return [x / sum(powers) for x in powers]


def each_voxel(x: Tensor) -> list[list[float]]:
    """(B, K, *space) -> a list of K numbers per voxel."""
    return x.detach().movedim(1, -1).reshape(-1, x.shape[1]).tolist()


def slow_confident(student: Tensor, teacher: Tensor, threshold: float, negative: float) -> float:
    sure, surely_not = [], []
    for v, u in zip(each_voxel(student), each_voxel(teacher), strict=True):
        q, p = slow_softmax(v), slow_softmax(u)
        y = p.index(max(p))
        if max(p) >= threshold:
            sure.append(-max(p) * math.log(q[y]))
        if min(p) < negative:
            others = [-math.log(max(1 - x, 1e-6)) for c, x in enumerate(q) if c != y]
            surely_not.append(min(p) * sum(others) / len(others))
    return sum(sum(terms) / len(terms) for terms in (sure, surely_not) if terms)


def slow_dice(p: Tensor, target: Tensor, classes: range) -> float:
    rows, numbers = each_voxel(p), target.flatten().tolist()
    terms = []
    for k in classes:
        shared = sum(row[k] for row, n in zip(rows, numbers, strict=True) if n == k)
        total = sum(row[k] ** 2 for row in rows) + numbers.count(k)
        terms.append(1 - (2 * shared + 1e-5) / (total + 1e-5))
    return sum(terms) / len(terms)


# --- supervised ---------------------------------------------------------------------------------------


def test_soft_dice_by_hand():
    foreground = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]], dtype=torch.float64)
    p = torch.stack([1 - foreground, foreground], 1)
    target = torch.eye(2, dtype=torch.int64)[None]
    assert soft_dice(p, target).item() == pytest.approx(0.028571, abs=1e-6)
    assert soft_dice(p, target, smooth=0).item() == pytest.approx(1 - 3.4 / 3.5, abs=1e-14)
    # of two classes the foreground alone
    assert soft_dice(p, target, background=True).item() == soft_dice(p, target).item()


@few
@given(seeds, st.integers(2, 5), spaces, st.integers(1, 3))
def test_soft_dice_is_the_slow_sum_over_the_whole_batch(seed, classes, space, batch):
    p = maps(batch, classes, *space, seed=seed, scale=3).softmax(1)
    target = masks(batch, *space, classes=classes, seed=seed)
    assert soft_dice(p, target).item() == pytest.approx(slow_dice(p, target, range(1, classes)), abs=1e-12)
    first = 1 if classes == 2 else 0
    expected = slow_dice(p, target, range(first, classes))
    assert soft_dice(p, target, background=True).item() == pytest.approx(expected, abs=1e-12)


def test_soft_dice_at_its_ends():
    target = masks(2, 4, 4, classes=3)
    right = F.one_hot(target, 3).movedim(-1, 1).double()
    assert soft_dice(right, target, background=True).item() == 0
    assert soft_dice(right, (target + 1) % 3, smooth=0).item() == 1
    nothing = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    assert soft_dice(nothing, torch.zeros(1, 3, 3, dtype=torch.int64)).item() == 0


@pytest.mark.parametrize("background", [False, True])
def test_segmentation_loss_is_half_of_each(background):
    logits, target = maps(2, 3, 4, 3, 2, grad=True), masks(2, 4, 3, 2, classes=3)
    dice = soft_dice(logits.softmax(1), target, background=background)
    expected = 0.5 * (F.cross_entropy(logits, target) + dice)
    found = segmentation_loss(logits, target, background=background)
    assert found.item() == pytest.approx(expected.item(), rel=1e-13)
    for a, b in zip(torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits), strict=True):
        torch.testing.assert_close(a, b)
    assert segmentation_loss(1000.0 * F.one_hot(target, 3).movedim(-1, 1).double(), target).item() < 1e-12


# --- confident cross-entropy --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ([(0.4, 0.6)], [(0.2, 0.8)], 0.408660),
        ([(0.4, 0.6)], [(0.05, 0.95)], 0.510826),
        ([(0.4, 0.6)], [(0.4, 0.6)], 0.0),
        ([(0.4, 0.6), (0.1, 0.9)], [(0.05, 0.95), (0.98, 0.02)], 1.406705),
        ([(0.4, 0.6), (0.4, 0.6), (0.7, 0.3)], [(0.2, 0.8), (0.05, 0.95), (0.4, 0.6)], 0.472514),
        # four classes, as the second term is meant: 0.992619 log 4 + 0.002460 * -log 0.75
        ([(0.25, 0.25, 0.25, 0.25)], [(0.002460, 0.992619, 0.002460, 0.002460)], 1.376062 + 0.000708),
    ],
)
def test_confident_cross_entropy_by_hand(student, teacher, expected):
    assert cbc(voxels(*student), voxels(*teacher)).item() == pytest.approx(expected, abs=1.5e-6)


def test_the_parts_of_the_hand_examples():
    student, teacher = voxels((0.4, 0.6), (0.1, 0.9)), voxels((0.05, 0.95), (0.98, 0.02))
    assert cbc(student, teacher, negative=0).item() == pytest.approx(1.370908, abs=1e-6)
    assert cbc(student, teacher, threshold=2).item() == pytest.approx(0.035797, abs=1e-6)
    student = voxels((0.4, 0.6), (0.4, 0.6), (0.7, 0.3))
    teacher = voxels((0.2, 0.8), (0.05, 0.95), (0.4, 0.6))
    assert cbc(student, teacher, negative=0).item() == pytest.approx((0.408660 + 0.485284) / 2, abs=1e-6)
    assert cbc(student, teacher, threshold=2).item() == pytest.approx(0.025541, abs=1e-6)


def test_four_classes_do_not_push_the_pseudo_class_down():
    """The released code for four classes gives 1.376947 here: 5 / 4 of -log 0.75 in place of 3 / 3."""
    student = torch.zeros(1, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([0.0, 6, 0, 0], dtype=torch.float64).view(1, 4, 1, 1)
    p = teacher.softmax(1)
    assert cbc(student, teacher, negative=0).item() == pytest.approx(1.376062, abs=1e-6)
    second = cbc(student, teacher, threshold=2)
    assert second.item() == pytest.approx(p.min().item() * -math.log(0.75), rel=1e-12)
    assert 1.376062 + 5 / 4 * second.item() == pytest.approx(1.376947, abs=1e-6)
    grad = torch.autograd.grad(second, student)[0].flatten()
    assert grad[1] < 0
    assert (grad[[0, 2, 3]] > 0).all()


@few
@given(seeds, st.integers(2, 5), spaces, st.sampled_from([0.5, 2.0, 5.0]), st.booleans())
def test_confident_cross_entropy_is_the_slow_sum(seed, classes, space, scale, second_only):
    student = maps(2, classes, *space, seed=seed, scale=scale)
    teacher = maps(2, classes, *space, seed=seed + 1, scale=scale)
    threshold = 2.0 if second_only else 0.65
    expected = slow_confident(student, teacher, threshold, 0.1)
    found = confident_cross_entropy(student, teacher, threshold=threshold)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_two_classes_are_the_general_form():
    """A third class that nobody believes in changes nothing but min p, which then is 0."""
    student, teacher = maps(2, 2, 5, 4, scale=2), maps(2, 2, 5, 4, seed=1, scale=2)
    nobody = torch.full((2, 1, 5, 4), -60.0, dtype=torch.float64)
    three = cbc(torch.cat([student, nobody], 1), torch.cat([teacher, nobody], 1))
    assert three.item() == pytest.approx(cbc(student, teacher, negative=0).item(), rel=1e-12)


def test_the_sets_at_their_bounds():
    """Exactly at the threshold is sure; exactly at `negative` is not in the second set."""
    uniform, student = torch.zeros(1, 2, 1, 1, dtype=torch.float64), voxels((0.3, 0.7))[..., 0]
    assert cbc(student, uniform, threshold=0.5, negative=0.5).item() == pytest.approx(-0.5 * math.log(0.3))
    assert cbc(student, uniform, threshold=math.nextafter(0.5, 1), negative=0.5).item() == 0
    both = cbc(student, uniform, threshold=0.5, negative=math.nextafter(0.5, 1)).item()
    assert both == pytest.approx(-math.log(0.3))

    lead = torch.tensor(math.log(0.65 / 0.35), dtype=torch.float64)
    while lead.sigmoid() < 0.65:
        lead = torch.nextafter(lead, torch.tensor(9.0, dtype=torch.float64))
    while lead.sigmoid() > 0.65:
        lead = torch.nextafter(lead, torch.tensor(0.0, dtype=torch.float64))
    assert lead.sigmoid().item() == 0.65
    teacher = torch.stack([torch.zeros_like(lead), lead]).view(1, 2, 1, 1)
    assert cbc(student, teacher).item() == pytest.approx(-0.65 * math.log(0.7))
    assert cbc(student, teacher, threshold=math.nextafter(0.65, 1)).item() == 0

    teacher = voxels((0.1, 0.9))[..., 0]
    least = (teacher[0, 0] - teacher[0, 1]).sigmoid().item()
    without = cbc(student, teacher, negative=least).item()
    assert without == pytest.approx(-0.9 * math.log(0.7))
    assert cbc(student, teacher, negative=math.nextafter(least, 1)).item() == pytest.approx(-math.log(0.7))
    assert cbc(maps(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), threshold=0.4, negative=1 / 3).item() == 0


@pytest.mark.parametrize("classes", [2, 3])
def test_empty_sets_give_0_with_a_gradient_of_0(classes):
    student = maps(2, classes, 3, 3, grad=True)
    loss = cbc(student, torch.zeros(2, classes, 3, 3, dtype=torch.float64))
    assert loss.item() == 0
    (grad,) = torch.autograd.grad(loss, student)
    assert grad.shape == student.shape
    assert not grad.any()


@pytest.mark.parametrize("classes", [2, 4])
def test_the_gradient_is_that_of_weighted_cross_entropy_and_none_reaches_the_teacher(classes):
    student, teacher = maps(2, classes, 4, 3, grad=True), maps(2, classes, 4, 3, seed=1, scale=2, grad=True)
    loss = cbc(student, teacher, negative=0)
    grad, of_teacher = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    assert of_teacher is None
    most, y = teacher.detach().softmax(1).max(1, keepdim=True)
    sure = most >= 0.65
    assert 0 < sure.sum() < sure.numel()
    onehot = torch.zeros_like(student).scatter(1, y, 1.0)
    expected = most * (student.softmax(1) - onehot) * sure / sure.sum()
    torch.testing.assert_close(grad, expected.detach())
    assert not grad[(~sure).expand_as(grad)].any()


def test_a_teacher_that_is_sure_everywhere_gives_cross_pseudo_supervision():
    for classes in (2, 4):
        student, teacher = maps(2, classes, 4, 3), maps(2, classes, 4, 3, seed=1)
        hard = 1e4 * F.one_hot(teacher.argmax(1), classes).movedim(-1, 1).double()
        found = cbc(student, hard, threshold=0, negative=0)
        assert found.item() == pytest.approx(F.cross_entropy(student, teacher.argmax(1)).item(), rel=1e-12)
        assert found.item() == pytest.approx(cross_pseudo_supervision(student, teacher).item(), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_gradients_of_confident_cross_entropy(classes):
    teacher = maps(2, classes, 3, 2, seed=1, scale=3)
    student = maps(2, classes, 3, 2, grad=True)
    assert cbc(student, teacher, threshold=2).item() > 0
    assert torch.autograd.gradcheck(lambda v: confident_cross_entropy(v, teacher), (student,))


@pytest.mark.parametrize("classes", [2, 3])
def test_far_logits_stay_finite(classes):
    student = torch.zeros(1, classes, 1, 2)
    student[0, 0, 0] = torch.tensor([2000.0, -2000.0])
    student.requires_grad_()
    teacher = torch.zeros(1, classes, 1, 2)
    teacher[0, 1] = 30.0
    loss = cbc(student, teacher)
    assert loss.item() == pytest.approx(1000.0 if classes == 2 else (2000 + math.log(2)) / 2, rel=1e-6)
    assert torch.autograd.grad(loss, student)[0].isfinite().all()
    # the second term ends at -log 1e-6
    bounded = cbc(student, teacher / 10, threshold=2).item()
    least = (teacher / 10).softmax(1).amin().item()
    worst = -math.log(1e-6) / (classes - 1)
    rest = 0.0 if classes == 2 else math.log(2) / 2
    assert bounded == pytest.approx(least * (worst + rest) / 2, rel=1e-4)


def test_two_names_of_one_loss():
    assert cbc is confident_cross_entropy
    assert crc is confident_cross_entropy


# --- cross pseudo supervision -------------------------------------------------------------------------


def test_cross_pseudo_supervision():
    assert cross_pseudo_supervision(voxels((0.4, 0.6)), voxels((0.3, 0.7))).item() == pytest.approx(
        0.510826, abs=1e-6
    )
    one, two = maps(2, 3, 4, 3, grad=True), maps(2, 3, 4, 3, seed=1, grad=True)
    loss = cross_pseudo_supervision(one, two)
    grad, of_teacher = torch.autograd.grad(loss, (one, two), allow_unused=True)
    assert of_teacher is None
    assert grad.abs().sum() > 0
    own = cross_pseudo_supervision(one, one)
    assert own.item() == pytest.approx(F.cross_entropy(one, one.argmax(1)).item())
    assert torch.autograd.grad(own, one)[0].abs().sum() > 0
    assert torch.autograd.gradcheck(lambda v: cross_pseudo_supervision(v, two), (one,))


# --- Mean Teacher and UA-MT ---------------------------------------------------------------------------


def test_uamt_by_hand():
    student, teacher = voxels((0.7, 0.3)), voxels((0.9, 0.1))
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    assert masked_squared_difference(student, teacher, mask).item() == pytest.approx(0.04, abs=1e-12)
    assert masked_squared_difference(student, teacher).item() == pytest.approx(0.04, abs=1e-12)
    student.requires_grad_()
    nothing = masked_squared_difference(student, teacher, ~mask)
    assert nothing.item() == 0
    assert not torch.autograd.grad(nothing, student)[0].any()


@few
@given(seeds, st.integers(2, 4), spaces)
def test_masked_squared_difference_is_the_mean_over_kept_voxels(seed, classes, space):
    a, b = maps(2, classes, *space, seed=seed), maps(2, classes, *space, seed=seed + 1)
    kept = masks(2, *space, classes=2, seed=seed).bool()
    terms = [
        sum((x - y) ** 2 for x, y in zip(slow_softmax(v), slow_softmax(u), strict=True)) / classes
        for v, u, m in zip(each_voxel(a), each_voxel(b), kept.flatten().tolist(), strict=True)
        if m
    ]
    expected = sum(terms) / len(terms) if terms else 0.0
    assert masked_squared_difference(a, b, kept).item() == pytest.approx(expected, abs=1e-13)
    everywhere = torch.ones_like(kept)
    torch.testing.assert_close(
        masked_squared_difference(a, b), masked_squared_difference(a, b, everywhere), rtol=1e-12, atol=0
    )
    assert masked_squared_difference(a, a).item() == 0


def test_masked_squared_difference_has_no_gradient_to_the_teacher():
    a, b = maps(1, 3, 2, 2, grad=True), maps(1, 3, 2, 2, seed=1, grad=True)
    mask = torch.tensor([[[True, False], [True, True]]])
    loss = masked_squared_difference(a, b, mask)
    grad, of_teacher = torch.autograd.grad(loss, (a, b), allow_unused=True)
    assert of_teacher is None
    assert not grad[0, :, 0, 1].any()
    assert grad[0, :, 1].abs().min() > 0
    assert torch.autograd.gradcheck(lambda v: masked_squared_difference(v, b, mask), (a,))


def test_uncertainty_by_hand():
    uniform = torch.full((1, 2, 1, 1), 0.5)
    assert predictive_entropy(uniform).item() == pytest.approx(0.693145, abs=5e-7)
    assert predictive_entropy(uniform.double()).item() == pytest.approx(math.log(2) - 2e-6, abs=1e-11)
    # masked out until the threshold has climbed to within 2e-6 of log 2
    entropy = predictive_entropy(uniform)
    assert not (entropy < uncertainty_threshold(0.99)).any()
    assert (entropy < uncertainty_threshold(1.0)).all()
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).view(1, 3, 1, 1)
    expected = -sum(x * math.log(x + 1e-6) for x in (0.5, 0.3, 0.2))
    assert predictive_entropy(p).item() == pytest.approx(expected, abs=1e-14)
    assert predictive_entropy(p.expand(2, 3, 4, 5)).shape == (2, 4, 5)


def test_uncertainty_threshold_by_hand():
    assert uncertainty_threshold(0.0) == pytest.approx(0.52103, abs=5e-6)
    assert uncertainty_threshold(0.5) == pytest.approx(0.56951, abs=5e-6)
    assert uncertainty_threshold(1.0) == pytest.approx(0.69315, abs=5e-6)
    for classes in (3, 4):
        ratio = uncertainty_threshold(0.3, classes) / uncertainty_threshold(0.3)
        assert ratio == pytest.approx(math.log(classes) / math.log(2))
    # of two classes, the least of the largest probabilities that are kept if the threshold were 0.75 log 2
    for p, kept in ((0.7856, True), (0.7854, False)):
        pair = torch.tensor([p, 1 - p], dtype=torch.float64).view(1, 2, 1, 1)
        assert (predictive_entropy(pair) < 0.75 * math.log(2)).item() is kept


# --- URPC ---------------------------------------------------------------------------------------------


def test_pyramid_consistency_by_hand():
    heads = [voxels((1 - p, p)) for p in (0.6, 0.7, 0.8, 0.9)]
    assert pyramid_consistency(heads).item() == pytest.approx(0.051434, abs=1e-6)


@few
@given(seeds, st.integers(2, 4), spaces, st.integers(1, 4))
def test_pyramid_consistency_is_the_slow_sum(seed, classes, space, scales):
    heads = [maps(2, classes, *space, seed=seed + s, scale=2) for s in range(scales)]
    rows = [[slow_softmax(row) for row in each_voxel(head)] for head in heads]
    voxel_count = len(rows[0])
    means = [
        [sum(rows[s][i][c] for s in range(scales)) / scales for c in range(classes)]
        for i in range(voxel_count)
    ]
    losses = []
    for p in rows:
        apart = [
            sum(m * math.log(m / x) for m, x in zip(means[i], p[i], strict=True)) for i in range(voxel_count)
        ]
        weights = [math.exp(-v) for v in apart]
        squared = [
            (means[i][c] - p[i][c]) ** 2 * weights[i] for i, c in product(range(voxel_count), range(classes))
        ]
        mean_weight = sum(weights) / voxel_count
        losses.append(sum(squared) / len(squared) / (mean_weight + 1e-8) + sum(apart) / voxel_count)
    assert pyramid_consistency(heads).item() == pytest.approx(sum(losses) / scales, rel=1e-9, abs=1e-12)


def test_pyramid_consistency_of_equal_heads_and_its_gradient():
    head = maps(1, 3, 2, 2)
    assert abs(pyramid_consistency([head] * 4).item()) < 1e-14
    heads = [maps(1, 3, 2, 2, seed=s, grad=True) for s in range(3)]
    assert torch.autograd.gradcheck(lambda *h: pyramid_consistency(h), heads)
    assert all(g.abs().min() > 0 for g in torch.autograd.grad(pyramid_consistency(heads), heads))


# --- ramps --------------------------------------------------------------------------------------------


def test_ramps_of_segmentation():
    """TraCoCo's, in iterations of 8 per epoch and 40 epochs; and 0.1 times that of Mean Teacher and UA-MT."""
    for step, weight in ((1, 0.00695), (80, 0.06005), (160, 0.28650), (320, 1.0), (9000, 1.0)):
        assert gaussian_ramp(step, 320, zero_start=True) == pytest.approx(weight, abs=5e-6)
    assert gaussian_ramp(0, 320, zero_start=True) == 0.0
    assert gaussian_ramp(0, 0, zero_start=True) == 1.0
    for epoch, weight in ((0, 0.00067379), (20, 0.0286505), (40, 0.1), (60, 0.1)):
        assert 0.1 * gaussian_ramp(epoch, 40) == pytest.approx(weight, abs=5e-8)


# --- precision and wrong use --------------------------------------------------------------------------


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [2, 3])
def test_half_precision_and_autocast_are_computed_in_float32(half, classes):
    a, b = (maps(2, classes, 4, 3, 2, seed=s, scale=2).to(half) for s in (0, 1))
    target = masks(2, 4, 3, 2, classes=classes)

    def losses(a: Tensor, b: Tensor) -> list[Tensor]:
        return [
            segmentation_loss(a, target),
            cbc(a, b),
            cross_pseudo_supervision(a, b),
            masked_squared_difference(a, b, target > 0),
            predictive_entropy(a.float().softmax(1) if a.dtype == half else a.softmax(1)).mean(),
            pyramid_consistency([a, b]),
        ]

    exact = losses(a.double(), b.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = losses(a, b)
    for x, y in zip(cast, exact, strict=True):
        assert x.dtype == torch.float32
        assert y.dtype == torch.float64
        assert x.item() == pytest.approx(y.item(), rel=2e-5)


def test_shapes_that_do_not_fit_are_named():
    good, target = maps(2, 3, 4, 5), masks(2, 4, 5, classes=3)
    for bad in (maps(2, 1, 4, 5), maps(2, 3, 4), maps(0, 3, 4, 5), maps(2, 3, 1, 1, 1, 1)):
        for loss in (soft_dice, segmentation_loss, cbc, cross_pseudo_supervision, masked_squared_difference):
            with pytest.raises(UsageError, match=r"maps must be \(B, K, \*space\)"):
                loss(bad, bad)
        with pytest.raises(UsageError, match=r"maps must be"):
            predictive_entropy(bad)
        with pytest.raises(UsageError, match=r"maps must be"):
            pyramid_consistency([bad])
    for loss in (cbc, cross_pseudo_supervision, masked_squared_difference):
        with pytest.raises(UsageError, match=r"one shape, got \(2, 3, 4, 5\) and \(2, 3, 4, 4\)"):
            loss(good, good[..., :4])
    for loss in (soft_dice, segmentation_loss):
        with pytest.raises(UsageError, match=r"target must have one value per voxel, \(2, 4, 5\), got"):
            loss(good, target[:1])
    with pytest.raises(UsageError, match="mask must have one value per voxel"):
        masked_squared_difference(good, good, target[:, None] > 0)
    with pytest.raises(UsageError, match="at least one scale"):
        pyramid_consistency([])
    with pytest.raises(UsageError, match="must be at least 2"):
        uncertainty_threshold(0.5, 1)
