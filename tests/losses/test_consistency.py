"""Consistency losses: hand-worked numbers, limits, properties, gradients, precision and wrong use."""

from __future__ import annotations

import math
from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses.consistency import (
    kl_consistency,
    mixup_cross_entropy,
    probability_mse,
    semixup_consistency,
    squared_difference,
)
from tacit.rng import Rng
from tacit.views.mix import mix

DISTANCES = {"l2": squared_difference, "kl": kl_consistency}
TERMS = ("in", "in_out", "interpolation")
few = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10**6)
classes = st.integers(2, 7)
scales = st.sampled_from([0.1, 1.0, 10.0, 100.0])

LN3, LN9 = math.log(3), math.log(9)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


# probabilities (.75, .25), (.5, .5), (.9, .1), (.25, .75)
Z, ZT, ZM, ZP = row(LN3, 0), row(0, 0), row(LN9, 0), row(0, LN3)


def draw(count: int, *shape: int, seed: int = 0, scale: float = 1.0, grad: bool = False) -> list[Tensor]:
    return [
        (
            scale * torch.randn(*shape, generator=Rng.of(seed)("test", i).torch(), dtype=torch.float64)
        ).requires_grad_(grad)
        for i in range(count)
    ]


def slow_probabilities(logits: list[float]) -> list[float]:
    powers = [math.exp(x) for x in logits]
    return [x / sum(powers) for x in powers]


def slow_distance(a: Tensor, b: Tensor, distance: str) -> float:
    total = 0.0
    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        p, q = slow_probabilities(one), slow_probabilities(other)
        for x, y in zip(p, q, strict=True):
            total += (x - y) ** 2 if distance == "l2" else y * math.log(y / x)
    return total / a.numel()


def total(terms: dict[str, Tensor]) -> float:
    return sum(terms.values()).item()


def test_the_hand_example_of_semixup():
    assert squared_difference(ZT, Z).item() == pytest.approx(0.0625, abs=1e-15)
    assert squared_difference(Z, ZM).item() == pytest.approx(0.0225, abs=1e-15)
    assert squared_difference(ZT, ZM).item() == pytest.approx(0.16, abs=1e-15)
    zmix = mix(Z, ZP, 0.75)
    torch.testing.assert_close(zmix.softmax(1), row(0.633975, 0.366025), atol=5e-7, rtol=0)
    assert squared_difference(ZM, zmix).item() == pytest.approx(0.0707695, abs=5e-8)
    terms = semixup_consistency([Z, ZT], [ZM], [zmix])
    assert terms["in"].item() == pytest.approx(2 * 0.0625, abs=1e-15)
    assert terms["in_out"].item() == pytest.approx(2 * (0.0225 + 0.16), abs=1e-15)
    assert terms["interpolation"].item() == pytest.approx(4 * 0.0707695, abs=2e-7)
    assert total(terms) == pytest.approx(0.7730781, abs=5e-8)


def test_the_hand_example_with_mixed_probabilities():
    q = mix(Z.softmax(1), ZP.softmax(1), 0.75)
    torch.testing.assert_close(q, row(0.625, 0.375))
    assert probability_mse(ZM.softmax(1), q).item() == pytest.approx(0.075625, abs=1e-15)
    assert total(semixup_consistency([Z, ZT], [ZM], [q], target_space="prob")) == pytest.approx(
        0.7925, abs=1e-14
    )


def test_the_mean_runs_over_classes_and_samples():
    p, q = row(0.75, 0.25), row(0.5, 0.5)
    assert probability_mse(p, q).item() == 0.0625
    assert probability_mse(torch.cat([p, q]), torch.cat([q, q])).item() == 0.03125
    # a class that nobody believes in
    assert probability_mse(row(0.75, 0.25, 0), row(0.5, 0.5, 0)).item() == pytest.approx(0.125 / 3)
    far = row(1000, 0, 0, 0, 0), row(0, 1000, 0, 0, 0)
    assert squared_difference(*far).item() == pytest.approx(2 / 5)


def test_kl_by_hand():
    expected = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert kl_consistency(ZT, Z).item() == pytest.approx(expected, abs=1e-15)
    expected = -(math.log(1.5) + math.log(0.5)) / 4
    assert kl_consistency(Z, ZT).item() == pytest.approx(expected, abs=1e-15)


