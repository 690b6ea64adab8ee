"""Sums over tiles: one result whatever the tiles, at any temperature, in memory linear in the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tacit.errors import UsageError
from tacit.losses import blocks
from tacit.losses import contrastive as c
from tacit.rng import Rng

KEPT, AGAIN = 2**24, 0
IN_BATCH = [c.info_nce, c.decoupled_contrastive, c.decoupled_contrastive_weighted]
QUEUE = [c.info_nce_queue, c.decoupled_contrastive_queue]
NEAREST = [c.info_nce_nearest, c.decoupled_contrastive_nearest]


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    def force(tile: int, keep: int = AGAIN) -> None:
        monkeypatch.setattr(blocks, "TILE", tile)
        monkeypatch.setattr(blocks, "KEEP", keep)

    return force


def draw(n: int, d: int, name: str = "", seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=Rng.of(seed)("blocks", name).torch(), dtype=torch.float64)


def learners(n: int, d: int, *names: str) -> list[Tensor]:
    return [draw(n, d, name).requires_grad_() for name in names]


def slow(a: Tensor, b: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """p and log S of each anchor, by torch, on the whole matrix."""
    z, n = torch.cat([a, b]), len(a)
    logits = z @ z.T / temperature
    same = torch.arange(2 * n) % n
    return logits.diagonal(n).repeat(2), logits.masked_fill(same[:, None] == same, -torch.inf).logsumexp(1)


def value_and_gradients(terms: tuple[Tensor, Tensor], *inputs: Tensor) -> list[Tensor]:
    """Both terms and the gradients of a sum in which each term counts differently."""
    weight = torch.linspace(-1, 2, len(terms[0]), dtype=terms[0].dtype)
    gradients = torch.autograd.grad((weight * terms[0] + weight.cos() * terms[1]).sum(), inputs)
    return [*(t.detach() for t in terms), *gradients]


def same(found: list[Tensor], expected: list[Tensor], rtol: float = 1e-11, atol: float = 1e-11) -> None:
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol)


@pytest.mark.parametrize("keep", [KEPT, AGAIN])
@pytest.mark.parametrize("tile", [1, 2, 3, 5, 7, 13, 14, 512])
@pytest.mark.parametrize("temperature", [0.005, 0.1, 2.0])
@pytest.mark.parametrize("unit", [True, False])
def test_pairs_equal_the_whole_matrix(tiled, tile: int, keep: int, temperature: float, unit: bool) -> None:
    tiled(tile, keep)
    a, b = learners(7, 4, "a", "b")
    x, y = (F.normalize(v, dim=1) if unit else v for v in (a, b))
    expected = value_and_gradients(slow(x, y, temperature), a, b)
    found = c.contrastive_terms(a, b, temperature, assume_normalized=not unit)
    same(value_and_gradients(found, a, b), expected)


@pytest.mark.parametrize("keep", [KEPT, AGAIN])
@pytest.mark.parametrize("tile", [1, 2, 3, 4, 64])
@pytest.mark.parametrize("temperature", [0.005, 0.3])
def test_rows_equal_the_whole_matrix(tiled, tile: int, keep: int, temperature: float) -> None:
    tiled(tile, keep)
    x, y = draw(5, 4, "x").requires_grad_(), draw(9, 4, "y").requires_grad_()
    for skip in ((), (0,), (4,), (-2,), (0, 3, -3)):
        logits = x @ y.T / temperature
        out = sum((torch.arange(9) == torch.arange(5)[:, None] + s).double() for s in skip)
        expected = logits.masked_fill(torch.as_tensor(out) > 0, -torch.inf).logsumexp(1)
        found = blocks.log_negatives(x, y, temperature, skip)
        same(*(value_and_gradients((t, t), x, y) for t in (found, expected)))


@pytest.mark.parametrize("keep", [KEPT, AGAIN])
def test_gradients_by_finite_differences(tiled, keep: int) -> None:
    tiled(2, keep)
    a, b = learners(3, 4, "a", "b")
    for loss in (*IN_BATCH[:2], partial(c.decoupled_contrastive_weighted, detach_weight=False)):
        for unit in (False, True):
            assert torch.autograd.gradcheck(partial(loss, temperature=0.5, assume_normalized=unit), (a, b))
    queue = draw(5, 4, "queue")
    for loss in QUEUE:
        assert torch.autograd.gradcheck(lambda x: loss(x, b.detach(), queue, 0.5), (a,))  # noqa: B023
    for loss in NEAREST:
        assert torch.autograd.gradcheck(lambda x: loss(b.detach(), x, 0.5), (a,))  # noqa: B023
    assert torch.autograd.gradcheck(lambda x, y: blocks.log_negatives(x, y, 0.5, (1,)), (a, b))
    # Without bound the same rows stand on both sides.
    assert torch.autograd.gradcheck(lambda x, y: blocks.pair_terms(torch.cat([x, y]), 0.5, 1e9), (a, b))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 12),
    tile=st.integers(1, 30),
    keep=st.sampled_from([KEPT, AGAIN]),
    temperature=st.sampled_from([0.002, 0.02, 0.1, 1.0, 30.0]),
    length=st.sampled_from([0.0, 0.01, 1.0, 20.0]),
)
def test_any_tiling_any_scale(
    tiled, seed: int, n: int, tile: int, keep: int, temperature: float, length: float
) -> None:
    tiled(tile, keep)
    a, b = ((length * F.normalize(draw(n, 3, name, seed), dim=1)).requires_grad_(True) for name in ("a", "b"))
    expected = value_and_gradients(slow(a, b, temperature), a, b)
    found = value_and_gradients(c.contrastive_terms(a, b, temperature, assume_normalized=True), a, b)
    scale = 1 + length**2 / temperature
    same(found, expected, rtol=1e-10, atol=1e-12 * scale)


@pytest.mark.parametrize("temperature", [0.001, 0.005, 0.0224, 0.0226, 0.0228, 0.05, 100.0])
@pytest.mark.parametrize("keep", [KEPT, AGAIN])
def test_float32_at_any_temperature(tiled, keep: int, temperature: float) -> None:
    """On both sides of the temperature at which rows get maxima of their own (0.0225)."""
    tiled(6, keep)
    a = F.normalize(draw(8, 3, "a"), dim=1)
    for b in (F.normalize(draw(8, 3, "b"), dim=1), a, -a):
        for one in (a, a[:1].expand_as(a)):
            x, y = one.float().requires_grad_(), b.float().requires_grad_()
            doubles = [v.detach().double().requires_grad_() for v in (x, y)]
            expected = value_and_gradients(slow(*doubles, temperature), *doubles)
            found = value_and_gradients(c.contrastive_terms(x, y, temperature, assume_normalized=True), x, y)
            assert all(t.isfinite().all() for t in found)
            error = 4e-6 * (1 + 1 / temperature)
            same([t.double() for t in found[:2]], expected[:2], 1e-6, error / 10)
            # A gradient is a mean of rows over the temperature; its weights are as wrong as the logits.
            same([t.double() for t in found[2:]], expected[2:], 1e-5, error / temperature)


def test_float32_opposite_negatives_keep_their_gradient() -> None:
    """The smallest exponentials that are summed as they are: every negative is opposite to its anchor."""
    for temperature in (0.0224, 0.0226):
        z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
        positive, negatives = c.contrastive_terms(z, z.detach(), temperature, assume_normalized=True)
        assert positive.tolist() == pytest.approx([1 / temperature] * 4, rel=1e-6)
        assert negatives.tolist() == pytest.approx([-1 / temperature + math.log(2)] * 4, rel=1e-6)
        # Each row has two negatives -z with weight 1/2, and is one for the two anchors -z.
        for scale in (1e-12, 1.0, 1e12):
            (gradient,) = torch.autograd.grad(scale * negatives.sum(), z, retain_graph=True)
            expected = -2 * scale / temperature * z.detach()
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=0)


def test_long_vectors_are_found_by_measure(tiled) -> None:
    """20 times longer than assumed: exp(400 / 0.1) is out of reach, and the result is exact all the same."""
    tiled(3)
    a, b = (20 * F.normalize(draw(6, 4, name), dim=1) for name in ("a", "b"))
    expected = slow(a, b, 0.1)
    found = c.contrastive_terms(a.float(), b.float(), 0.1, assume_normalized=True)
    same([t.double() for t in found], list(expected), 1e-6, 1e-3)


def test_not_a_number_stays_one() -> None:
    a, b = draw(4, 3, "a"), draw(4, 3, "b")
    a[1, 2] = torch.nan
    for unit in (False, True):
        assert c.info_nce(a, b, assume_normalized=unit).isnan()
    assert c.info_nce_queue(a, b, b).isnan()


def test_kept_and_computed_again_do_the_same(tiled) -> None:
    a, b = (draw(9, 5, name).float().requires_grad_() for name in ("a", "b"))
    results = []
    for keep in (KEPT, AGAIN):
        tiled(4, keep)
        terms = c.contrastive_terms(a, b), c.nearest_terms(a, b), c.queue_terms(b, a, a[:3])
        (gradient,) = torch.autograd.grad(sum(negatives.sum() for _, negatives in terms), b)
        results.append([*(x for pair in terms for x in pair), gradient])
    for x, y in zip(*results, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("keep", [KEPT, AGAIN])
def test_backward_twice_and_twice_in_one_graph(tiled, keep: int) -> None:
    tiled(3, keep)
    a, b = learners(5, 4, "a", "b")
    for call in (c.decoupled_contrastive, lambda x, y: c.decoupled_contrastive_queue(x, y, y, 0.1)):
        loss = call(a, b)
        first = torch.autograd.grad(loss, a, retain_graph=True)[0]
        assert torch.equal(torch.autograd.grad(loss, a)[0], first)
        twice = torch.autograd.grad(call(a, b) + call(a, b), a)[0]
        torch.testing.assert_close(twice, 2 * first, rtol=1e-12, atol=0)


@pytest.mark.parametrize("keep", [KEPT, AGAIN])
def test_any_layout(tiled, keep: int) -> None:
    tiled(3, keep)
    a, b = (draw(4, 5, name).T.requires_grad_() for name in ("a", "b"))
    queue = draw(1, 4, "queue").expand(6, 4)
    assert not a.is_contiguous()
    copies = [x.detach().contiguous().requires_grad_() for x in (a, b)]
    for loss in (*IN_BATCH, *NEAREST, lambda x, y, **how: c.info_nce_queue(y, x, queue, **how)):
        for unit in (False, True):
            found, expected = (
                torch.autograd.grad(loss(x, y, assume_normalized=unit), y) for x, y in ((a, b), copies)
            )
            same([*found], [*expected])


@pytest.mark.parametrize("keep", [KEPT, AGAIN])
def test_backward_within_autocast_changes_nothing(tiled, keep: int) -> None:
    tiled(3, keep)
    a, b = (draw(5, 4, name).float().requires_grad_() for name in ("a", "b"))
    for loss in (*IN_BATCH, *NEAREST, lambda x, y: c.info_nce_queue(y, x, x.detach())):
        expected = torch.autograd.grad(loss(a, b), b)[0]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(torch.autograd.grad(loss(a, b), b)[0], expected)


def test_there_is_no_second_derivative() -> None:
    a, b = learners(3, 4, "a", "b")
    (gradient,) = torch.autograd.grad(c.info_nce(a, b), a, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_learnt_temperature_is_one_clear_line() -> None:
    a, b = learners(3, 4, "a", "b")
    with pytest.raises(UsageError, match="temperature gets no gradient"):
        c.info_nce(a, b, torch.tensor(0.1, requires_grad=True))  # type: ignore[arg-type]


def test_nearest_in_parts_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    z, queue = draw(11, 4, "z"), draw(7, 4, "queue")
    expected = queue[(z @ queue.T).argmax(1)]
    for entries in (1, 7, 20, 10**6):
        monkeypatch.setattr(blocks, "_SEARCH", entries)
        assert torch.equal(c.nearest(z, queue), expected)


# Memory


class Largest(TorchDispatchMode):
    """The most elements that one tensor had, and the number of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = self.products = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        self.products += function.overloadpacket in (torch.ops.aten.addmm_, torch.ops.aten.mm)
        sizes = [
            x.untyped_storage().nbytes() // x.itemsize for x in tree_leaves(out) if isinstance(x, Tensor)
        ]
        self.elements = max(self.elements, *sizes, 0)
        return out


