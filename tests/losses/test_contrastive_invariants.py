"""Identities and hand-worked numbers of decoupled contrastive learning (invariants 1-10 of its card)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses import contrastive as c
from tacit.rng import Rng


def unit(n: int, d: int, name: str = "", grad: bool = False) -> Tensor:
    noise = torch.randn(n, d, generator=Rng.of(0)("invariants", name).torch(), dtype=torch.float64)
    return F.normalize(noise, dim=1).requires_grad_(grad)


def per_anchor(a: Tensor, b: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """InfoNCE, DCL and q of each anchor."""
    positive, negatives = c.contrastive_terms(a, b, temperature)
    return F.softplus(negatives - positive), negatives - positive, c.npc_multiplier(a, b, temperature)


def close(printed: float | list[float], digits: int = 7):
    """A number as the card prints it, rounded to `digits` decimals."""
    return pytest.approx(printed, abs=0.51 * 10**-digits)


A = torch.eye(2, dtype=torch.float64)
B1 = torch.eye(2, dtype=torch.float64)
B2 = torch.tensor([[0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)


def pairs_with_cosines(cosines: list[float]) -> tuple[Tensor, Tensor]:
    s = torch.tensor(cosines, dtype=torch.float64)
    a = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(len(s), 2)
    return a, torch.stack([s, (1 - s**2).sqrt()], 1)


def test_1_identities_per_anchor() -> None:
    a, b = unit(5, 4, "a", grad=True), unit(5, 4, "b", grad=True)
    info, dcl, q = per_anchor(a, b, 0.3)
    torch.testing.assert_close(dcl, info + q.log(), rtol=0, atol=1e-14)
    torch.testing.assert_close(q, 1 - torch.exp(-info), rtol=0, atol=1e-14)
    for i in range(10):
        of_info = torch.autograd.grad(info[i], (a, b), retain_graph=True)
        of_dcl = torch.autograd.grad(dcl[i], (a, b), retain_graph=True)
        for x, y in zip(of_info, of_dcl, strict=True):
            assert y.abs().max() > 0.1
            torch.testing.assert_close(x, q[i] * y, rtol=0, atol=5e-15)
    assert c.info_nce(a, b, 0.3).item() == pytest.approx(info.mean().item(), abs=1e-14)
    assert c.decoupled_contrastive(a, b, 0.3).item() == pytest.approx(dcl.mean().item(), abs=1e-14)


@pytest.mark.parametrize(
    ("temperature", "info", "dcl", "q"),
    [
        (1.0, 0.5514447, -0.3068528, 0.4238831),
        (0.5, 0.2395448, -1.3068528, 0.2130140),
        (0.1, 9.0796e-05, -9.3068528, 9.0792e-05),
    ],
)
def test_2_example_a(temperature: float, info: float, dcl: float, q: float) -> None:
    digits = 9 if temperature == 0.1 else 7
    assert c.info_nce(A, A, temperature).item() == close(info, digits)
    assert c.decoupled_contrastive(A, A, temperature).item() == close(dcl)
    found = per_anchor(A, A, temperature)
    assert found[0].tolist() == close([info] * 4, digits)
    assert found[1].tolist() == close([dcl] * 4)
    assert found[2].tolist() == close([q] * 4, digits)
    assert found[1][0].item() == pytest.approx(-1 / temperature + math.log(2), abs=1e-13)
    assert found[0][0].item() == pytest.approx(math.log1p(2 * math.exp(-1 / temperature)), abs=1e-13)


def test_3_example_b_at_temperature_1() -> None:
    info, dcl, q = per_anchor(B1, B2, 1.0)
    assert info.tolist() == close([0.7408049, 0.7823525, 1.2362867, 0.7823525])
    assert dcl.tolist() == close([0.0931472, 0.1711007, 0.8931472, 0.1711007])
    assert q.tolist() == close([0.5232700, 0.5426711, 0.7095392, 0.5426711])
    assert c.info_nce(B1, B2, 1.0).item() == close(0.8854492)
    assert c.decoupled_contrastive(B1, B2, 1.0).item() == close(0.3321239)


def test_3_example_b_at_temperature_half() -> None:
    assert c.info_nce(B1, B2, 0.5).item() == close(0.7588852)
    assert c.decoupled_contrastive(B1, B2, 0.5).item() == close(0.0385240)
    _, dcl, _ = per_anchor(B1, B2, 0.5)
    assert dcl.tolist() == close([-0.5068528, -0.2160993, 1.0931472, -0.2160993])


@pytest.mark.parametrize(
    ("sigma", "weights", "at_1", "at_half"),
    [
        (0.5, [1.3799490, 0.6200510], 0.4081137, 0.1905035),
        (1.0, [1.1973753, 0.8026247], 0.3715990, 0.1174741),
        (math.inf, [1.0, 1.0], 0.3321239, 0.0385240),
    ],
)
def test_3_example_b_weighted(sigma: float, weights: list[float], at_1: float, at_half: float) -> None:
    assert c.dclw_weights(B1, B2, sigma).tolist() == close(weights)
    assert c.decoupled_contrastive_weighted(B1, B2, 1.0, sigma).item() == close(at_1)
    assert c.decoupled_contrastive_weighted(B1, B2, 0.5, sigma).item() == close(at_half)


def test_4_one_logsumexp_over_both_blocks() -> None:
    """Adding the blocks' logsumexps (log AB for log (A + B)) would give -1 + 0 + 0 in example A."""
    value = c.decoupled_contrastive(A, A, 1.0).item()
    assert value == close(-0.3068528)
    assert abs(value - (-1)) > 0.6
    # Doubling a batch by a copy of its negatives adds log 2 to log S, and not twice that.
    query, queue = unit(1, 4, "q"), unit(6, 4, "n")
    once, twice = (c.queue_terms(query, query, n, 0.2)[1] for n in (queue, torch.cat([queue, queue])))
    assert (twice - once).item() == pytest.approx(math.log(2), abs=1e-13)