def test_the_hand_example_of_semixup_with_kl():
    """The authors' code: D(zt, z), D(z, zm) + D(zm, zt), D(zm, zmix), where D(a, b) is KL(b || a) / C."""
    zmix = mix(Z, ZP, 0.75)
    terms = semixup_consistency([Z, ZT], [ZM], [zmix], distance="kl")
    inside = (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / 2
    first = (0.9 * math.log(0.9 / 0.75) + 0.1 * math.log(0.1 / 0.25)) / 2
    second = (0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)) / 2
    assert terms["in"].item() == pytest.approx(2 * inside, abs=1e-15)
    assert terms["in_out"].item() == pytest.approx(2 * (first + second), abs=1e-15)
    # (0.0362 + 0.2554) in this order, and (0.0362 + 0.1840) were the mixed copy second in both
    assert terms["in_out"].item() == pytest.approx(0.5832860, abs=5e-8)
    p = zmix.softmax(1)[0].tolist()
    line = (p[0] * math.log(p[0] / 0.9) + p[1] * math.log(p[1] / 0.1)) / 2
    assert terms["interpolation"].item() == pytest.approx(4 * line, abs=1e-15)


@few
@given(seeds, classes, scales, st.integers(1, 6))
def test_squared_difference_is_symmetric_bounded_and_blind_to_shifts(seed, c, scale, b):
    x, y = draw(2, b, c, seed=seed, scale=scale)
    d = squared_difference(x, y).item()
    assert squared_difference(y, x).item() == d
    assert squared_difference(x, x).item() == 0
    assert 0 <= d <= 2 / c
    shift = 100 * draw(1, b, 1, seed=seed + 1)[0]
    assert squared_difference(x + shift, y).item() == pytest.approx(d, abs=1e-11)
    order = torch.randperm(c, generator=Rng.of(seed).torch())
    assert squared_difference(x[:, order], y[:, order]).item() == pytest.approx(d, abs=1e-13)
    assert d == pytest.approx(slow_distance(x, y, "l2"), abs=1e-13)


@few
@given(seeds, classes, st.sampled_from([0.1, 1.0, 10.0]), st.integers(1, 6))
def test_kl_is_not_below_0_blind_to_shifts_and_the_slow_sum(seed, c, scale, b):
    x, y = draw(2, b, c, seed=seed, scale=scale)
    d = kl_consistency(x, y).item()
    assert d >= -1e-15
    assert abs(kl_consistency(x, x).item()) < 1e-15
    assert d == pytest.approx(slow_distance(x, y, "kl"), rel=1e-9, abs=1e-13)
    shift = 100 * draw(1, b, 1, seed=seed + 1)[0]
    assert kl_consistency(x + shift, y - shift).item() == pytest.approx(d, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("views", "copies"), [(1, 0), (1, 1), (2, 1), (3, 0), (3, 2), (2, 3)])
def test_semixup_is_the_slow_sum_over_pairs(distance, views, copies):
    transformed, mixed, targets = (draw(n, 4, 5, seed=s) for n, s in ((views, 1), (copies, 2), (copies, 3)))
    inside = sum(slow_distance(b, a, distance) for a, b in combinations(transformed, 2))
    across = sum(slow_distance(transformed[0], m, distance) for m in mixed)
    across += sum(slow_distance(m, a, distance) for a, m in product(transformed[1:], mixed))
    across += sum(slow_distance(b, a, distance) for a, b in combinations(mixed, 2))
    line = sum(slow_distance(m, t, distance) for m, t in zip(mixed, targets, strict=True))
    terms = semixup_consistency(
        transformed,
        mixed,
        targets,
        in_weight=3,
        in_out_weight=5,
        interpolation_weight=7,
        distance=distance,
    )
    assert tuple(terms) == TERMS
    expected = [3 * inside, 5 * across, 7 * line]
    assert [v.item() for v in terms.values()] == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_each_pair_counts_once():
    """Half of what the sum over ordered pairs of all outputs gives."""
    transformed, mixed = draw(3, 4, 5, seed=1), draw(2, 4, 5, seed=2)
    terms = semixup_consistency(transformed, mixed, mixed, in_weight=1, in_out_weight=1)
    outputs = transformed + mixed
    ordered = sum(squared_difference(a, b) for a in outputs for b in outputs)
    assert total(terms) == pytest.approx(ordered.item() / 2)


@pytest.mark.parametrize("distance", DISTANCES)
def test_unmixed_copies_without_dropout(distance):
    """lam = 1: zm = z and the mixed target is z, so only the second view disagrees."""
    z, zt, other = draw(3, 6, 5)
    zm = mix(z, other, 1.0)
    terms = semixup_consistency([z, zt], [zm], [mix(z, other, torch.tensor(1.0))], distance=distance)
    assert abs(terms["interpolation"].item()) < 1e-15
    there, back = DISTANCES[distance](zt, z).item(), DISTANCES[distance](z, zt).item()
    assert total(terms) == pytest.approx(2 * there + 2 * back, rel=1e-12)
    assert (there == back) == (distance == "l2")


