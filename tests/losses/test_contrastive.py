"""Slow references, gradients, properties, precision and wrong use of the contrastive losses."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses import contrastive as c
from tacit.rng import Rng

IN_BATCH = {
    "info_nce": c.info_nce,
    "decoupled_contrastive": c.decoupled_contrastive,
    "decoupled_contrastive_weighted": c.decoupled_contrastive_weighted,
    "weighted_not_detached": partial(c.decoupled_contrastive_weighted, detach_weight=False),
}
NEAREST = {"info_nce": c.info_nce_nearest, "dcl": c.decoupled_contrastive_nearest}
QUEUE = {"info_nce": c.info_nce_queue, "dcl": c.decoupled_contrastive_queue}

few = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 10**6)
sizes = st.integers(2, 9)
temperatures = st.sampled_from([0.05, 0.1, 0.5, 1.0, 3.0])


def draw(*shapes: tuple[int, int], seed: int = 0, grad: bool = False) -> list[Tensor]:
    return [
        torch.randn(*shape, generator=Rng.of(seed)("test", i).torch(), dtype=torch.float64).requires_grad_(
            grad
        )
        for i, shape in enumerate(shapes)
    ]


def cosine(x: Tensor, y: Tensor) -> float:
    dot = sum(float(p) * float(q) for p, q in zip(x, y, strict=True))
    return dot / math.sqrt(sum(float(p) ** 2 for p in x) * sum(float(q) ** 2 for q in y))


def slow(positive: float, negatives: list[float], temperature: float) -> tuple[float, float]:
    """InfoNCE and DCL of one anchor from its cosines."""
    p = math.exp(positive / temperature)
    total = sum(math.exp(s / temperature) for s in negatives)
    return -math.log(p / (p + total)), -math.log(p / total)


def slow_in_batch(a: Tensor, b: Tensor, temperature: float) -> list[tuple[float, float]]:
    out = []
    for own, other in ((a, b), (b, a)):
        for i in range(len(a)):
            negatives = [cosine(own[i], view[j]) for view in (a, b) for j in range(len(a)) if j != i]
            out.append(slow(cosine(own[i], other[i]), negatives, temperature))
    return out


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_in_batch_losses_equal_the_double_loop(temperature: float) -> None:
    a, b = draw((6, 5), (6, 5))
    expected = slow_in_batch(a, b, temperature)
    mean = [sum(x) / 12 for x in zip(*expected, strict=True)]
    assert c.info_nce(a, b, temperature).item() == pytest.approx(mean[0], rel=1e-12)
    assert c.decoupled_contrastive(a, b, temperature).item() == pytest.approx(mean[1], rel=1e-12)

    positive, negatives = c.contrastive_terms(a, b, temperature)
    assert (negatives - positive).tolist() == pytest.approx([dcl for _, dcl in expected], rel=1e-12)
    q = c.npc_multiplier(a, b, temperature)
    assert q.tolist() == pytest.approx([1 - math.exp(-info) for info, _ in expected], rel=1e-10)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 2.0])
def test_weighted_loss_equals_the_double_loop(sigma: float) -> None:
    a, b = draw((6, 5), (6, 5), seed=1)
    cosines = [cosine(x, y) for x, y in zip(a, b, strict=True)]
    mean = sum(math.exp(s / sigma) for s in cosines) / 6
    weights = [2 - math.exp(s / sigma) / mean for s in cosines]
    assert c.dclw_weights(a, b, sigma).tolist() == pytest.approx(weights, rel=1e-12)

    dcl = [x for _, x in slow_in_batch(a, b, 0.2)]
    terms = [x + (1 - w) * s / 0.2 for x, w, s in zip(dcl, weights * 2, cosines * 2, strict=True)]
    loss = c.decoupled_contrastive_weighted(a, b, 0.2, sigma)
    assert loss.item() == pytest.approx(sum(terms) / 12, rel=1e-12)


def test_queue_losses_equal_the_double_loop() -> None:
    query, key, queue = draw((4, 5), (4, 5), (7, 5))
    expected = [
        slow(cosine(q, k), [cosine(q, n) for n in queue], 0.3) for q, k in zip(query, key, strict=True)
    ]
    for i, loss in enumerate((c.info_nce_queue, c.decoupled_contrastive_queue)):
        mean = sum(x[i] for x in expected) / 4
        assert loss(query, key, queue, 0.3).item() == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("same_view", [False, True])
def test_nearest_losses_equal_the_double_loop(same_view: bool) -> None:
    neighbour, prediction = draw((5, 4), (5, 4))
    if same_view:
        expected = slow_in_batch(neighbour, prediction, 0.3)
    else:
        expected = [
            slow(
                cosine(neighbour[i], prediction[i]),
                [cosine(neighbour[i], prediction[j]) for j in range(5) if j != i],
                0.3,
            )
            for i in range(5)
        ]
    for i, loss in enumerate((c.info_nce_nearest, c.decoupled_contrastive_nearest)):
        mean = sum(x[i] for x in expected) / len(expected)
        value = loss(neighbour, prediction, 0.3, same_view_negatives=same_view)
        assert value.item() == pytest.approx(mean, rel=1e-12)


def test_info_nce_nearest_is_cross_entropy_on_the_diagonal() -> None:
    neighbour, prediction = (F.normalize(x, dim=1) for x in draw((5, 4), (5, 4)))
    expected = F.cross_entropy(neighbour @ prediction.T / 0.2, torch.arange(5))
    assert c.info_nce_nearest(neighbour, prediction, 0.2).item() == pytest.approx(expected.item(), rel=1e-12)


def test_nearest_takes_the_largest_inner_product() -> None:
    queue = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0], [0.0, 3.0]])
    # By angle the second z would take row 1, but row 3 is longer: 1.9 against 4.5.
    z = torch.tensor([[2.0, 0.1], [1.2, 1.5], [-1.0, 0.1]], requires_grad=True)
    found = c.nearest(z, queue)
    assert torch.equal(found, queue[[0, 3, 2]])
    assert not found.requires_grad
    assert torch.equal(c.nearest(z * torch.tensor([[100.0], [0.01], [7.0]]), queue), found)
    halves = c.nearest(z.half(), queue.half())
    assert halves.dtype == torch.float16
    assert torch.equal(halves, found.half())


# Gradients


@pytest.mark.parametrize("name", ["info_nce", "decoupled_contrastive", "weighted_not_detached"])
@pytest.mark.parametrize("assume_normalized", [False, True])
def test_in_batch_gradients(name: str, assume_normalized: bool) -> None:
    a, b = draw((3, 4), (3, 4), grad=True)
    loss = partial(IN_BATCH[name], temperature=0.5, assume_normalized=assume_normalized)
    assert torch.autograd.gradcheck(loss, (a, b))


def test_weight_gradient() -> None:
    a, b = draw((3, 4), (3, 4), grad=True)
    assert torch.autograd.gradcheck(c.dclw_weights, (a, b))


def test_detached_weights_are_constants() -> None:
    a, b = draw((5, 4), (5, 4), grad=True)
    value = c.decoupled_contrastive_weighted(a, b, 0.3)
    positive, negatives = c.contrastive_terms(a, b, 0.3)
    constant = c.dclw_weights(a, b).detach().repeat(2)
    expected = torch.autograd.grad((negatives - constant * positive).mean(), (a, b))
    detached = torch.autograd.grad(value, (a, b))
    attached_value = c.decoupled_contrastive_weighted(a, b, 0.3, detach_weight=False)
    attached = torch.autograd.grad(attached_value, (a, b))

    assert attached_value.item() == value.item()
    for mine, theirs, other in zip(detached, expected, attached, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
        assert (mine - other).abs().max() > 1e-3


@pytest.mark.parametrize("name", QUEUE)
def test_queue_gradient_reaches_the_query_only(name: str) -> None:
    query, key, queue = draw((3, 4), (3, 4), (5, 4), grad=True)
    assert torch.autograd.gradcheck(lambda x: QUEUE[name](x, key.detach(), queue.detach(), 0.5), (query,))
    QUEUE[name](query, key, queue, 0.5).backward()
    assert query.grad is not None
    assert query.grad.abs().max() > 1e-3
    assert key.grad is None
    assert queue.grad is None


@pytest.mark.parametrize("name", NEAREST)
@pytest.mark.parametrize("same_view", [False, True])
def test_nearest_gradient_reaches_the_prediction_only(name: str, same_view: bool) -> None:
    neighbour, prediction = draw((3, 4), (3, 4), grad=True)
    loss = partial(NEAREST[name], temperature=0.5, same_view_negatives=same_view)
    assert torch.autograd.gradcheck(lambda x: loss(neighbour.detach(), x), (prediction,))
    loss(neighbour, prediction).backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().max() > 1e-3
    assert neighbour.grad is None


def test_diagnostics_have_no_gradient() -> None:
    a, b = draw((3, 4), (3, 4), grad=True)
    assert not c.npc_multiplier(a, b).requires_grad
    assert c.dclw_weights(a, b).requires_grad


# Properties


@few
@given(seeds, sizes, temperatures, st.sampled_from(sorted(IN_BATCH)))
def test_symmetry_permutation_rotation_scale(seed: int, n: int, temperature: float, name: str) -> None:
    a, b = draw((n, 5), (n, 5), seed=seed)
    loss = partial(IN_BATCH[name], temperature=temperature)
    value = loss(a, b).item()
    same = partial(pytest.approx, rel=1e-9, abs=1e-9)
    assert loss(b, a).item() == same(value)

    order = Rng.of(seed)("order").permutation(n)
    assert loss(a[order], b[order]).item() == same(value)

    rotation, _ = torch.linalg.qr(draw((5, 5), seed=seed + 1)[0])
    assert loss(a @ rotation, b @ rotation).item() == same(value)

    lengths = draw((n, 1), (n, 1), seed=seed + 2)
    assert loss(a * lengths[0].exp(), b * lengths[1].exp()).item() == same(value)


@few
@given(seeds, sizes, temperatures)
def test_bounds_and_order(seed: int, n: int, temperature: float) -> None:
    a, b = draw((n, 3), (n, 3), seed=seed)
    dcl = c.decoupled_contrastive(a, b, temperature).item()
    info = c.info_nce(a, b, temperature).item()
    assert info > 0
    assert info >= dcl
    assert dcl >= -2 / temperature + math.log(2 * n - 2)
    q = c.npc_multiplier(a, b, temperature)
    assert q.shape == (2 * n,)
    assert ((q > 0) & (q <= 1)).all()


@few
@given(seeds, sizes, st.sampled_from([0.1, 0.5, 2.0]))
def test_weights_average_one_and_fall_with_their_cosine(seed: int, n: int, sigma: float) -> None:
    a, b = draw((n, 3), (n, 3), seed=seed)
    weights = c.dclw_weights(a, b, sigma)
    assert weights.mean().item() == pytest.approx(1, abs=1e-12)
    assert ((weights > 2 - n) & (weights <= 2)).all()
    cosines = F.cosine_similarity(a, b)
    assert torch.equal(weights.argsort(), cosines.argsort(descending=True))


def test_a_matching_pair_costs_less_than_a_broken_one() -> None:
    (a,) = draw((6, 8))
    for loss in (c.info_nce, c.decoupled_contrastive):
        assert loss(a, a, 0.2) < loss(a, a.roll(1, 0), 0.2)


# Precision

ALL = {
    **{name: (loss, 2) for name, loss in IN_BATCH.items()},
    **{f"{name}_nearest": (loss, 2) for name, loss in NEAREST.items()},
    **{f"{name}_queue": (loss, 3) for name, loss in QUEUE.items()},
    "npc_multiplier": (c.npc_multiplier, 2),
    "dclw_weights": (c.dclw_weights, 2),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
def test_half_precision_gives_the_float32_result_of_the_rounded_input(name: str, dtype: torch.dtype) -> None:
    loss, count = ALL[name]
    rounded = [x.to(dtype) for x in draw(*[(6, 16)] * count)]
    value = loss(*rounded)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(*[x.float() for x in rounded]))


@pytest.mark.parametrize("name", ALL)
def test_autocast_changes_nothing(name: str) -> None:
    loss, count = ALL[name]
    vectors = [x.float().requires_grad_() for x in draw(*[(6, 16)] * count)]
    expected = loss(*vectors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.mm(vectors[0], vectors[0].T).dtype == torch.bfloat16
        found = loss(*vectors)
    assert torch.equal(found, expected)
    if name != "npc_multiplier":
        learner = vectors[1] if "nearest" in name else vectors[0]
        gradients = [torch.autograd.grad(value.sum(), learner)[0] for value in (found, expected)]
        assert torch.equal(*gradients)


def test_mixed_types_are_promoted() -> None:
    query, key, queue = draw((3, 4), (3, 4), (5, 4))
    value = c.info_nce_queue(query.float(), key.bfloat16(), queue.half())
    expected = c.info_nce_queue(query.float(), key.bfloat16().float(), queue.half().float())
    assert torch.equal(value, expected)
    assert c.info_nce_queue(query, key.float(), queue).dtype == torch.float64


@pytest.mark.parametrize("name", IN_BATCH)
def test_a_row_of_zeros_gives_finite_numbers(name: str) -> None:
    a, b = draw((3, 4), (3, 4), grad=True)
    value = IN_BATCH[name](a * torch.tensor([[0.0], [1.0], [1.0]]), b)
    value.backward()
    assert value.isfinite()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_assume_normalized_takes_vectors_as_they_are() -> None:
    a, b = draw((4, 3), (4, 3))
    unit = [F.normalize(x, dim=1) for x in (a, b)]
    for loss in IN_BATCH.values():
        assert loss(*unit, assume_normalized=True).item() == pytest.approx(loss(a, b).item(), rel=1e-12)
    doubled = c.decoupled_contrastive(2 * unit[0], 2 * unit[1], 0.4, assume_normalized=True)
    assert doubled.item() == pytest.approx(c.decoupled_contrastive(a, b, 0.1).item(), rel=1e-12)


def test_inputs_are_not_changed() -> None:
    a, b = (F.normalize(x, dim=1) for x in draw((4, 3), (4, 3)))
    before = a.clone(), b.clone()
    for loss in IN_BATCH.values():
        loss(a, b, assume_normalized=True)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


# Wrong use


@pytest.mark.parametrize("loss", [*IN_BATCH.values(), *NEAREST.values(), c.npc_multiplier])
def test_one_sample_has_no_negatives(loss) -> None:
    with pytest.raises(UsageError, match="batch of 1 has no negatives"):
        loss(*draw((1, 4), (1, 4)))


def test_one_query_is_enough_with_a_queue() -> None:
    (query, queue) = draw((1, 4), (3, 4))
    assert c.info_nce_queue(query, query, queue).isfinite()


@pytest.mark.parametrize("loss", [*IN_BATCH.values(), *NEAREST.values(), c.npc_multiplier, c.dclw_weights])
@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((4, 3), (4, 2)), ((4, 3, 1), (4, 3, 1))])
def test_shapes_must_agree(loss, shapes) -> None:
    with pytest.raises(UsageError, match="must have one shape") as caught:
        loss(*(torch.zeros(shape) for shape in shapes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan])
def test_temperature_must_be_positive(temperature: float) -> None:
    a, b, queue = draw((4, 3), (4, 3), (6, 3))
    for loss in (*IN_BATCH.values(), *NEAREST.values()):
        with pytest.raises(UsageError, match="temperature must be above 0"):
            loss(a, b, temperature)
    for loss in QUEUE.values():
        with pytest.raises(UsageError, match="temperature must be above 0"):
            loss(a, b, queue, temperature)
    for call in (c.dclw_weights, partial(c.decoupled_contrastive_weighted, temperature=0.1)):
        with pytest.raises(UsageError, match="sigma must be above 0"):
            call(a, b, sigma=temperature)


def test_wrong_queues_and_types() -> None:
    a, b = draw((4, 3), (4, 3))
    for queue in (torch.zeros(0, 3), torch.zeros(5, 2), torch.zeros(3)):
        with pytest.raises(UsageError, match=r"queue must be \(K, D\)"):
            c.info_nce_queue(a, b, queue)
        with pytest.raises(UsageError, match=r"queue must be \(K, D\)"):
            c.nearest(a, queue)
    with pytest.raises(UsageError, match="floating-point"):
        c.info_nce(a.long(), b.long())