@pytest.mark.parametrize("keep", [KEPT, AGAIN])
def test_the_largest_tensor_grows_with_n_and_not_its_square(
    tiled, keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiled(16, keep)
    monkeypatch.setattr(blocks, "_SEARCH", 256)
    d = 4
    for n in (32, 128):
        a, b, queue = draw(n, d, "a").requires_grad_(), draw(n, d, "b").requires_grad_(), draw(4 * n, d, "q")
        for call in (
            *IN_BATCH,
            *NEAREST,
            partial(c.info_nce, temperature=1e-4),
            lambda x, y: c.info_nce_queue(x, y, queue),  # noqa: B023
            lambda x, y: c.info_nce(x, y) + c.nearest(x, queue).sum(),  # noqa: B023
        ):
            with Largest() as seen:
                call(a, b).backward()
            assert seen.elements <= max(4 * n * d, 16 * 16, 256)


def products(call: Callable[[], object]) -> int:
    with Largest() as seen:
        call()
    return seen.products


@pytest.mark.parametrize("keep", [KEPT, AGAIN])
def test_no_work_for_what_gets_no_gradient(tiled, keep: int) -> None:
    tiled(4, keep)
    again = keep == AGAIN
    a, b = learners(8, 4, "a", "b")
    queue = draw(12, 4, "queue").requires_grad_()
    # 16 rows: 10 tiles on and above the diagonal, 6 of them above it.
    forward, whole = 10, 10 + again * 10 + 16
    assert products(lambda: c.npc_multiplier(a, b)) == forward
    assert products(lambda: c.info_nce(a, b).backward()) == forward + whole - 10
    # 8 x 12: 6 tiles, and one gradient of two.
    assert products(lambda: c.info_nce_queue(a, b, queue).backward()) == 6 + again * 6 + 6
    assert queue.grad is None
    # 8 x 8: 4 tiles; the neighbours get no gradient.
    assert products(lambda: c.info_nce_nearest(a, b).backward()) == 4 + again * 4 + 4
