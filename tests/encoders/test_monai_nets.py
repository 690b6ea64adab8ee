"""MONAI's networks as encoders: where their bottleneck is, their maps, and what is refused."""

import copy
import subprocess
import sys

import pytest
import torch

from tacit.encoders.card import card_of
from tacit.encoders.monai_nets import MonaiNet
from tacit.encoders.pyramid import pyramid_of
from tacit.encoders.saved import save_encoder
from tacit.encoders.zoo import build_encoder, load_encoder
from tacit.errors import UsageError

pytest.importorskip("monai")
TINY = "monai/UNet?channels=4,8,16&strides=2,2&maps=5"


def volumes(*sides, channels=1, batch=2):
    return torch.rand(batch, channels, *sides, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("spec", "patch", "features", "divisor"),
    [
        (TINY, (12, 8, 16), 8 + 16, 4),  # at the bottom MONAI puts the last two stages side by side
        ("monai/AttentionUnet?channels=4,8&maps=3", (4, 8, 6), 8, 2),
        ("monai/SegResNet?blocks_down=1,1,1&blocks_up=1,1", (8, 4, 8), 32, 4),
        ("monai/DynUNet?strides=1,2,2&filters=4,6,8", (16, 8, 12), 8, 4),
        ("monai/BasicUNet?features=4,4,4,4,6,4", (32, 16, 16), 6, 16),
        ("monai/UNet?spatial_dims=2&channels=4,8", (8, 6, 1), 12, 2),
    ],
)
def test_the_two_maps(spec, patch, features, divisor):
    net = build_encoder(spec, channels=2, patch=patch).eval()
    maps = net.maps
    assert pyramid_of(net).pyramid_features == (features, maps)
    assert (net.divisor, net.num_features, card_of(net).num_features) == (divisor, features, features)
    assert (card_of(net).form.patch, card_of(net).form.modality) == (patch, "volume")
    x = volumes(*patch, channels=2)
    with torch.no_grad():
        bottleneck, finest = net.forward_pyramid(x)
        small = [max(1, side // divisor) for side in patch]
        assert bottleneck.shape == (2, features, *small)
        assert finest.shape == (2, maps, *patch)
        inner = x[..., 0] if net.dims == 2 else x
        outer = finest[..., 0] if net.dims == 2 else finest
        assert torch.equal(net.net(inner), outer)
        assert torch.equal(net.forward_features(x), bottleneck)
        assert torch.allclose(net(x), bottleneck.flatten(2).mean(2))


def test_the_case_of_letters_does_not_matter():
    net = build_encoder("monai/unet?channels=4,8", channels=1)
    assert net.name == "monai/UNet"
    assert net.num_features == 12


def test_swin_unetr_halves_five_times():
    small = "feature_size=12&num_heads=1,1,1,1&depths=1,1,1,1&window_size=2&maps=4"
    net = build_encoder(f"monai/SwinUNETR?{small}", channels=1, patch=(64, 32, 32)).eval()
    assert net.divisor == 32
    assert net.pyramid_features == (16 * 12, 4)
    with torch.no_grad():
        bottleneck, finest = net.forward_pyramid(volumes(64, 32, 32, batch=1))
    assert (bottleneck.shape[2:], finest.shape[1:]) == ((2, 1, 1), (4, 64, 32, 32))
    with pytest.raises(UsageError, match="multiples of 32, not 64 x 48 x 32: pass a patch of 64 x 64 x 32"):
        net.check_space((64, 48, 32))


def test_unetr_is_built_for_its_patch_and_gives_its_tokens(tmp_path):
    small = "hidden_size=8&mlp_dim=8&num_heads=2&feature_size=2"
    net = build_encoder(f"monai/UNETR?{small}", channels=1, patch=(48, 32, 16)).eval()
    assert (net.divisor, net.pyramid_features) == (16, (8, 16))
    x = volumes(48, 32, 16)
    with torch.no_grad():
        bottleneck, finest = net.forward_pyramid(x)
        tokens = net.net.vit(x)[0]
        assert finest.shape == (2, 16, 48, 32, 16)
        assert bottleneck.shape == (2, 8, 3, 2, 1)
        # tokens lie in the order of the axes, the last running fastest
        assert torch.equal(bottleneck[:, :, 2, 1, 0], tokens[:, 5])
        assert torch.equal(bottleneck[:, :, 1, 0, 0], tokens[:, 2])
        assert torch.allclose(net(x), tokens.mean(1), atol=1e-6)
        save_encoder(net, tmp_path)
        assert torch.equal(load_encoder(tmp_path)(x), net(x))
    with pytest.raises(UsageError, match="was built for inputs of 48 x 32 x 16 and takes no 32 x 32 x 16"):
        net.forward_pyramid(volumes(32, 32, 16))


def test_features_of_a_map_of_the_finest_answer_reach_the_weights():
    net = build_encoder(TINY, channels=1, patch=(8, 8, 8)).train()
    net.forward_pyramid(volumes(8, 8, 8))[1].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(p.grad.abs().max() > 0 for p in net.parameters() if p.ndim > 1)
    net.zero_grad()
    net(volumes(8, 8, 8)).square().sum().backward()
    reached = [name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert "net.model.0.conv.unit0.conv.weight" in reached


def test_the_trial_leaves_no_trace():
    net = MonaiNet("UNet", 1, None, {"channels": "4,8", "norm": "BATCH"})
    assert net.training
    assert net.net.training
    counts = [buffer for name, buffer in net.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 0 for count in counts)
    assert not any(module._forward_hooks for module in net.modules())
    net.forward_pyramid(volumes(4, 4, 4))
    assert not any(module._forward_hooks for module in net.modules())
    twin = copy.deepcopy(net).eval()
    x = volumes(4, 4, 4)
    assert torch.equal(twin.forward_pyramid(x)[0], net.eval().forward_pyramid(x)[0])


def test_deep_supervision_gives_its_finest_map():
    spec = "monai/DynUNet?strides=1,2,2,2&filters=4,4,4,4&deep_supervision=true&maps=3"
    net = build_encoder(spec, channels=1, patch=(16, 16, 16)).train()
    assert net.forward_pyramid(volumes(16, 16, 16))[1].shape == (2, 3, 16, 16, 16)


def test_saved_networks_come_back_exactly(tmp_path):
    encoder = build_encoder(TINY, channels=2, patch=(8, 12, 8), seed=3).eval()
    save_encoder(encoder, tmp_path)
    back, x = load_encoder(tmp_path), volumes(8, 12, 8, channels=2)
    with torch.no_grad():
        for one, other in zip(back.forward_pyramid(x), encoder.forward_pyramid(x), strict=True):
            assert torch.equal(one, other)
    assert card_of(back) == card_of(encoder)
    first = next(encoder.parameters())
    again, other = (build_encoder(TINY, channels=2, patch=(8, 12, 8), seed=seed) for seed in (3, 4))
    assert torch.equal(first, next(again.parameters()))
    assert not torch.equal(first, next(other.parameters()))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("monai/UNett", "did you mean 'monai/unet'"),
        ("monai/ViT", "does not take in_channels and out_channels"),
        ("monai/UNet?chanels=4,8", "option of monai/UNet 'chanels'; did you mean 'channels'"),
        ("monai/UNet?channels=4", "encoder monai/UNet: "),
        ("monai/UNet?channels=4,8&norm=nonsense", "encoder monai/UNet: "),
        ("monai/UNet?spatial_dims=4", "spatial_dims must be 2 or 3, not 4"),
        ("monai/UNet?maps=0", "maps of at least 1"),
        ("monai/RegUNet", "missing 2 required"),
        ("monai/DenseNet?init_features=4&growth_rate=2&block_config=1,1", "no full-resolution maps"),
        ("mona/UNet", "did you mean 'monai'"),
    ],
)
def test_wrong_specs_get_one_line(spec, message):
    with pytest.raises(UsageError, match=message) as caught:
        build_encoder(spec, channels=1, patch=(16, 16, 16))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ((8, 10, 8), "multiples of 4, not 8 x 10 x 8: pass a patch of 8 x 12 x 8"),
        ((4, 4, 4), "single voxel.* 8 or more"),
        ((8, 8), "takes volumes"),
    ],
)
def test_wrong_patches_get_one_line(patch, message):
    with pytest.raises(UsageError, match=message):
        build_encoder(TINY, channels=1, patch=patch)


def test_wrong_channels_get_one_line():
    with pytest.raises(UsageError, match=r"takes batches \(B, 1, sides"):
        build_encoder(TINY, channels=1)(volumes(8, 8, 8, channels=2))


def test_a_missing_monai_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(UsageError, match=r"pip install 'tacit\[volumes\]'"):
        build_encoder("monai/UNet", channels=1)


def test_nobody_pays_for_monai_who_does_not_use_it():
    code = "import sys, tacit.encoders.zoo; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
