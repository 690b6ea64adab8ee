"""InfoNCE of matched places: the slow sum, hard negatives, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses.anatomy import contrast_of_matches
from tacit.rng import Rng


def vectors(n: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, 4, generator=Rng.of(seed).torch(), dtype=torch.float64), dim=1)


A, P, N = vectors(3, 1), vectors(3, 2), vectors(8, 3)
ALL = torch.ones(3, 8, dtype=torch.bool)


def slow(negatives_of: list[list[int]], t: float) -> float:
    total = 0.0
    for i, chosen in enumerate(negatives_of):
        top = math.exp((A[i] @ P[i]).item() / t)
        total -= math.log(top / (top + sum(math.exp((A[i] @ N[n]).item() / t) for n in chosen)))
    return total / len(negatives_of)


def test_it_is_the_slow_sum_over_allowed_candidates():
    assert contrast_of_matches(A, P, N, ALL).item() == pytest.approx(slow([list(range(8))] * 3, 0.5))
    allowed = ALL.clone()
    allowed[0, :5] = False
    allowed[2] = False
    expected = slow([[5, 6, 7], list(range(8)), []], 0.2)
    assert contrast_of_matches(A, P, N, allowed, 0.2).item() == pytest.approx(expected)


def test_only_the_hardest_allowed_count():
    hardness = torch.arange(8.0).repeat(3, 1)
    allowed = ALL.clone()
    allowed[1, 7] = False
    found = contrast_of_matches(A, P, N, allowed, hardness=hardness, hardest=3)
    assert found.item() == pytest.approx(slow([[5, 6, 7], [4, 5, 6], [5, 6, 7]], 0.5))
    near = (A @ N.T).topk(2, dim=1).indices.tolist()
    assert contrast_of_matches(A, P, N, ALL, hardest=2).item() == pytest.approx(slow(near, 0.5))
    few = contrast_of_matches(A, P, N, allowed & (hardness > 6), hardness=hardness, hardest=3)
    assert few.item() == pytest.approx(slow([[7], [], [7]], 0.5))


def test_a_lottery_keeps_some_of_the_hardest():
    hardness = torch.arange(8.0).repeat(3, 1)  # the hardest four in order: 7, 6, 5, 4
    lottery = torch.tensor([[0.1, 0.9, 0.2, 0.8], [0.9, 0.1, 0.8, 0.2], [0.1, 0.2, 0.8, 0.9]])
    found = contrast_of_matches(A, P, N, ALL, hardness=hardness, hardest=4, lottery=lottery, keep=2)
    assert found.item() == pytest.approx(slow([[6, 4], [7, 5], [5, 4]], 0.5))


def test_gradients():
    a, p, n = (x.clone().requires_grad_() for x in (A, P, N))
    allowed = ALL.clone()
    allowed[0, :5] = False
    assert torch.autograd.gradcheck(lambda *x: contrast_of_matches(*x, allowed, hardest=3), (a, p, n))
    nothing = contrast_of_matches(a, p, n, ~ALL)
    assert nothing.item() == 0
    assert all(
        g.isfinite().all()
        for g in torch.autograd.grad(nothing, (a, p, n), allow_unused=True)
        if g is not None
    )


def test_shapes_that_do_not_fit():
    with pytest.raises(UsageError, match=r"matches: \(A, D\) anchors and positives"):
        contrast_of_matches(A, P, N, ALL[:2])
    with pytest.raises(UsageError):
        contrast_of_matches(A[:0], P[:0], N, ALL[:0])