@pytest.mark.parametrize(
    ("cosines", "weights"),
    [
        ([1.0, 0.0], [0.2384058, 1.7615942]),
        ([1.0] + [-1.0] * 7, [-5.0908818] + [1.8701260] * 7),
        ([0.9, 0.5, 0.1, -0.3], [-0.2962858, 0.9682123, 1.5363879, 1.7916857]),
    ],
)
def test_5_weights(cosines: list[float], weights: list[float]) -> None:
    found = c.dclw_weights(*pairs_with_cosines(cosines), 0.5)
    assert found.tolist() == close(weights)
    assert found.mean().item() == pytest.approx(1, abs=1e-14)


def test_5_equal_cosines_give_weight_1() -> None:
    a, b = pairs_with_cosines([0.3] * 5)
    assert c.dclw_weights(a, b).tolist() == pytest.approx([1] * 5, abs=1e-14)
    weighted, plain = c.decoupled_contrastive_weighted(a, b, 0.2), c.decoupled_contrastive(a, b, 0.2)
    assert weighted.item() == pytest.approx(plain.item(), abs=1e-13)


# 6, symmetry and invariances: test_contrastive.py, as properties.


@pytest.mark.parametrize("decoupled", [False, True])
def test_7_gradient_of_free_vectors(decoupled: bool) -> None:
    """Pull -1 and push 1 for DCL whatever q is; both times q for InfoNCE."""
    n, temperature = 4, 0.3
    a, b = unit(n, 5, "a", grad=True), unit(n, 5, "b", grad=True)
    positive, negatives = c.contrastive_terms(a, b, temperature, assume_normalized=True)
    q = torch.sigmoid(negatives - positive)[0].item()
    scale = (1 if decoupled else q) / temperature
    loss = (negatives - positive)[0]
    grad_a, grad_b = torch.autograd.grad(loss if decoupled else F.softplus(loss), (a, b))

    with torch.no_grad():
        others = torch.cat([a[1:], b[1:]])
        share = torch.softmax(others @ a[0] / temperature, 0)
        pull = a[0] * scale
        push = torch.cat([grad_a[1:], grad_b[1:]])
        torch.testing.assert_close(-grad_b[0], pull, rtol=0, atol=1e-14)
        torch.testing.assert_close(push, scale * share[:, None] * a[0], rtol=0, atol=1e-14)
        torch.testing.assert_close(-grad_a[0], scale * (b[0] - share @ others), rtol=0, atol=1e-14)
        # The anchor has length 1, so <push, anchor> is the derivative by the negative's inner product.
        assert (push @ a[0]).sum().item() * temperature == pytest.approx(1 if decoupled else q, abs=1e-13)


TAU_SMALL = {2: 0.0004, 8: 0.0025, 32: 0.0112, 128: 0.0443, 512: 0.1571, 4096: 0.599}
TAU_LARGE = {2: 0.2514, 32: 0.9124, 128: 0.9771, 4096: 0.9993}


