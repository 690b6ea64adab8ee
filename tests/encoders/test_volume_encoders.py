"""The networks for volumes: the weights that were counted, their maps, and what they refuse."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tacit.data.image.form import ImageForm
from tacit.data.volume.form import VolumeForm
from tacit.encoders.card import EncoderCard, attach_card, card_of
from tacit.encoders.pyramid import pyramid_of
from tacit.encoders.saved import save_encoder
from tacit.encoders.unet import UNet2d, UNet3d
from tacit.encoders.vnet import VNet
from tacit.encoders.zoo import build_encoder, load_encoder
from tacit.errors import UsageError


def weights(net):
    return sum(parameter.numel() for parameter in net.parameters())


def volumes(*sides, channels=1, batch=2, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(batch, channels, *sides, generator=draw)


def small(build, **arguments):
    torch.manual_seed(0)
    return build(**{"width": 2, **arguments})


SMALL = [
    (VNet, {}, (32, 16, 48)),
    (VNet, {"norm": "instance"}, (16, 32, 16)),
    (UNet3d, {}, (16, 48, 32)),
    (UNet3d, {"depth": 2, "channels": 3}, (12, 4, 20)),
    (UNet2d, {}, (48, 16)),
    (UNet2d, {"channels": 2}, (16, 32, 1)),
]


def test_the_weights_are_those_that_were_counted():
    assert weights(VNet()) + weights(nn.Conv3d(16, 2, 1)) == 9_448_866
    assert weights(UNet3d()) + weights(nn.Conv3d(16, 2, 1)) == 5_884_050
    assert weights(UNet2d()) + weights(nn.Conv2d(16, 4, 3, padding=1)) == 1_813_764
    # neither a smaller head nor a transposed convolution in place of the 1x1 ones gives that number
    assert weights(UNet2d()) + weights(nn.Conv2d(16, 4, 1)) == 1_813_764 - 512
    # norms without learned scale: 2 fewer for each channel of 2800 layer outputs
    assert weights(VNet()) - weights(VNet(norm="instance")) == 2 * 2800


@pytest.mark.parametrize(("build", "arguments", "sides"), SMALL)
def test_the_maps_get_finer_by_two(build, arguments, sides):
    net = small(build, **arguments).eval()
    x = volumes(*sides, channels=arguments.get("channels", 1))
    depth = arguments.get("depth", 4)
    with torch.no_grad():
        maps = net.forward_pyramid(x)
        assert len(maps) == depth + 1
        for level, (found, channels) in enumerate(zip(maps, net.pyramid_features, strict=True)):
            coarser = 2 ** (depth - level)
            assert channels == 2 * coarser
            expected = [max(1, side // coarser) for side in sides]
            assert found.shape == (2, channels, *expected)
        assert pyramid_of(net) is net
        assert net.divisor == 2**depth
        assert torch.equal(net.forward_features(x), maps[0])
        assert torch.allclose(net(x), maps[0].flatten(2).mean(2), atol=1e-6)
        assert net(x).shape == (2, net.num_features) == (2, 2 * 2**depth)
        assert torch.equal(net.forward_head(net.forward_features(x)), net(x))


@pytest.mark.parametrize(("build", "arguments", "sides"), SMALL)
def test_gradients_reach_every_weight_from_the_finest_map(build, arguments, sides):
    net = small(build, **arguments).double().train()
    for module in net.modules():
        if isinstance(module, nn.Dropout | nn.Dropout3d):
            module.p = 0.0
    x = volumes(*sides, channels=arguments.get("channels", 1)).double()
    finest = net.forward_pyramid(x)[-1]
    (finest * torch.randn(finest.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    # a bias that a norm takes away again has a gradient of rounding errors only
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters() if p.ndim > 1)
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(("build", "arguments", "sides"), SMALL)
def test_dropout_is_for_learning_only(build, arguments, sides):
    net, x = small(build, **arguments).eval(), volumes(*sides, channels=arguments.get("channels", 1))
    with torch.no_grad():
        for first, again in zip(net.forward_pyramid(x), net.forward_pyramid(x), strict=True):
            assert torch.equal(first, again)
        net.train()
        assert not torch.equal(net.forward_pyramid(x)[-1], net.forward_pyramid(x)[-1])
        assert not torch.equal(net(x), net(x))


def test_vnet_drops_whole_channels_at_both_ends():
    net, x = small(VNet, width=8).train(), volumes(32, 32, 16, batch=4)
    maps = net.forward_pyramid(x)
    for dropped, share in ((maps[0], 128 * 4), (maps[-1], 8 * 4)):
        gone = (dropped.flatten(2) == 0).all(2).float().mean().item()
        assert gone == pytest.approx(0.5, abs=4 * 0.5 / share**0.5)
    assert not (maps[1].flatten(2) == 0).all(2).float().mean().item() > 0.25


def test_unet_drops_single_elements_at_both_ends():
    net, without = small(UNet3d, width=8).train(), small(UNet3d, width=8, dropout=0.0).train()
    x = volumes(32, 32, 16)
    bottleneck, plain = net.forward_features(x), without.forward_features(x)
    kept = bottleneck != 0
    assert torch.allclose(bottleneck[kept], plain[kept] / 0.7)
    assert (~kept & (plain > 0)).sum() / (plain > 0).sum() == pytest.approx(0.3, abs=0.05)
    ends = [one.forward_pyramid(x)[-1] for one in (net, without)]
    zeros = [(end == 0).float().mean().item() for end in ends]
    assert 1 - zeros[0] == pytest.approx(0.7 * (1 - zeros[1]), abs=0.02)


def convolve(x, layer):
    """One convolution of either kind, the obvious way."""
    if isinstance(layer, nn.ConvTranspose3d):  # kernel 2 and stride 2: every voxel becomes 2x2x2
        fine = torch.einsum("bixyz,ioklm->boxkylzm", x, layer.weight)
        return fine.flatten(6, 7).flatten(4, 5).flatten(2, 3) + layer.bias[:, None, None, None]
    return F.conv3d(x, layer.weight, layer.bias, stride=layer.stride, padding=layer.padding)


def instance(x):
    mean, var = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), keepdim=True, correction=0)
    return F.relu((x - mean) / (var + 1e-5).sqrt())


def test_vnet_against_the_obvious_way():
    net, x = small(VNet, norm="instance").double().eval(), volumes(32, 16, 16).double()
    kinds = nn.Conv3d | nn.ConvTranspose3d
    first, down, up, last = (
        [module for module in part.modules() if isinstance(module, kinds)]
        for part in (net.encode, net.down, net.up, net.decode)
    )
    expected, skips = x, []
    for stage, count in enumerate((1, 2, 3, 3, 3)):
        for _ in range(count):
            expected = instance(convolve(expected, first.pop(0)))
        if stage < 4:
            skips.append(expected)
            expected = instance(convolve(expected, down.pop(0)))
    maps = net.forward_pyramid(x)
    assert torch.allclose(maps[0], expected, atol=1e-9)
    for stage, count in enumerate((3, 3, 2, 1)):
        expected = instance(convolve(expected, up.pop(0))) + skips.pop()
        for _ in range(count):
            expected = instance(convolve(expected, last.pop(0)))
        assert torch.allclose(maps[stage + 1], expected, atol=1e-9)
    assert not first + down + up + last


def test_unet3d_against_the_obvious_way():
    net, x = small(UNet3d, depth=1).double().eval(), volumes(4, 6, 2).double()
    layers = [module for module in net.modules() if isinstance(module, nn.Conv3d)]

    def twice(x):
        for _ in range(2):
            x = instance(convolve(x, layers.pop(0)))
        return x

    fine = twice(x)
    halved = fine.unflatten(4, (1, 2)).unflatten(3, (3, 2)).unflatten(2, (2, 2)).amax((3, 5, 7))
    coarse = twice(halved)
    up = F.interpolate(coarse, size=(4, 6, 2), mode="trilinear", align_corners=False)
    finest = twice(torch.cat([fine, up], 1))
    found = net.forward_pyramid(x)
    assert torch.allclose(found[0], coarse, atol=1e-9)
    assert torch.allclose(found[1], finest, atol=1e-9)
    assert not layers


def test_unet2d_interpolates_with_aligned_corners_and_leaks():
    net, x = small(UNet2d).double().eval(), volumes(32, 16).double()
    found = net.forward_pyramid(x)
    maps = [net.encode[0](x)]
    for stage in net.encode[1:]:
        maps.append(stage(F.max_pool2d(maps[-1], 2)))
    assert torch.equal(found[0], maps[-1])
    narrowed = F.conv2d(maps[-1], net.narrow[0].weight, net.narrow[0].bias)
    up = F.interpolate(narrowed, scale_factor=2, mode="bilinear", align_corners=True)
    assert torch.allclose(up[..., 0, 0], narrowed[..., 0, 0])  # the corner stays where it is
    assert torch.allclose(found[1], net.decode[0](torch.cat([maps[3], up], 1)))
    assert [m.p for m in net.encode.modules() if isinstance(m, nn.Dropout)] == [0.05, 0.1, 0.2, 0.3, 0.5]
    assert not any(m.p for m in net.decode.modules() if isinstance(m, nn.Dropout))
    assert (found[1] < 0).any()  # LeakyReLU


def test_a_volume_of_one_slice_is_its_slice():
    net, x = small(UNet2d, channels=2).eval(), volumes(32, 16, 1, channels=2)
    with torch.no_grad():
        flat, thick = net.forward_pyramid(x[..., 0]), net.forward_pyramid(x)
        for one, other in zip(flat, thick, strict=True):
            assert torch.equal(one[..., None], other)
        assert torch.equal(net(x), net(x[..., 0]))
        assert net.forward_features(x).shape == (2, 32, 2, 1, 1)


def test_unet3d_begins_with_the_variance_of_he():
    net = small(UNet3d, width=8)
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            fan = module.in_channels * 27
            tolerance = 5 * (2 * module.weight.numel()) ** -0.5
            assert module.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=tolerance)
            assert module.bias.abs().max() <= fan**-0.5
    before = [p.clone() for p in net.parameters()]
    net.initialise()
    assert not any(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("spec", "channels", "patch"),
    [
        ("tacit/vnet?width=2&norm=instance", 2, (32, 16, 16)),
        ("tacit/unet3d?width=2&depth=2&dropout=0.1", 1, (8, 4, 12)),
        ("tacit/unet2d?width=2", 1, (32, 16, 1)),
    ],
)
def test_by_spec_string_and_back_from_the_disk(spec, channels, patch, tmp_path):
    encoder = build_encoder(spec, channels=channels, patch=patch, seed=1)
    card = card_of(encoder)
    assert (card.form.modality, card.form.patch) == ("volume", patch)
    assert (card.form.mean, card.form.std) == ((0.0,) * channels, (1.0,) * channels)
    assert (card.learned, card.num_features) == (False, encoder.num_features)
    save_encoder(encoder, tmp_path)
    x = volumes(*patch, channels=channels)
    back = load_encoder(tmp_path)
    with torch.no_grad():
        for one, other in zip(back.forward_pyramid(x), encoder.eval().forward_pyramid(x), strict=True):
            assert torch.equal(one, other)
    assert card_of(back) == card
    assert card_of(back).learned
    assert not card_of(build_encoder(f"random:run:{tmp_path}", seed=2)).learned
    again, other = (build_encoder(spec, channels=channels, patch=patch, seed=seed) for seed in (1, 2))
    first = next(encoder.parameters())
    assert torch.equal(first, next(again.parameters()))
    assert not torch.equal(first, next(other.parameters()))


def test_cards_of_volumes_survive_json():
    form = VolumeForm.make(1, patch=(96, 96, 80), window="-200,300", spacing=(1.0, 1.0, 2.5))
    card = EncoderCard("tacit/vnet", form, 256)
    back = EncoderCard.from_json(json.loads(json.dumps(card.as_json())))
    assert back == card
    assert (back.form.patch, back.form.window, back.form.spacing) == (
        (96, 96, 80),
        "-200,300",
        (1.0, 1.0, 2.5),
    )
    assert EncoderCard.from_json({**card.as_json(), "learned": True}).learned


OLD = {"spec": "tacit/vnet", "channels": 1, "size": 96, "mean": [0.25], "std": [0.5], "num_features": 256}
"""What the first versions wrote."""


def test_cards_of_the_first_versions_are_read():
    image = EncoderCard.from_json({**OLD, "small_input": True})
    assert image == EncoderCard("tacit/vnet", ImageForm.make(1, (0.25,), (0.5,), size=96), 256, True)
    more = {"modality": "volume", "patch": [96, 96, 80], "window": "minmax", "spacing": [1.0, 1.0, 2.5]}
    volume = EncoderCard.from_json({**OLD, **more, "small_input": False, "learned": True})
    form = VolumeForm.make(1, (0.25,), (0.5,), patch=(96, 96, 80), window="minmax", spacing=(1.0, 1.0, 2.5))
    assert volume == EncoderCard("tacit/vnet", form, 256)
    assert volume.learned
    bare = EncoderCard.from_json({**OLD, "modality": "image", "patch": [], "window": "", "spacing": []})
    assert bare.form == image.form


def test_volume_encoders_without_a_patch_are_still_for_volumes():
    assert card_of(build_encoder("tacit/vnet?width=2", channels=1)).form.modality == "volume"
    assert card_of(build_encoder("tacit/unet2d?width=2", channels=1)).form.modality == "image"


def test_own_modules_for_volumes_get_a_card():
    own = attach_card(nn.Flatten(), channels=2, patch=(4, 4, 6), num_features=7)
    card = card_of(own)
    assert card.form == VolumeForm(channels=2, mean=(0.0, 0.0), std=(1.0, 1.0), patch=(4, 4, 6))
    assert card_of(attach_card(own, channels=1, size=4, num_features=7)).form.mean == (0.5,)
    for word in ("smells", "open", "series", "image.form"):  # `open` is a module, `series` is not built
        with pytest.raises(UsageError, match=f"there is no kind of data '{word}'"):
            attach_card(own, channels=1, size=4, num_features=7, modality=word)
    with pytest.raises(UsageError, match="size= for images, or patch= for volumes"):
        attach_card(own, channels=1, num_features=7)


def test_a_missing_capability_is_named():
    with pytest.raises(UsageError, match="timm/resnet18 gives no full-resolution maps") as caught:
        pyramid_of(build_encoder("timm/resnet18", size=32))
    for known in ("tacit/vnet", "tacit/unet3d", "monai/UNet"):
        assert known in str(caught.value)
    own = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="the encoder Linear gives no full-resolution maps"):
        pyramid_of(own)
    own.forward_pyramid, own.divisor = own.forward, 1
    with pytest.raises(UsageError, match=r"has forward_pyramid, but not pyramid_features$"):
        pyramid_of(own)
    own.pyramid_features = (2,)
    assert pyramid_of(own) is own


@pytest.mark.parametrize(
    ("spec", "patch", "message"),
    [
        ("tacit/vnet?norm=bacth", (16, 16, 16), "did you mean 'batch'"),
        ("tacit/vnet?width=0", (16, 16, 16), "width of at least 1, not 0"),
        ("tacit/vnet?dropout=1", (16, 16, 16), r"dropout must lie in \[0, 1\)"),
        ("tacit/vnet?depth=3", (16, 16, 16), "depth"),
        ("tacit/unet3d?depth=0", (16, 16, 16), "depth of at least 1"),
        ("tacit/unet3d?dropout=high", (16, 16, 16), "dropout must lie"),
        ("tacit/unet2d?width=1.5", (16, 16, 1), "width of at least 1, not 1.5"),
        ("tacit/vent", (16, 16, 16), "did you mean 'tacit/vnet'"),
        ("vnet", (16, 16, 16), "did you mean 'tacit/vnet'"),
        ("tacit/vnet", (40, 32, 10), "multiples of 16, not 40 x 32 x 10: pass a patch of 48 x 32 x 16"),
        ("tacit/vnet", (16, 16), r"takes volumes, \(X, Y, Z\), not 16 x 16"),
        ("tacit/vnet?norm=instance", (16, 16, 16), "single voxel.* 32 or more"),
        ("tacit/unet3d?depth=3", (8, 8, 8), "single voxel.* 16 or more"),
        ("tacit/unet3d", (0, 32, 16), "multiples of 16"),
        ("tacit/unet2d", (16, 16, 16), r"slices, \(X, Y\) or \(X, Y, 1\), not 16 x 16 x 16"),
        ("tacit/unet2d", (30, 16, 1), "pass a patch of 32 x 16 x 1"),
        ("timm/resnet18", (16, 16, 16), "made for images and gives no full-resolution maps"),
        ("tacit/convnet", (16, 16, 16), "made for images.*use tacit/vnet"),
    ],
)
def test_wrong_specs_and_patches_get_one_line(spec, patch, message):
    with pytest.raises(UsageError, match=message) as caught:
        build_encoder(spec, channels=1, patch=patch)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (VNet, (1, 2, 16, 16, 16), r"takes batches \(B, 1, sides ...\), not \(1, 2, 16, 16, 16\)"),
        (VNet, (16, 16), "takes batches"),
        (VNet, (1, 1, 16, 16, 20), "multiples of 16"),
        (UNet3d, (1, 1, 16, 16, 16), "single voxel"),
        (UNet3d, (1, 1, 32, 16), "takes volumes"),
        (UNet2d, (1, 1, 16, 16, 2), "takes slices"),
    ],
)
def test_wrong_inputs_get_one_line(build, shape, message):
    net = small(build)
    for run in (net, net.forward_features, net.forward_pyramid):
        with pytest.raises(UsageError, match=message):
            run(torch.zeros(shape))
