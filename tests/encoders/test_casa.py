"""CASA: the attention worked by hand, what it is blind to, and its parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.encoders.casa import CAFA, CASA
from tacit.encoders.distillation_head import DistillationHead
from tacit.errors import UsageError
from tacit.rng import Rng, seeded


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Rng.of(seed)("test").torch())


def layer(width: int = 16, heads: int = 4, **options: float) -> CASA:
    with seeded(Rng.of(0)("casa")):
        return CASA(width, heads, hidden=32, **options)


def bare() -> CASA:
    """One head, projections that change nothing, no perceptron and no normalisation."""
    found = CASA(2, 1, hidden=1, dropout=0.0)
    for projection in (found.query, found.key, found.value, found.out):
        nn.init.eye_(projection.weight)
    for parameter in found.perceptron.parameters():
        nn.init.zeros_(parameter)
    found.attended = found.told = nn.Identity()
    return found


def test_the_hand_example():
    q, kv = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    casa = bare()
    torch.testing.assert_close(casa.attention(q, kv), torch.tensor([[[[0.6698, 0.3302]]]]), atol=5e-5, rtol=0)
    torch.testing.assert_close(casa(q, kv), torch.tensor([[[1.6698, 0.3302]]]), atol=5e-5, rtol=0)


def test_it_is_the_slow_layer():
    casa = layer().eval().double()
    for norm in (casa.attended, casa.told):
        nn.init.normal_(norm.weight, generator=Rng.of(1).torch())
    q, kv = noise(2, 3, 16).double(), noise(2, 5, 16, seed=1).double()
    heads = []
    for h in range(4):
        part = slice(4 * h, 4 * h + 4)
        a = (q @ casa.query.weight[part].T) @ (kv @ casa.key.weight[part].T).mT / 2
        heads.append(a.softmax(-1) @ (kv @ casa.value.weight[part].T))
    y = F.layer_norm(q + torch.cat(heads, -1) @ casa.out.weight.T, (16,), casa.attended.weight, eps=1e-6)
    first, _, second = casa.perceptron
    z = y + F.relu(y @ first.weight.T + first.bias) @ second.weight.T + second.bias
    expected = F.layer_norm(z, (16,), casa.told.weight, eps=1e-6)
    torch.testing.assert_close(casa(q, kv), expected)


def test_shape_order_and_a_single_token():
    casa, q, kv = layer().eval(), noise(2, 3, 16), noise(2, 7, 16, seed=1)
    out = casa(q, kv)
    assert out.shape == q.shape
    torch.testing.assert_close(casa(q, kv[:, torch.tensor([3, 1, 6, 0, 2, 5, 4])]), out)
    assert (casa(q, kv + noise(2, 7, 16, seed=2)) - out).abs().max() > 0.1
    assert torch.equal(casa.attention(q, kv[:, :1]), torch.ones(2, 4, 3, 1))
    torch.testing.assert_close(casa.attention(q, kv).sum(-1), torch.ones(2, 4, 3))


def test_equal_tokens_give_equal_answers_without_dropout():
    casa, q, kv = layer(), noise(2, 3, 16), noise(2, 7, 16, seed=1)
    with seeded(Rng.of(0)):
        assert not torch.equal(casa(q, kv), casa(q, kv))
    off = layer(dropout=0.0)
    assert torch.equal(off(q, kv), off(q, kv.clone()))
    torch.testing.assert_close(off(q, kv), casa.eval()(q, kv))


def test_a_query_can_be_projected_elsewhere():
    casa, other, q, kv = layer().eval(), layer().eval(), noise(2, 3, 16), noise(2, 7, 16, seed=1)
    nn.init.zeros_(other.query.weight)
    assert (other(q, kv) - casa(q, kv)).abs().max() > 1e-3
    torch.testing.assert_close(other(q, kv, projected=casa.query(q)), casa(q, kv))


def test_what_the_paper_has():
    casa = CAFA()
    assert sum(p.numel() for p in casa.parameters()) == 4 * 512 * 512 + 2 * 512 * 2048 + 2048 + 512 + 4 * 512
    assert casa.attended.eps == casa.told.eps == 1e-6


@pytest.mark.parametrize("wrong", [{"width": 10, "heads": 4}, {"heads": 0}, {"dropout": 1.0}])
def test_wrong_arguments(wrong):
    with pytest.raises(UsageError):
        CASA(**wrong)


def head(**options: int) -> DistillationHead:
    with seeded(Rng.of(0)("head")):
        return DistillationHead(12, 12, 6, 10, 16, 8, **options)


def test_logits_are_cosines_with_prototypes():
    cls, enc, dec = noise(2, 12), noise(2, 5, 12, seed=1), noise(2, 9, 6, seed=2)
    for shared in (False, True):
        found = head(shared_last=shared)
        with torch.no_grad():
            found.last_cls.mul_(5)  # length does not matter
        out = found(cls, enc, dec)
        assert [tuple(x.shape) for x in out] == [(2, 10), (2, 5, 10), (2, 9, 10)]
        v = F.normalize(found.shared(found.adapt_dec(dec)), dim=-1)
        w = found.last_token / found.last_token.norm(dim=1, keepdim=True)
        torch.testing.assert_close(out.dec, v @ w.T)
        assert (found.last_cls is found.last_token) == shared
    assert head()(cls, enc, None).dec is None


def test_held_last_layers_get_no_gradient_and_the_rest_does():
    found = head()
    out = found(noise(2, 12), noise(2, 5, 12, seed=1), noise(2, 9, 6, seed=2), hold_last=True)
    sum(x.square().sum() for x in out).backward()
    assert not found.last_cls.grad.any()
    assert not found.last_token.grad.any()
    assert found.shared[0].weight.grad.any()
    free = head()
    sum(x.square().sum() for x in free(noise(2, 12), noise(2, 5, 12, seed=1), None)[:2]).backward()
    assert free.last_cls.grad.any()
    assert free.last_token.grad.any()


def test_a_narrow_head_and_tokens_of_zeros_have_gradients_of_a_usual_size():
    found = head()
    out = found(noise(2, 12), noise(2, 5, 12, seed=1), torch.zeros(2, 9, 6))
    sum(x[..., 0].sum() for x in out).backward()
    assert max(p.grad.norm() for p in found.parameters()) < 1e3
