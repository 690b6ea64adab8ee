"""A second network for co-training: the same architecture, weights of its own."""

import pytest
import torch
from torch import nn

from tacit.encoders.card import attach_card, card_of
from tacit.encoders.saved import save_encoder
from tacit.encoders.twin import fresh_copy
from tacit.encoders.unet import UNet3d
from tacit.encoders.vnet import VNet
from tacit.encoders.zoo import build_encoder, load_encoder
from tacit.errors import UsageError
from tacit.rng import Rng


def same(a, b):
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def shapes(net):
    return {name: value.shape for name, value in net.state_dict().items()}


def drawn_alike(net, twin):
    """Weights of each matrix have the same spread in both."""
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        if one.ndim > 1:
            tolerance = 6 * one.numel() ** -0.5
            assert other.std().item() == pytest.approx(one.std().item(), rel=tolerance)
            assert not torch.equal(one, other)


BUILT = [
    lambda: build_encoder("tacit/vnet?width=2", channels=1, patch=(16, 16, 16), seed=5),
    lambda: build_encoder("tacit/unet3d?width=4&depth=2", channels=1, patch=(8, 8, 8), seed=5),
    lambda: build_encoder("monai/UNet?channels=4,8", channels=1, patch=(8, 8, 8), seed=5),
    lambda: build_encoder("timm/resnet10t", channels=1, size=28, seed=5),
    lambda: attach_card(UNet3d(width=4, depth=2), channels=1, patch=(8, 8, 8)),
    lambda: VNet(width=2),
    lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.MultiheadAttention(8, 2)),
]


@pytest.mark.parametrize("build", BUILT)
def test_the_twin_has_the_architecture_and_not_the_weights(build):
    torch.manual_seed(1)
    encoder = build()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    twin = fresh_copy(encoder, Rng.of(1)("twin"))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert type(twin) is type(encoder)
    assert shapes(twin) == shapes(encoder)
    assert not same(twin, encoder)
    drawn_alike(encoder, twin)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in encoder.parameters()}


@pytest.mark.parametrize("build", BUILT)
def test_equal_places_give_equal_weights_whatever_the_encoder_has_learned(build):
    torch.manual_seed(1)
    encoder = build()
    first = fresh_copy(encoder, Rng.of(1)("twin"))
    with torch.no_grad():
        for value in encoder.state_dict().values():
            value.add_(1)
    torch.manual_seed(99)
    assert same(first, fresh_copy(encoder, Rng.of(1)("twin")))
    assert not same(first, fresh_copy(encoder, Rng.of(2)("twin")))


def test_card_mode_and_type_are_kept(tmp_path):
    encoder = build_encoder("tacit/vnet?width=2", channels=1, patch=(16, 16, 16), seed=5)
    save_encoder(encoder, tmp_path)
    learned = load_encoder(tmp_path).double()
    twin = fresh_copy(learned, Rng.of(1))
    assert card_of(twin) == card_of(learned)
    assert (card_of(learned).learned, card_of(twin).learned) == (True, False)
    assert not twin.training
    assert next(twin.parameters()).dtype == torch.float64
    assert fresh_copy(encoder, Rng.of(1)).training
    own = attach_card(nn.Linear(2, 3), channels=1, size=4, num_features=3)
    assert card_of(fresh_copy(own, Rng.of(1))) == card_of(own)


def test_an_encoder_that_was_changed_after_it_was_built_keeps_the_change():
    encoder = build_encoder("tacit/convnet?width=4", channels=1, size=8)
    encoder.layers.append(nn.Conv2d(16, 16, 1))
    twin = fresh_copy(encoder, Rng.of(1))
    assert shapes(twin) == shapes(encoder)
    drawn_alike(encoder, twin)


def test_initialise_has_the_last_word():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(50, 50)

        def initialise(self):
            nn.init.uniform_(self.inner.weight, 5, 6)

    twin = fresh_copy(Own(), Rng.of(1))
    assert twin.inner.weight.min() >= 5


def test_running_statistics_begin_anew():
    own = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    own(torch.rand(4, 1, 5, 5) + 3)
    assert own[1].running_mean.abs().max() > 0
    assert fresh_copy(own, Rng.of(1))[1].running_mean.abs().max() == 0


def test_weights_that_nobody_can_draw_are_one_line():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

    with pytest.raises(UsageError, match="no weight of Bare can be drawn again"):
        fresh_copy(Bare(), Rng.of(1))
