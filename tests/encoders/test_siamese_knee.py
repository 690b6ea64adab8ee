"""The network of Semixup: its shapes, its weights, and what must not change its features."""

import pytest
import torch
from torch import nn

from tacit.encoders.card import card_of
from tacit.encoders.saved import save_encoder
from tacit.encoders.siamese_knee import SiameseKneeNet
from tacit.encoders.zoo import build_encoder, load_encoder
from tacit.errors import UsageError


def small(**arguments):
    torch.manual_seed(0)
    return SiameseKneeNet(**{"width": 4, **arguments}).eval().double()


def pairs(batch=2, side=32, channels=2, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, side, side, generator=draw, dtype=torch.float64)


def test_the_shapes_of_the_paper():
    net = SiameseKneeNet().eval()
    x, shapes = torch.randn(1, 1, 128, 128), []
    with torch.no_grad():
        for block in net.blocks:
            x = block(x)
            shapes.append(tuple(x.shape[1:]))
        both = torch.randn(2, 2, 128, 128)
        assert net.forward_features(both).shape == (2, 512, 16, 16)
        assert net(both).shape == (2, 512) == (2, net.num_features)
    assert shapes == [(32, 128, 128), (64, 64, 64), (128, 32, 32), (256, 16, 16)]
    assert nn.Linear(512, 5, bias=False)(net(both[:1])).shape == (1, 5)


def test_the_weights_are_those_that_were_counted():
    # 9 (1 32 + 32 32 + 32 32 + 32 64 + 64 64 + 64 128 + 128 128 + 128 256 + 256 256) + 256 256
    expected = 9 * (32 + 2 * 1024 + 2048 + 4096 + 8192 + 16384 + 32768 + 65536) + 65536
    assert expected == 1_245_472
    for channels in (1, 2):
        assert sum(p.numel() for p in SiameseKneeNet(channels).parameters()) == expected
    assert sum(p.numel() for p in SiameseKneeNet(pool="gap").parameters()) == expected - 65536
    assert not list(SiameseKneeNet().buffers())  # no running statistics
    assert all(p.ndim == 4 for p in SiameseKneeNet().parameters())  # no bias, no learned scale


def test_weights_begin_normal_with_a_deviation_of_a_fiftieth():
    torch.manual_seed(3)
    for weight in SiameseKneeNet().parameters():
        assert weight.std().item() == pytest.approx(0.02, rel=0.15)
        assert weight.mean().item() == pytest.approx(0, abs=4 * 0.02 / weight.numel() ** 0.5)


@pytest.mark.parametrize("pool", ["hv", "vh", "gap"])
def test_exchanged_sides_exchange_the_halves(pool):
    net, x = small(pool=pool), pairs()
    first, second = net(x).chunk(2, 1)
    assert torch.allclose(net(x.flip(1)), torch.cat([second, first], 1), atol=1e-12)
    assert not torch.allclose(first, second)
    # each half is what a network of one channel says of that side
    alone = small(pool=pool, channels=1)
    assert alone.num_features == 32
    assert torch.allclose(alone(x[:, 1:]), second, atol=1e-12)


def test_contrast_changes_nothing():
    net, x = small(), 1e4 * pairs()
    assert torch.allclose(net(x), net(3 * x), atol=1e-5)
    assert net(x).abs().max() > 0.5
    assert not torch.allclose(net(x), net(-x), atol=0.1)


def reference(net, x):
    """One side, (B, 1, H, W), the obvious way."""
    conv = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]

    def layer(x, weight, stride):
        x = nn.functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        x = (x - mean) / (var + 1e-5).sqrt()
        return torch.where(x > 0, x, 0.2 * x)

    for weight, stride in zip(conv[:9], (1, 1, 1, 2, 1, 2, 1, 2, 1), strict=True):
        x = layer(x, weight, stride)
    if net.pool == "gap":
        return x.flatten(2).mean(2)
    over, rest = (3, 2) if net.pool == "hv" else (2, 3)
    line = layer(x.max(over, keepdim=True).values, conv[9], 1)
    return line.max(rest, keepdim=True).values.flatten(1)


@pytest.mark.parametrize("pool", ["hv", "vh", "gap"])
@pytest.mark.parametrize("shape", [(16, 16), (24, 40), (33, 20)])
def test_against_the_obvious_way(pool, shape):
    net = small(pool=pool)
    x = pairs(side=64)[:, :, : shape[0], : shape[1]]
    expected = torch.cat([reference(net, x[:, :1]), reference(net, x[:, 1:])], 1)
    assert torch.allclose(net(x), expected, atol=1e-10)
    assert torch.allclose(net.forward_head(net.forward_features(x)), net(x))


def test_pooling_height_first_is_width_first_of_the_turned_image():
    net, turned = small(), small(pool="vh")
    for module in turned.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.mT
    assert torch.allclose(turned(pairs().mT), net(pairs()), atol=1e-12)


def test_dropout_is_for_learning_only():
    net, x = small(dropout=0.35), pairs()
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.allclose(net(x), net(x))
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.35] * 3
    without = small(dropout=0.0).train()
    assert torch.equal(without(x), small().eval()(x))


def test_gradients_reach_every_weight_from_both_sides():
    for side in (0, 1):
        net = small()
        half = net(pairs()).chunk(2, 1)[side]
        (half * torch.arange(half.shape[1])).sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_by_spec_string(tmp_path):
    encoder = build_encoder("tacit/siamese-knee?width=4&pool=vh&dropout=0.1", channels=2, size=128, seed=1)
    assert isinstance(encoder, SiameseKneeNet)
    assert encoder.pool == "vh"
    assert card_of(encoder).num_features == encoder.num_features == 64
    assert build_encoder("tacit/siamese-knee?width=32&pool=hv", channels=2).num_features == 512
    save_encoder(encoder, tmp_path)
    x = torch.randn(2, 2, 128, 128)
    with torch.no_grad():
        assert torch.equal(load_encoder(tmp_path)(x), encoder.eval()(x))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pool=hvv", "did you mean 'hv'"),
        ("width=0", "width of at least 1, not 2 and 0"),
        ("width=1.5", "width of at least 1"),
        ("dropout=1", r"dropout must lie in \[0, 1\)"),
        ("depth=3", "depth"),
    ],
)
def test_wrong_specs_get_one_line(spec, message):
    with pytest.raises(UsageError, match=message) as caught:
        build_encoder(f"tacit/siamese-knee?{spec}", channels=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 2, 8, 32), (1, 3, 32, 32), (2, 32, 32)])
def test_wrong_inputs_get_one_line(shape):
    with pytest.raises(UsageError, match=r"takes \(B, 2, H, W\) with sides of at least 16"):
        SiameseKneeNet(width=2)(torch.zeros(shape))