@pytest.mark.parametrize("distance", DISTANCES)
def test_equal_views_give_no_loss_and_no_gradient(distance):
    (z,) = draw(1, 6, 5, grad=True)
    loss = sum(semixup_consistency([z, z * 1], [z * 1], [mix(z, z.flip(0), 1.0)], distance=distance).values())
    (grad,) = torch.autograd.grad(loss, z)
    if distance == "l2":
        assert loss.item() == 0
        assert not grad.any()
    assert abs(loss.item()) < 1e-14
    assert grad.abs().max() < 1e-14


@pytest.mark.parametrize("lam", [0.55, 0.75, 0.9])
def test_an_affine_network_interpolates_its_logits_but_not_its_probabilities(lam):
    x, other, weight = draw(3, 5, 5)
    z, zp, zm = (v @ weight + 0.3 for v in (x, other, mix(x, other, lam)))
    assert squared_difference(zm, mix(z, zp, lam)).item() < 1e-30
    assert probability_mse(zm.softmax(1), mix(z.softmax(1), zp.softmax(1), lam)).item() > 1e-4


@few
@given(seeds, scales)
def test_semixup_is_bounded(seed, scale):
    """(2 + 2 * 2 + 4) * 2 / C = 4 for five classes."""
    z, zt, zm, zmix = draw(4, 3, 5, seed=seed, scale=scale)
    assert 0 < total(semixup_consistency([z, zt], [zm], [zmix])) <= 4.0


