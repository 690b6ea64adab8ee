"""Pseudo-labels: hand-worked numbers, limits, who gets gradient, precision and wrong use."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses.pseudo_labels import (
    flexmatch_thresholds,
    freematch_fairness,
    freematch_thresholds,
    pseudo_label_cross_entropy,
    sharpen,
    softmatch_weights,
    uniform_alignment,
)
from tacit.rng import Rng
from tacit.views.mix import draw_lambdas, mix, partners

few = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10**6)


def draw(count: int, *shape: int, seed: int = 0, grad: bool = False) -> list[Tensor]:
    return [
        torch.randn(*shape, generator=Rng.of(seed)("test", i).torch(), dtype=torch.float64).requires_grad_(
            grad
        )
        for i in range(count)
    ]


def rows(*values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_sharpening_by_hand():
    p = rows((0.6, 0.3, 0.1))
    torch.testing.assert_close(sharpen(p, 0.5), rows((0.7826, 0.1957, 0.0217)), atol=5e-5, rtol=0)
    torch.testing.assert_close(sharpen(p, 0.5), p**2 / 0.46)
    torch.testing.assert_close(sharpen(p, 1.0), p)
    assert sharpen(p, 0.0).tolist() == [[1, 0, 0]]
    torch.testing.assert_close(sharpen(p, 0.01), rows((1, 0, 0)))
    torch.testing.assert_close(sharpen(p, 1e-300), rows((1, 0, 0)))
    torch.testing.assert_close(sharpen(p, 1e6), torch.full((1, 3), 1 / 3).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 0.5])
def test_sharpening_treats_ties_and_zeros_alike_at_every_temperature(temperature):
    p = rows((0.5, 0.5, 0.0), (0.0, 0.0, 1.0))
    torch.testing.assert_close(sharpen(p, temperature), p)


@few
@given(seeds, st.sampled_from([0.01, 0.3, 0.7, 1.0, 3.0]), st.floats(0.1, 5.0))
def test_sharpening_keeps_the_order_and_the_sum(seed, temperature, spread):
    p = (spread * draw(1, 4, 5, seed=seed)[0]).softmax(1)
    q = sharpen(p, temperature)
    torch.testing.assert_close(q.sum(1), torch.ones(4).double())
    torch.testing.assert_close(q, (p.log() / temperature).softmax(1))
    assert torch.equal(q.argmax(1), p.argmax(1))
    if temperature < 1:
        assert (q.amax(1) >= p.amax(1) - 1e-12).all()


def test_sharpening_has_a_gradient():
    (z,) = draw(1, 3, 4, grad=True)
    assert torch.autograd.gradcheck(lambda x: sharpen(x.softmax(1), 0.5), (z,))
    assert not sharpen(z.softmax(1), 0.0).requires_grad


@few
@given(seeds)
def test_mixed_guesses_are_distributions_that_the_first_dominates(seed):
    """MixMatch: rows of targets sum to 1 after mixing, and lam is at least one half."""
    q = sharpen(draw(1, 6, 4, seed=seed)[0].softmax(1), 0.5)
    labels = F.one_hot(torch.tensor([0, 3, 1]), 4).double()
    targets = torch.cat([labels, q])
    rng = Rng.of(seed)
    lam = draw_lambdas(torch.arange(9), rng("weight"), alpha=0.75)
    mixed = mix(targets, targets[partners(9, rng("partner"))], lam)
    assert mixed.shape == (9, 4)
    assert lam.min() >= 0.5
    torch.testing.assert_close(mixed.sum(1), torch.ones(9).double())
    assert (mixed >= lam[:, None] * targets - 1e-9).all()


def with_confidence(*confidences: float) -> Tensor:
    """Two-class logits whose first class has this probability."""
    return torch.stack([torch.logit(rows(confidences)[0]), torch.zeros(len(confidences))], 1)


def test_the_mean_divides_by_all_samples():
    """2 of 4 kept with a cross-entropy of 1 each: 0.5."""
    target = with_confidence(0.99, 0.6, 0.97, 0.94)
    logits = with_confidence(*[math.exp(-1)] * 4)
    loss, mask = pseudo_label_cross_entropy(logits, target, 0.95)
    assert mask.tolist() == [True, False, True, False]
    assert loss.item() == pytest.approx(0.5, abs=1e-15)


def test_nobody_sure_is_exactly_nothing():
    logits, target = draw(2, 5, 3, grad=True)
    loss, mask = pseudo_label_cross_entropy(logits, target, 1.01)
    assert loss.item() == 0
    assert not mask.any()
    assert not torch.autograd.grad(loss, logits)[0].any()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_all_sure_is_plain_cross_entropy_whatever_the_temperature(temperature):
    logits, target = draw(2, 5, 3, grad=True)
    loss, mask = pseudo_label_cross_entropy(logits, target, 0.0, temperature=temperature)
    assert mask.all()
    plain = F.cross_entropy(logits, target.argmax(1))
    assert loss.item() == pytest.approx(plain.item(), rel=1e-14)
    grads = torch.autograd.grad(loss, (logits, target), allow_unused=True)
    torch.testing.assert_close(grads[0], torch.autograd.grad(plain, logits)[0])
    assert grads[1] is None


def test_the_threshold_itself_counts():
    target = with_confidence(0.75)
    confidence = target.softmax(1).max()
    for threshold in (confidence.item(), confidence, confidence[None]):
        assert pseudo_label_cross_entropy(target, target, threshold)[1].all()
        assert not pseudo_label_cross_entropy(target, target, threshold + 1e-12)[1].any()


def test_a_threshold_per_sample():
    target = with_confidence(0.9, 0.9, 0.6)
    loss, mask = pseudo_label_cross_entropy(target, target, torch.tensor([0.95, 0.5, 0.5]))
    assert mask.tolist() == [False, True, True]
    assert loss.item() == pytest.approx(-(math.log(0.9) + math.log(0.6)) / 3)


def test_soft_targets_are_tempered_logits_and_the_threshold_is_not():
    logits, target = draw(2, 6, 4, grad=True)
    q = target.softmax(1)
    threshold = q.amax(1).sort().values[3].item()
    loss, mask = pseudo_label_cross_entropy(logits, target, threshold, temperature=0.5, hard=False)
    assert mask.sum() == 3
    assert torch.equal(mask, q.amax(1) >= threshold)
    tempered = (target / 0.5).softmax(1)
    slow = sum(-(tempered[i] * logits[i].log_softmax(0)).sum() for i in range(6) if mask[i]) / 6
    assert loss.item() == pytest.approx(slow.item(), rel=1e-13)
    assert torch.autograd.grad(loss, target, allow_unused=True)[0] is None
    # however sharp the target, 0.6 is not 0.95
    unsure = with_confidence(0.6)
    assert not pseudo_label_cross_entropy(unsure, unsure, 0.95, temperature=0.01, hard=False)[1].any()
    cold = pseudo_label_cross_entropy(logits, target, threshold, temperature=1e-3, hard=False)[0]
    assert cold.item() == pytest.approx(pseudo_label_cross_entropy(logits, target, threshold)[0].item())


def test_weights_multiply_and_get_no_gradient():
    logits, target = draw(2, 4, 3)
    weight = torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    logits.requires_grad_()
    loss, mask = pseudo_label_cross_entropy(logits, target, 0.0, weight=weight)
    each = F.cross_entropy(logits, target.argmax(1), reduction="none")
    assert loss.item() == pytest.approx((weight * each).mean().item(), rel=1e-14)
    assert mask.all()
    assert torch.autograd.grad(loss, (logits, weight), allow_unused=True)[1] is None
    none, _ = pseudo_label_cross_entropy(logits, target, 1.01, weight=weight)
    assert none.item() == 0


def test_a_network_that_is_certain_of_itself_learns_nothing():
    """Pseudo-Label: the same logits are target and prediction."""
    logits = (50 * F.one_hot(torch.tensor([0, 2, 1]), 3).double()).requires_grad_()
    loss, mask = pseudo_label_cross_entropy(logits, logits, 0.95)
    assert mask.all()
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-20
    unsure = logits.detach() / 50
    unsure.requires_grad_()
    loss, _ = pseudo_label_cross_entropy(unsure, unsure, 0.5)
    expected = (unsure.softmax(1) - F.one_hot(torch.tensor([0, 2, 1]), 3)) / 3
    torch.testing.assert_close(torch.autograd.grad(loss, unsure)[0], expected.detach())


@pytest.mark.parametrize("hard", [True, False])
def test_gradients(hard):
    logits, target = draw(2, 5, 3)
    weight = torch.tensor([0.3, 1.0, 0.5, 2.0, 0.1]).double()
    assert torch.autograd.gradcheck(
        lambda x: pseudo_label_cross_entropy(x, target, 0.5, temperature=0.7, hard=hard, weight=weight)[0],
        (logits.requires_grad_(),),
    )


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_are_computed_in_float32(half):
    logits, target = (v.to(half) for v in draw(2, 32, 5))
    weight, p = torch.rand(32, generator=Rng.of(0).torch()), target.softmax(1)
    local, histogram = torch.full((5,), 0.2), torch.tensor([0.1, 0.2, 0.3, 0.2, 0.2])

    def losses(a: Tensor, b: Tensor, q: Tensor) -> list[Tensor]:
        hard, mask = pseudo_label_cross_entropy(a, b, 0.5, weight=weight)
        soft, _ = pseudo_label_cross_entropy(a, b, 0.5, temperature=0.5, hard=False)
        fairness = freematch_fairness(a, mask, local, histogram)
        weights = softmatch_weights(q[:, 0], 0.5, 0.1)
        return [hard, soft, fairness, weights.sum(), sharpen(q, 0.5)[0, 0], uniform_alignment(q, local)[0, 0]]

    exact = losses(logits.double(), target.double(), p.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = losses(logits, target, p)
    assert {a.dtype for a in cast} == {torch.float32}
    assert [a.item() for a in cast] == pytest.approx([b.item() for b in exact], rel=1e-5)


def test_flexmatch_by_hand():
    selected = torch.tensor([0, 0, 0, 0, 1, 1, -1, -1, -1, -1])
    expected = torch.tensor([0.95, 0.3167])
    torch.testing.assert_close(flexmatch_thresholds(selected, 2, 0.95), expected, atol=5e-5, rtol=0)
    # sigma = 4, 3, 2, 1, 0: beta = 1, .75, .5, .25, 0
    selected = torch.tensor([0] * 4 + [1] * 3 + [2] * 2 + [3])
    expected = torch.tensor([0.95, 0.57, 0.3167, 0.1357, 0.0])
    torch.testing.assert_close(flexmatch_thresholds(selected, 5, 0.95), expected, atol=5e-5, rtol=0)


def test_flexmatch_warms_up():
    selected = torch.tensor([0, 0, 1] + [-1] * 8)
    beta = torch.tensor([0.25, 0.125])
    torch.testing.assert_close(flexmatch_thresholds(selected, 2, 0.9), 0.9 * beta / (2 - beta))
    cold = flexmatch_thresholds(selected, 2, 0.9, warmup=False)
    torch.testing.assert_close(cold, torch.tensor([0.9, 0.9 * 0.5 / 1.5]))


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("count", [0, 7])
def test_flexmatch_before_any_selection_lets_everything_pass(warmup, count):
    selected = torch.full((count,), -1, dtype=torch.int64)
    assert flexmatch_thresholds(selected, 3, 0.95, warmup=warmup).tolist() == [0, 0, 0]


@few
@given(st.lists(st.integers(-1, 4), max_size=30), st.booleans())
def test_flexmatch_thresholds_follow_the_counts(selected, warmup):
    levels = flexmatch_thresholds(torch.tensor(selected, dtype=torch.int64), 5, 0.95, warmup=warmup).tolist()
    counts = [selected.count(c) for c in range(5)]
    most = max([*counts, selected.count(-1)] if warmup else counts)
    expected = [0.95 * (n / most) / (2 - n / most) if most else 0.0 for n in counts]
    assert levels == pytest.approx(expected, rel=1e-6)
    assert all(0 <= level <= 0.95 + 1e-6 for level in levels)


def test_freematch_thresholds_by_hand():
    local = torch.tensor([0.5, 0.25, 0.125, 0.125])
    levels = freematch_thresholds(torch.tensor(0.8), local)
    torch.testing.assert_close(levels, torch.tensor([0.8, 0.4, 0.2, 0.2]))
    start = torch.full((4,), 0.25)
    torch.testing.assert_close(freematch_thresholds(0.25, start), start)


def slow_fairness(p: Tensor, kept: list[bool], local: list[float], histogram: list[float]) -> float:
    classes = len(local)
    mean, counts = [0.0] * classes, [0] * classes
    for row, keep in zip(p.tolist(), kept, strict=True):
        if keep:
            counts[row.index(max(row))] += 1
            mean = [m + x / sum(kept) for m, x in zip(mean, row, strict=True)]
    a = [x / h if h else 0.0 for x, h in zip(local, histogram, strict=True)]
    b = [x / (n / sum(kept)) if n else 0.0 for x, n in zip(mean, counts, strict=True)]
    a, b = [x / sum(a) for x in a], [x / sum(b) for x in b]
    return sum(x * math.log(y) for x, y in zip(a, b, strict=True) if y)


def test_freematch_fairness_by_hand():
    """local / histogram = (.8, 1.6), sums (1.7, 1.3) over counts (2, 1): (.85, 1.3)."""
    p = rows((0.8, 0.2), (0.6, 0.4), (0.3, 0.7), (0.99, 0.01))
    mask = torch.tensor([True, True, True, False])
    local, histogram = rows((0.6, 0.4))[0], rows((0.75, 0.25))[0]
    expected = (math.log(0.85 / 2.15) + 2 * math.log(1.3 / 2.15)) / 3
    assert freematch_fairness(p.log(), mask, local, histogram).item() == pytest.approx(expected, rel=1e-14)


@few
@given(seeds, st.integers(2, 6))
def test_freematch_fairness_is_the_slow_sum(seed, classes):
    logits, extra = draw(2, 12, classes, seed=seed)
    kept = (extra[:, 0] > 0).tolist()
    kept[0] = True
    local, histogram = extra[0].softmax(0), extra[1].softmax(0)
    histogram[0] = 0.0  # a class that was never predicted
    expected = slow_fairness(logits.softmax(1), kept, local.tolist(), histogram.tolist())
    loss = freematch_fairness(logits, torch.tensor(kept), local, histogram)
    assert loss.item() == pytest.approx(expected, rel=1e-11)
    assert loss.item() <= 0


def test_freematch_fairness_of_nobody_is_nothing():
    logits, even = draw(1, 4, 3, grad=True)[0], torch.full((3,), 1 / 3)
    loss = freematch_fairness(logits, torch.zeros(4, dtype=torch.bool), even, even)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()
    # nor is there a target before any class was predicted
    everyone = torch.ones(4, dtype=torch.bool)
    assert freematch_fairness(logits, everyone, even, torch.zeros(3)).item() == 0


def test_freematch_fairness_gradient():
    (logits,) = draw(1, 8, 3, grad=True)
    mask = torch.tensor([True] * 6 + [False] * 2)
    local, histogram = rows((0.5, 0.3, 0.2), (0.2, 0.2, 0.6))
    local.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: freematch_fairness(x, mask, local.detach(), histogram), (logits,)
    )
    loss = freematch_fairness(logits, mask, local, histogram)
    of_logits, of_local = torch.autograd.grad(loss, (logits, local), allow_unused=True)
    assert of_local is None
    assert of_logits[:6].abs().min() > 1e-6
    assert not of_logits[6:].any()


def test_freematch_fairness_as_printed_drives_away_from_its_target():
    """What the docstring warns of: no gradient at b = a; elsewhere a step down leads further away."""
    p = rows((0.7, 0.3), (0.4, 0.6))
    mask, histogram = torch.tensor([True, True]), rows((0.5, 0.5))[0]
    logits = p.log().requires_grad_()
    b = p.mean(0)  # (.55, .45), each class once
    (grad,) = torch.autograd.grad(freematch_fairness(logits, mask, b, histogram), logits)
    assert grad.abs().max() < 1e-15
    even = rows((0.5, 0.5))[0]
    (grad,) = torch.autograd.grad(freematch_fairness(logits, mask, even, histogram), logits)
    stepped = (logits - 0.1 * grad).softmax(1).mean(0)
    assert stepped[0] > b[0] + 1e-4


def test_softmatch_weights_by_hand():
    weights = softmatch_weights(rows((0.9, 0.7, 0.5, 0.3))[0], 0.7, 0.04, deviations=1)
    expected = [1, 1, math.exp(-0.5), math.exp(-2)]
    assert weights.tolist() == pytest.approx(expected, rel=1e-12)
    weights = softmatch_weights(rows((0.9, 0.7, 0.6, 0.5))[0], 0.7, 0.04)
    assert weights.tolist() == pytest.approx([1, 1, math.exp(-0.5), math.exp(-2)], rel=1e-12)


def test_softmatch_without_variance_is_a_threshold():
    mean, variance = torch.tensor(0.5), torch.tensor(0.0)
    confidence = torch.tensor([0.2, 0.4999, 0.5, 0.9], requires_grad=True)
    weights = softmatch_weights(confidence, mean, variance)
    assert weights.tolist() == [0, 0, 1, 1]
    assert not weights.requires_grad


@few
@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0, 1), st.floats(1e-4, 1))
def test_softmatch_weights_rise_with_confidence(confidences, mean, variance):
    weights = softmatch_weights(torch.tensor(sorted(confidences)), mean, variance)
    assert (weights.diff() >= 0).all()
    assert weights.min() >= 0
    assert weights.max() <= 1


def test_uniform_alignment_by_hand():
    """(.6, .4) / (.75, .25) = (.8, 1.6)."""
    q = rows((0.6, 0.4), (1.0, 0.0)).requires_grad_()
    aligned = uniform_alignment(q, torch.tensor([0.75, 0.25]).double())
    torch.testing.assert_close(aligned, rows((1 / 3, 2 / 3), (1.0, 0.0)))
    assert not aligned.requires_grad
    torch.testing.assert_close(uniform_alignment(q, torch.full((2,), 0.5)), q.detach())


def test_alignment_makes_the_mean_more_even_and_survives_an_empty_class():
    q = (draw(1, 200, 4)[0] + torch.tensor([2.0, 0.0, -1.0, 0.0])).softmax(1)
    aligned = uniform_alignment(q, q.mean(0))
    torch.testing.assert_close(aligned.sum(1), torch.ones(200).double())
    assert (aligned.mean(0) - 0.25).abs().max() < 0.5 * (q.mean(0) - 0.25).abs().max()
    assert uniform_alignment(q, torch.tensor([0.5, 0.5, 0.0, 0.0])).isfinite().all()


def test_wrong_use_is_named():
    z = torch.zeros(3, 2)
    for call, words in (
        (lambda: sharpen(z, -1.0), "temperature must be at least 0, got -1.0"),
        (lambda: sharpen(z, math.nan), "temperature must be at least 0"),
        (lambda: sharpen(z[0], 0.5), "must have one shape"),
        (lambda: pseudo_label_cross_entropy(z, z[:, :1], 0.5), "must have one shape"),
        (lambda: pseudo_label_cross_entropy(z[:0], z[:0], 0.5), "B at least 1"),
        (lambda: pseudo_label_cross_entropy(z, z, 0.5, temperature=0.0, hard=False), "must be above 0"),
        (lambda: pseudo_label_cross_entropy(z, z, torch.zeros(2)), r"threshold must have .* \(3,\)"),
        (lambda: pseudo_label_cross_entropy(z, z, 0.5, weight=torch.zeros(3, 1)), "weight must have"),
        (lambda: flexmatch_thresholds(torch.tensor([0, 3]), 3, 0.95), "class 3 of 3; classes go from 0 to 2"),
        (lambda: freematch_fairness(z, torch.ones(2), z[0], z[0]), "mask must have one value per sample"),
        (lambda: uniform_alignment(z, torch.zeros(3)), r"one value per class, \(2,\), got \(3,\)"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