@pytest.mark.parametrize(("temperature", "table"), [(0.1, TAU_SMALL), (0.5, TAU_LARGE)])
def test_8_coupling_against_batch_size(temperature: float, table: dict[int, float]) -> None:
    """The model's negatives all stand at the one cosine that gives the mean exp(1 / (256 tau^2))."""
    s = 1 / (256 * temperature)
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    key, negative = (torch.tensor([[x, math.sqrt(1 - x**2)]], dtype=torch.float64) for x in (0.9, s))
    found = []
    for n, q in table.items():
        positive, negatives = c.queue_terms(query, key, negative.expand(2 * n - 2, 2), temperature)
        found.append(torch.sigmoid(negatives - positive).item())
        assert found[-1] == close(q, 3 if q == 0.599 else 4)
    assert found == sorted(found)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_8_coupling_of_random_batches_follows_the_model(temperature: float) -> None:
    table = TAU_SMALL if temperature == 0.1 else TAU_LARGE
    for n in (32, 128):
        a, noise = unit(n, 128, "a"), unit(n, 128, "noise")
        side = F.normalize(noise - (noise * a).sum(1, keepdim=True) * a, dim=1)
        q = c.npc_multiplier(a, 0.9 * a + math.sqrt(1 - 0.81) * side, temperature).mean().item()
        assert q == pytest.approx(table[n], rel=0.1)


def test_9_one_sample_is_an_error() -> None:
    for loss in (c.info_nce, c.decoupled_contrastive, c.decoupled_contrastive_weighted):
        with pytest.raises(UsageError):
            loss(A[:1], A[:1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "loss", [c.info_nce, c.decoupled_contrastive, c.decoupled_contrastive_weighted, c.info_nce_nearest]
)
def test_9_small_temperature_is_finite(loss, dtype: torch.dtype) -> None:
    for b in (A, -A, A.flip(0)):
        x, y = (v.detach().clone().to(dtype).requires_grad_() for v in (A, b))
        value = loss(x, y, 0.01)
        value.backward()
        assert value.isfinite()
        assert y.grad is not None
        assert y.grad.isfinite().all()


def test_9_masked_entries_are_out_of_the_sum() -> None:
    """Adding a finite stand-in for -inf (ln 1e-45 = -103.6) would give .71967 for log 2."""
    _, negatives = c.contrastive_terms(A, A, 0.01)
    assert negatives.tolist() == pytest.approx([math.log(2)] * 4, abs=1e-14)
    _, negatives = c.contrastive_terms(A.float(), A.float(), 0.01)
    assert negatives.tolist() == pytest.approx([math.log(2)] * 4, abs=1e-6)


def test_9_float16_gives_the_float32_result() -> None:
    a, b = unit(6, 16, "a").half(), unit(6, 16, "b").half()
    for loss in (c.info_nce, c.decoupled_contrastive, c.decoupled_contrastive_weighted):
        assert torch.equal(loss(a, b), loss(a.float(), b.float()))


def test_10_queue_of_the_batchs_negatives_equals_the_in_batch_form() -> None:
    a, b = unit(5, 4, "a"), unit(5, 4, "b")
    info, dcl, _ = per_anchor(a, b, 0.2)
    for i in range(5):
        rest = torch.arange(5) != i
        query, key, queue = a[i : i + 1], b[i : i + 1], torch.cat([a[rest], b[rest]])
        assert c.info_nce_queue(query, key, queue, 0.2).item() == pytest.approx(info[i].item(), abs=1e-13)
        found = c.decoupled_contrastive_queue(query, key, queue, 0.2)
        assert found.item() == pytest.approx(dcl[i].item(), abs=1e-13)


def test_10_nearest_in_the_batch_itself_is_the_cross_view_form() -> None:
    a, b = unit(5, 4, "a", grad=True), unit(5, 4, "b", grad=True)
    neighbour = c.nearest(a, a)
    assert torch.equal(neighbour, a)
    logits = (a @ b.T / 0.2).detach()
    others = logits.masked_fill(torch.eye(5, dtype=torch.bool), -torch.inf)
    expected = (others.logsumexp(1) - logits.diagonal()).mean().item()
    loss = c.decoupled_contrastive_nearest(a, b, 0.2)
    assert loss.item() == pytest.approx(expected, abs=1e-13)
    loss.backward()
    assert a.grad is None
    assert b.grad is not None


def test_lower_bound_is_reached_by_two_antipodal_images() -> None:
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    for temperature in (1.0, 0.1, 0.01, 0.001):  # with the masked entries at -103.6 the last two would fail
        expected = -2 / temperature + math.log(2)
        assert c.decoupled_contrastive(z, z, temperature).item() == pytest.approx(expected, rel=1e-14)
    orthogonal = torch.eye(6, dtype=torch.float64)
    value = c.decoupled_contrastive(orthogonal, orthogonal, 0.1).item()
    assert value == pytest.approx(-10 + math.log(10), abs=1e-13)