@pytest.mark.parametrize("space", ["logits", "prob"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_order_of_classes_and_of_samples_does_not_matter(space, distance):
    z, zt, zm, zmix = draw(4, 6, 5)
    ends = zmix if space == "logits" else zmix.softmax(1)

    def loss(rows: Tensor | slice = slice(None), columns: Tensor | slice = slice(None)) -> float:
        one, two, three, four = (v[rows][:, columns] for v in (z, zt, zm, ends))
        return total(semixup_consistency([one, two], [three], [four], target_space=space, distance=distance))

    assert loss(torch.tensor([3, 1, 0, 5, 4, 2])) == pytest.approx(loss(), rel=1e-13)
    assert loss(columns=torch.tensor([3, 1, 0, 4, 2])) == pytest.approx(loss(), rel=1e-13)


@pytest.mark.parametrize("term", TERMS)
def test_dropping_a_term_changes_the_sum_by_it(term):
    z, zt, zm, zmix = draw(4, 6, 5)
    whole = semixup_consistency([z, zt], [zm], [zmix])
    rest = semixup_consistency([z, zt], [zm], [zmix], **{f"{term}_weight": 0.0})
    assert rest[term].item() == 0
    assert whole[term].item() > 0
    assert total(whole) - total(rest) == pytest.approx(whole[term].item(), abs=1e-14)
    assert {k: v.item() for k, v in rest.items() if k != term} == {
        k: v.item() for k, v in whole.items() if k != term
    }


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=list(DISTANCES))
def test_gradient_reaches_both_sides_unless_detached(distance):
    a, b = draw(2, 4, 3, grad=True)
    for grad in torch.autograd.grad(distance(a, b), (a, b)):
        assert grad.abs().min() > 1e-5
    of_a, of_b = torch.autograd.grad(distance(a, b, detach_target=True), (a, b), allow_unused=True)
    torch.testing.assert_close(of_a, torch.autograd.grad(distance(a, b), a)[0])
    assert of_b is None


@pytest.mark.parametrize("space", ["logits", "prob"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_semixup_detaches_second_arguments_only(space, distance):
    z, zt, zm, end = draw(4, 4, 3, grad=True)
    target = end if space == "logits" else end.softmax(1)
    options = {"target_space": space, "distance": distance}
    leaves = (z, zt, zm, end)
    loss = sum(semixup_consistency([z, zt], [zm], [target], **options).values())
    for grad in torch.autograd.grad(loss, leaves, retain_graph=True):
        assert grad.abs().sum() > 1e-4
    terms = semixup_consistency([z, zt], [zm], [target], detach_target=True, **options)
    reached = {
        name: [g is not None for g in torch.autograd.grad(term, leaves, allow_unused=True)]
        for name, term in terms.items()
    }
    assert reached == {
        "in": [False, True, False, False],
        "in_out": [True, False, True, False],
        "interpolation": [False, False, True, False],
    }


@pytest.mark.parametrize("space", ["logits", "prob"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients(space, distance):
    def loss(z: Tensor, zt: Tensor, zm: Tensor, end: Tensor) -> Tensor:
        target = end if space == "logits" else end.softmax(1)
        terms = semixup_consistency([z, zt], [zm], [target], target_space=space, distance=distance)
        return sum(terms.values())

    assert torch.autograd.gradcheck(loss, draw(4, 3, 4, grad=True))
    assert torch.autograd.gradcheck(probability_mse, draw(2, 3, 4, grad=True))


@pytest.mark.parametrize("distance", DISTANCES)
def test_certain_targets_give_finite_numbers(distance):
    """A probability of exactly 0 in the mixed target."""
    a, b, z = draw(3, 4, 3, grad=True)
    q = mix((1000 * a).float().softmax(1), (1000 * b).float().softmax(1), 0.7)
    assert (q == 0).any()
    term = semixup_consistency([z], [z], [q], target_space="prob", distance=distance)["interpolation"]
    p = z.detach().softmax(1)
    if distance == "l2":
        expected = 4 * ((p - q) ** 2).mean()
    else:
        expected = 4 * (torch.xlogy(q, q) - q * p.log()).sum() / 12
    assert term.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(term, (a, b, z)))


def test_mixup_by_hand():
    y, partner = torch.tensor([0]), torch.tensor([1])
    loss = mixup_cross_entropy(ZM, y, partner, torch.tensor(0.75, dtype=torch.float64))
    assert loss.item() == pytest.approx(0.6546667, abs=5e-8)
    assert mixup_cross_entropy(ZM, y, partner, 0.75).item() == loss.item()


def test_mixup_is_the_cross_entropy_of_mixed_labels():
    (logits,) = draw(1, 6, 4, grad=True)
    y, partner = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 1, 0, 0, 2, 2])
    each = torch.tensor([1.0, 0.0, 0.3, 0.5, 0.9, 0.6], dtype=torch.float64)
    for lam in (each, torch.tensor(0.8)):
        targets = mix(F.one_hot(y, 4).double(), F.one_hot(partner, 4).double(), lam)
        loss = mixup_cross_entropy(logits, y, partner, lam)
        assert loss.item() == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-7)
    plain = F.cross_entropy(logits, y).item()
    assert mixup_cross_entropy(logits, y, partner, 1.0).item() == pytest.approx(plain, rel=1e-15)
    assert mixup_cross_entropy(logits, partner, y, 0.0).item() == pytest.approx(plain, rel=1e-15)
    assert torch.autograd.gradcheck(lambda x: mixup_cross_entropy(x, y, partner, each), (logits,))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_are_computed_in_float32(half):
    z, zt, zm, zmix = (v.to(half) for v in draw(4, 6, 5))
    y = torch.arange(5).repeat(2)[:6]

    def losses(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> list[Tensor]:
        kinds = [
            v
            for distance, space in product(DISTANCES, ("logits", "prob"))
            for v in semixup_consistency(
                [a, b],
                [c],
                [d if space == "logits" else d.float().softmax(1)],
                distance=distance,
                target_space=space,
            ).values()
        ]
        return [*kinds, probability_mse(a, b), mixup_cross_entropy(a, y, y.flip(0), torch.tensor(0.7))]

    exact = losses(*(v.double() for v in (z, zt, zm, zmix)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = losses(z, zt, zm, zmix)
    for a, b in zip(cast, exact, strict=True):
        assert a.dtype == torch.float32
        assert b.dtype == torch.float64
        assert a.item() == pytest.approx(b.item(), rel=1e-5)


@pytest.mark.parametrize("function", [squared_difference, probability_mse, kl_consistency])
@pytest.mark.parametrize("shapes", [((3, 4), (3, 5)), ((3, 4), (1, 4)), ((4,), (4,)), ((0, 4), (0, 4))])
def test_shapes_that_do_not_fit_are_named(function, shapes):
    with pytest.raises(UsageError, match=r"must have one shape \(B, C\) with B at least 1") as caught:
        function(*(torch.zeros(shape) for shape in shapes))
    assert str(shapes[1]) in str(caught.value)


def test_wrong_use_of_semixup_and_mixup():
    (z,) = draw(1, 3, 2)
    with pytest.raises(UsageError, match="at least one view"):
        semixup_consistency([], [z], [z])
    with pytest.raises(UsageError, match="2 views, 1 mixed copies and 0 targets"):
        semixup_consistency([z, z], [z], [])
    with pytest.raises(UsageError, match="unknown distance 'l3'"):
        semixup_consistency([z], [z], [z], distance="l3")
    with pytest.raises(UsageError, match="unknown target space 'probs'; did you mean 'prob'"):
        semixup_consistency([z], [z], [z], target_space="probs")
    y = torch.tensor([0, 1, 0])
    with pytest.raises(UsageError, match=r"y_partner must have one value per sample, \(3,\), got \(2,\)"):
        mixup_cross_entropy(z, y, y[:2], 0.5)
    with pytest.raises(UsageError, match="lam must have one value per sample"):
        mixup_cross_entropy(z, y, y, torch.tensor([0.5]))
