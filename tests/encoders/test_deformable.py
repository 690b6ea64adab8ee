import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tacit.encoders.deformable import DeformableAttention1d, PositionBias, sample_line
from tacit.errors import UsageError
from tacit.rng import Rng, seeded


def make(channels=8, **options):
    """Small, in float64."""
    small = {"heads": 2, "dim_head": 4, "downsample": 2, "groups": 2}
    with seeded(Rng.of(0)("test")):
        return DeformableAttention1d(channels, **{**small, **options}).double()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def still(layer):
    """No offsets, whatever the input."""
    nn.init.zeros_(layer.to_offsets[2].weight)
    return layer


@pytest.mark.parametrize(
    ("aligned", "expected"), [(True, [0, 1.75, 3.5, 5.25, 7]), (False, [0, 1.5, 3.5, 5.5, 3.5])]
)
def test_the_sampler_interpolates_between_neighbours(aligned, expected):
    x = torch.arange(8.0, dtype=torch.float64)[None, None]
    place = torch.tensor([[-1, -0.5, 0, 0.5, 1]], dtype=torch.float64)
    assert sample_line(x, place, align_corners=aligned)[0, 0].tolist() == pytest.approx(expected)


def test_outside_of_the_sequence_is_zero_and_half_way_out_a_half():
    x = torch.full((1, 1, 5), 3.0)
    step = 2 / 4  # between elements
    place = torch.tensor([[-1 - step / 2, 1 + step / 2, -1 - step, 2.5]])
    assert sample_line(x, place)[0, 0].tolist() == pytest.approx([1.5, 1.5, 0, 0])


@pytest.mark.parametrize(("channels", "expected"), [(64, 45_953), (640, 477_953)])
def test_parameters_are_as_many_as_the_published_layers(channels, expected):
    layer = DeformableAttention1d(channels)
    assert sum(p.numel() for p in layer.parameters()) == expected


@pytest.mark.parametrize(("length", "downsample", "keys"), [(64, 4, 16), (640, 4, 160), (28, 2, 14)])
def test_there_is_one_key_for_every_few_positions(length, downsample, keys):
    layer = make(downsample=downsample, offset_kernel=6)
    assert layer.positions(layer.to_q(noise(1, 8, length))).shape == (1, 2, keys)


@pytest.mark.parametrize("length", range(1, 10))
def test_any_length_works_and_no_position_goes_unseen(length):
    layer = make(downsample=4, offset_kernel=6)
    x = noise(2, 8, length)
    assert layer.positions(layer.to_q(x)).shape[-1] == math.ceil(length / 4)
    out = layer(x)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    q = layer.to_q(x).detach().requires_grad_()
    layer.offsets(q).sum().backward()
    assert (q.grad.abs().sum((0, 1)) > 0).all()


def test_without_offsets_and_downsampling_the_keys_are_the_positions():
    layer = still(make(downsample=1, offset_kernel=6))
    x = noise(2, 8, 7)
    assert torch.allclose(layer.sampled(x, layer.positions(layer.to_q(x))), x, atol=1e-12)
    plain = make(deformable=False)
    plain.load_state_dict(layer.state_dict(), strict=False)
    assert torch.allclose(layer(x), plain(x), atol=1e-12)


def test_offsets_stay_within_their_scale_and_reach_it():
    layer = make()
    nn.init.constant_(layer.to_offsets[2].weight, 1e3)
    offsets = layer.offsets(10 * layer.to_q(noise(4, 8, 12)))
    assert offsets.abs().max() <= 2
    assert offsets.abs().max() > 1.99
    # 6 keys: neighbours are 2 / 5 apart
    moved = layer.positions(10 * layer.to_q(noise(4, 8, 12))) - torch.linspace(-1, 1, 6, dtype=torch.float64)
    assert torch.allclose(moved, offsets * 2 / 5)


