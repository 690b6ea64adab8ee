"""Mixing: the distribution of weights, whose draw depends on what, and what is mixed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.mix import draw_lambda, draw_lambdas, mix, partners

RNG = Rng.of(0)("mixing")
MANY = torch.arange(300_000)


def test_statistics_of_folded_weights():
    """Beta(.75, .75), folded: the numbers of Semixup."""
    lam = draw_lambdas(MANY, RNG, alpha=0.75)
    assert lam.dtype == torch.float32
    assert lam.min() >= 0.5
    assert lam.max() <= 1
    assert lam.mean().item() == pytest.approx(0.778, abs=0.0015)
    assert (lam < 0.55).float().mean().item() == pytest.approx(0.083, abs=0.0025)
    assert (lam < 0.70).float().mean().item() == pytest.approx(0.339, abs=0.0035)
    for floor, mean in ((0.55, 0.780), (0.70, 0.812)):
        floored = draw_lambdas(MANY, RNG, alpha=0.75, floor=floor)
        assert floored.mean().item() == pytest.approx(mean, abs=0.0015)
        torch.testing.assert_close(floored, lam.clamp_min(floor), rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.75, 1.0, 2.0, 30.0])
def test_unfolded_weights_have_the_beta_distribution(alpha):
    lam = draw_lambdas(MANY[:20_000], RNG, alpha=alpha, fold=False).double()
    # away from 0 and 1, which float32 cannot tell from their neighbours
    inner = (lam > 1e-6) & (lam < 1 - 1e-6)
    law = stats.beta(alpha, alpha)
    low, high = law.cdf(1e-6), law.cdf(1 - 1e-6)
    assert inner.double().mean().item() == pytest.approx(high - low, abs=0.015)
    test = stats.kstest(lam[inner], lambda x: (law.cdf(x) - low) / (high - low))
    assert test.pvalue > 0.001
    folded = draw_lambdas(MANY[:20_000], RNG, alpha=alpha).double()
    torch.testing.assert_close(folded, torch.maximum(lam, 1 - lam), rtol=0, atol=1e-7)


def test_uniform_weights_are_the_middles_of_cells():
    """Odd multiples of 2^-25, so that neither end is favoured; float32 holds them below one half."""
    lam = draw_lambdas(MANY[:1000], RNG, alpha=1.0, fold=False).double()
    assert (lam[lam < 0.5] * 2**25 % 2 == 1).all()


def test_one_weight_for_a_batch_follows_the_same_law_over_the_steps():
    lam = torch.stack([draw_lambda(RNG("weight", step), alpha=0.75) for step in range(3000)])
    assert lam.mean().item() == pytest.approx(0.778, abs=0.01)
    assert lam.std().item() == pytest.approx(draw_lambdas(MANY, RNG, alpha=0.75).std().item(), abs=0.01)
    assert len(lam.unique()) > 2900
    one = draw_lambda(RNG, alpha=0.4, fold=False, floor=0.01, device="cpu")
    assert one.shape == ()
    assert one.dtype == torch.float32
    assert torch.equal(one, draw_lambda(RNG, alpha=0.4, fold=False, floor=0.01))


def test_limits_of_alpha():
    few = MANY[:2000]
    assert draw_lambda(RNG, alpha=0.0).item() == 1
    assert draw_lambdas(few, RNG, alpha=0.0).eq(1).all()
    coin = draw_lambdas(few, RNG, alpha=0.0, fold=False)
    assert set(coin.tolist()) == {0.0, 1.0}
    assert coin.mean().item() == pytest.approx(0.5, abs=0.05)
    # nearly there, the same side of the coin
    near = draw_lambdas(few, RNG, alpha=1e-4, fold=False)
    assert (near.round() == coin).all()
    assert draw_lambdas(few, RNG, alpha=1e-4).mean() > 0.999
    assert (draw_lambdas(few, RNG, alpha=1e6, fold=False) - 0.5).abs().max() < 0.01
    assert draw_lambdas(few, RNG, alpha=0.75, floor=1.0).eq(1).all()


def test_a_weight_depends_on_its_own_sample_and_the_path_only():
    lam = draw_lambdas(MANY[:50], RNG, alpha=0.75)
    order = torch.tensor([40, 3, 17])
    assert torch.equal(draw_lambdas(order, RNG, alpha=0.75), lam[order])
    assert not torch.equal(draw_lambdas(MANY[:50], RNG("other"), alpha=0.75), lam)
    assert len(lam.unique()) == 50
    state = torch.get_rng_state()
    draw_lambda(RNG, alpha=0.75)
    partners(5, RNG)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_weights_are_the_same_on_a_gpu():
    lam = draw_lambdas(MANY[:50].cuda(), RNG, alpha=0.75)
    assert lam.is_cuda
    assert torch.equal(lam.cpu(), draw_lambdas(MANY[:50], RNG, alpha=0.75))
    assert draw_lambda(RNG, alpha=0.75, device="cuda").is_cuda


def test_partners_are_every_row_once_in_any_order():
    orders = torch.stack([partners(4, RNG("partner", step)) for step in range(2400)])
    assert orders.dtype == torch.int64
    assert (orders.sort(1).values == torch.arange(4)).all()
    # 24 orders, 100 times each
    codes, counts = orders.unique(dim=0, return_counts=True)
    assert len(codes) == 24
    assert stats.chisquare(counts).pvalue > 0.001
    assert torch.equal(partners(4, RNG("partner", 7)), orders[7])


def test_mixing_by_hand():
    x, y = torch.tensor([[4.0, 8.0], [1.0, 2.0]]), torch.tensor([[0.0, 4.0], [5.0, 6.0]])
    assert mix(x, y, 0.75).tolist() == [[3, 7], [2, 3]]
    assert mix(x, y, torch.tensor(0.75)).tolist() == [[3, 7], [2, 3]]
    assert mix(x, y, torch.tensor([0.75, 0.5])).tolist() == [[3, 7], [3, 4]]
    assert mix(x[:, 0], y[:, 0], torch.tensor([0.75, 0.5])).tolist() == [3, 3]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(3,), (3, 4), (3, 2, 5, 5), (3, 3)]), st.booleans())
def test_mixing_is_the_formula_and_exact_at_the_ends(seed, shape, each):
    draw = Rng.of(seed).torch()
    x, y = (10 * torch.randn(shape, generator=draw) for _ in range(2))
    lam = torch.rand(3, generator=draw) if each else torch.rand((), generator=draw)
    mixed = mix(x, y, lam)
    weights = lam.expand(3).tolist()
    for i in range(3):
        torch.testing.assert_close(mixed[i], weights[i] * x[i] + (1 - weights[i]) * y[i])
    assert torch.equal(mix(x, y, torch.ones_like(lam)), x)
    assert torch.equal(mix(x, y, torch.zeros_like(lam)), y)


def test_mixing_types():
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
    lam = torch.tensor([0.7])
    for kind in (torch.bfloat16, torch.float16, torch.uint8, torch.int64, torch.bool):
        mixed = mix(x.to(kind), y.to(kind), lam)
        assert mixed.dtype == torch.float32
        torch.testing.assert_close(mixed, mix(x.to(kind).float(), y.to(kind).float(), lam), rtol=0, atol=0)
    assert mix(x.double(), y.double(), lam).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mix(x, y, lam), mix(x, y, 0.7))


def test_mixing_has_gradients():
    x, y = torch.randn(2, 3, 2, 4, generator=RNG.torch(), dtype=torch.float64).requires_grad_().unbind()
    lam = torch.tensor([0.2, 0.7, 1.0]).double()
    assert torch.autograd.gradcheck(lambda a, b: mix(a, b, lam), (x, y))


@pytest.mark.parametrize("alpha", [-0.1, math.inf, math.nan])
def test_wrong_alpha(alpha):
    with pytest.raises(UsageError, match="alpha of the Beta distribution must be at least 0 and finite"):
        draw_lambda(RNG, alpha=alpha)


@pytest.mark.parametrize("floor", [-0.1, 1.1, math.nan])
def test_wrong_floor(floor):
    with pytest.raises(UsageError, match="floor of the mixing weight must be from 0 to 1"):
        draw_lambdas(MANY[:2], RNG, alpha=1.0, floor=floor)


def test_shapes_that_do_not_fit_are_named():
    x = torch.zeros(3, 4)
    with pytest.raises(UsageError, match=r"one shape, got \(3, 4\) and \(1, 4\)"):
        mix(x, x[:1], 0.5)
    with pytest.raises(UsageError, match=r"one per sample, \(3,\), got \(4,\)"):
        mix(x, x, torch.zeros(4))
    with pytest.raises(UsageError, match=r"one per sample, \(3,\), got \(3, 1\)"):
        mix(x, x, torch.zeros(3, 1))