def reference(layer, x):
    """The paper's equations, one number at a time, for one sequence (c, n)."""
    c, n = x.shape
    groups, heads = layer.groups, layer.heads
    q = layer.to_q(x[None])[0]
    position = layer.positions(q[None])[0]
    m = position.shape[1]
    kv = torch.zeros(c, m, dtype=x.dtype)
    for channel in range(c):
        for j in range(m):
            at = (position[channel // (c // groups), j] + 1) / 2 * (n - 1)
            for i in range(n):
                kv[channel, j] += max(0.0, 1 - abs(at - i)) * x[channel, i]
    k, v = layer.to_k(kv[None])[0], layer.to_v(kv[None])[0]
    width = q.shape[0] // heads
    out = torch.zeros_like(q)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        group, output = head // (heads // groups), head % (heads // groups)
        logits = q[part].T @ k[part] / math.sqrt(width)
        for i in range(n):
            for j in range(m):
                r = -1 + 2 * i / (n - 1) - position[group, j]
                scaled = torch.sign(r) * torch.log(1 + abs(r))
                logits[i, j] += layer.bias.layers(scaled[None])[output]
        out[part] = v[part] @ logits.softmax(1).T
    return layer.to_out(out[None])[0]


def test_it_computes_the_papers_equations():
    layer = make(heads=4, groups=2, downsample=2, offset_kernel=4)
    nn.init.normal_(layer.to_offsets[2].weight, generator=torch.Generator().manual_seed(1))
    x = noise(2, 8, 9)
    assert torch.allclose(layer(x)[1], reference(layer, x[1]), atol=1e-10)


def test_a_constant_sequence_does_not_care_where_its_keys_lie_while_they_are_inside():
    layer = still(make())
    nn.init.zeros_(layer.bias.layers[-1].weight)  # else the bias weighs positions, though all are equal
    x = noise(1, 8, 1).expand(1, 8, 12)
    places = [torch.linspace(-1, 1, 6).double(), torch.tensor([-0.9, 0.3, 0.35, 0, 0.7, 1]).double()]
    a, b = (layer.sampled(x, place.expand(1, 2, 6)) for place in places)
    assert torch.allclose(a, b)
    outside = layer.sampled(x, torch.full((1, 2, 6), 1.5, dtype=torch.float64))
    assert not torch.allclose(a, outside)


def test_gradient_reaches_the_offsets_and_samples_do_not_mix():
    layer = make()
    x = noise(3, 8, 10).requires_grad_()
    layer(x)[1].square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().sum() > 0 or name == "bias.layers.4.bias", name  # softmax ignores a shift
    assert x.grad[1].abs().sum() > 0
    assert x.grad[[0, 2]].abs().sum() == 0


def test_gradients_are_right():
    layer = make(channels=4, heads=2, dim_head=2, downsample=2, offset_kernel=3)
    assert torch.autograd.gradcheck(layer, noise(2, 4, 5).requires_grad_())


def test_order_matters_only_by_offsets_and_position_bias():
    layer, x = make(), noise(2, 8, 12)
    assert not torch.allclose(layer(x.flip(2)).flip(2), layer(x), atol=1e-6)
    still(layer)
    nn.init.zeros_(layer.bias.layers[-1].weight)
    assert torch.allclose(layer(x.flip(2)).flip(2), layer(x), atol=1e-12)


def test_the_bias_is_of_the_distance_and_its_sign():
    with seeded(Rng.of(0)("test")):
        bias = PositionBias(16, 1).double()
    query, key = torch.tensor([0.0, 0.5]).double(), torch.tensor([[-0.5, 0.0]]).double()
    table = bias(query, key)[0, 0].detach()
    assert table.shape == (2, 2)
    assert table[0, 0] == table[1, 1]  # both 0.5
    assert table[0, 1] != table[0, 0]
    expected = bias.layers(torch.tensor([math.log(2.0)]).double())  # distance 1
    assert table[1, 0] == pytest.approx(expected.item())
    swapped = bias(key[0], query[None])[0, 0]
    assert not torch.isclose(swapped[0, 0], table[0, 0])  # -0.5 is not 0.5


@pytest.mark.parametrize("options", [{"channels": 7}, {"heads": 3}, {"downsample": 4, "offset_kernel": 3}])
def test_numbers_that_do_not_fit_are_one_line(options):
    with pytest.raises(UsageError, match="choose") as error:
        make(**options)
    assert "\n" not in str(error.value)


def test_attention_is_torchs_own_where_nothing_is_deformed():
    layer = make(deformable=False)
    for part in layer.bias.layers:
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.weight)
    x = noise(2, 8, 6)
    q, k, v = (f(x).unflatten(1, (2, 4)).transpose(2, 3) for f in (layer.to_q, layer.to_k, layer.to_v))
    plain = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2)
    assert torch.allclose(layer(x), layer.to_out(plain))
